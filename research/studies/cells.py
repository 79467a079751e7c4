"""Cells of a study: a base run and named changes of it.

A change is a mapping from dotted names to values, as `research.overrides.changed` takes it:
`{"encoder.layers": 3, "stages.0.objectives.cloze.corruption.rate": 0.4}`. Every builder gives the
base under a name of its own first, then the cells, which are named so that they can be folders.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from research.config import near
from research.errors import InputError
from research.overrides import changed
from research.runs.config import RunConfig

Changes = Mapping[str, object]
Levels = Mapping[str, Changes]
Cells = dict[str, RunConfig]


def levels(fields: str | Sequence[str], values: Iterable[object]) -> dict[str, Changes]:
    """A level a value, which all of `fields` (dotted names) get, named after the value."""
    names = (fields,) if isinstance(fields, str) else fields
    return {_text(value): dict.fromkeys(names, value) for value in values}


def named(base: RunConfig, changes: Mapping[str, Changes], *, name: str = "base") -> Cells:
    """The base as `name`, and a cell for each named change.

    `InputError` for a change that cannot be made or changes nothing, for two cells that are the
    same run, and for a name that cannot be a folder's.
    """
    cells = {name: base}
    for cell, change in changes.items():
        if cell in cells:
            raise InputError(f"cell {cell} has the name of the base; name one of them otherwise")
        config = _made(base, change, cell)
        same = [other for other in cells if cells[other] == config]
        if same:
            raise InputError(f"cell {cell} is the same run as {same[0]}; leave one of them out")
        cells[cell] = config
    for cell in cells:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,+%-]{0,63}", cell):
            raise InputError(
                f"cell {cell!r}: a cell's name is a folder's; allowed: at most 64 letters, digits "
                "and - _ . = , + %, the first a letter or a digit"
            )
    return cells


def one_factor(base: RunConfig, factors: Mapping[str, Levels], *, name: str = "base") -> Cells:
    """One factor at a time, all else as in the base: cells `layers=1`, `layers=3`, `norm=pre`.

    `factors` are levels by the name of the factor. The base's own level is not repeated.
    """
    changes = {
        f"{factor}={level}": change
        for factor, own in factors.items()
        for level, change in own.items()
    }
    return named(base, _real(base, changes), name=name)


def grid(base: RunConfig, factors: Mapping[str, Levels], *, name: str = "base") -> Cells:
    """Every level of each factor with every one of the others: cells `rate=0.2,keep=0.1`.

    The base is one of them if its own levels are all among the given ones.
    """
    changes: dict[str, Changes] = {}
    for picked in itertools.product(*(own.items() for own in factors.values())):
        cell = ",".join(f"{factor}={level}" for factor, (level, _) in zip(factors, picked))
        together: dict[str, object] = {}
        for _, change in picked:
            twice = sorted(together.keys() & change.keys())
            if twice:
                raise InputError(f"cell {cell}: two factors change {twice[0]}; cross other ones")
            together |= change
        changes[cell] = together
    return named(base, _real(base, changes), name=name)


def without(config: RunConfig, stage: str, *keys: str) -> RunConfig:
    """The run without some objectives of the stage of that name, nor windows of their own."""
    place = _place(config, stage)
    own = config.stages[place]
    unknown = [key for key in keys if key not in own.objectives]
    if unknown:
        raise InputError(
            f"stage {stage} has no objective {unknown[0]!r}{near(unknown[0], set(own.objectives))}"
        )
    if own.rank_by in keys:
        raise InputError(f"stage {stage} ranks by {own.rank_by}, which cannot be left out")
    left = replace(
        own,
        objectives={key: part for key, part in own.objectives.items() if key not in keys},
        own_windows={key: rule for key, rule in own.own_windows.items() if key not in keys},
    )
    stages = (*config.stages[:place], left, *config.stages[place + 1 :])
    return replace(config, stages=stages)


def leave_one_out(
    base: RunConfig, stage: str, *, always: Sequence[str] = (), name: str = "base"
) -> Cells:
    """A cell for each objective of a stage, all others kept: `no-aap`; `always` stay in every one.

    `InputError` where a stage would be left without objectives.
    """
    cells = {name: base}
    for key in _others(base, stage, always):
        cells[f"no-{key}"] = without(base, stage, key)
    return cells


def one_only(
    base: RunConfig, stage: str, *, always: Sequence[str] = (), name: str = "base"
) -> Cells:
    """A cell for each objective of a stage, no other there but those of `always`: `only-aap`.

    The base alone where it has but one such objective.
    """
    cells = {name: base}
    keys = _others(base, stage, always)
    for key in keys:
        cells[f"only-{key}"] = without(base, stage, *(each for each in keys if each != key))
    return cells if len(keys) > 1 else {name: base}


def _made(base: RunConfig, change: Changes, cell: str) -> RunConfig:
    try:
        return changed(base, change)
    except InputError as error:
        raise InputError(f"cell {cell}: {error}") from error


def _real(base: RunConfig, changes: Mapping[str, Changes]) -> dict[str, Changes]:
    """The changes that change something."""
    return {cell: each for cell, each in changes.items() if _made(base, each, cell) != base}


def _text(value: object) -> str:
    """A value in a cell's name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return "none" if value is None else str(value)


def _place(config: RunConfig, stage: str) -> int:
    names = [each.name for each in config.stages]
    if stage not in names:
        raise InputError(f"the run has no stage {stage!r}{near(stage, names)}")
    return names.index(stage)


def _others(base: RunConfig, stage: str, always: Sequence[str]) -> list[str]:
    """The keys of a stage's objectives but those of `always`, which must be among them."""
    objectives = base.stages[_place(base, stage)].objectives
    unknown = [key for key in always if key not in objectives]
    if unknown:
        raise InputError(
            f"stage {stage} has no objective {unknown[0]!r}{near(unknown[0], set(objectives))}"
        )
    return [key for key in objectives if key not in always]
