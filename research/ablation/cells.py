"""Cells of a study: a base run and named changes of it; and back, what a cell changes.

A change is a mapping from dotted names to values, as `research.overrides.changed` takes it:
`{"encoder.layers": 3, "stages.0.objectives.cloze.corruption.rate": 0.4}`. Every builder gives the
base under a name of its own first, then the cells, which are named so that they can be folders.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from research.config import near, to_json
from research.errors import InputError
from research.overrides import changed
from research.run import RunConfig
from research.training.stage import StageConfig

Changes = Mapping[str, object]
Levels = Mapping[str, Changes]
Cells = dict[str, RunConfig]
Differences = Iterator[tuple[str, list[object]]]


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


def difference_of(base: RunConfig, config: RunConfig) -> dict[str, list[object]]:
    """`{dotted field: [the base's value, the config's]}` of what differs, as JSON values.

    A whole config is named by its class. Below one that is new or of another class stand its fields
    that differ, from their defaults where the other side, then None, has no such field; of a new
    stage only the class. Stages go by number while both runs have the same ones, else by name.
    """
    return dict(_differences(base, config, ""))


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


def _differences(ours: object, theirs: object, path: str) -> Differences:
    """What differs at `path` and below, each as its dotted name and both values."""
    if ours == theirs:
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _differences(ours.get(key), theirs.get(key), _below(path, key))
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and _are_stages((*ours, *theirs)):
        yield from _stage_differences(ours, theirs, path)
    elif _is_config(ours) and _is_config(theirs):
        if type(ours) is not type(theirs):
            yield path, [_shown(ours), _shown(theirs)]
        for name in dict.fromkeys((*vars(ours), *vars(theirs))):
            field = _below(path, name)
            if name in vars(ours) and name in vars(theirs):
                yield from _differences(vars(ours)[name], vars(theirs)[name], field)
            elif name in vars(theirs):
                yield from _set(theirs, name, field)
            else:
                yield from ((each, both[::-1]) for each, both in _set(ours, name, field))
    else:
        yield path, [_shown(ours), _shown(theirs)]
        if ours is None and _is_config(theirs) and not isinstance(theirs, StageConfig):
            for name in vars(theirs):
                yield from _set(theirs, name, _below(path, name))


def _stage_differences(
    ours: tuple[StageConfig, ...], theirs: tuple[StageConfig, ...], path: str
) -> Differences:
    first, second = ({each.name: each for each in side} for side in (ours, theirs))
    if [name for name in first if name in second] != [name for name in second if name in first]:
        yield path, [list(first), list(second)]
    numbered = list(first) == list(second)
    for place, name in enumerate(dict.fromkeys((*first, *second))):
        stage = _below(path, str(place) if numbered else name)
        yield from _differences(first.get(name), second.get(name), stage)


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _are_stages(values: Sequence[object]) -> bool:
    return all(isinstance(value, StageConfig) for value in values)


def _is_config(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _set(owner: object, name: str, path: str) -> Differences:
    """Where a field of a config is not at its default: None and what it is."""
    assert dataclasses.is_dataclass(owner)
    field = next(each for each in dataclasses.fields(owner) if each.name == name)
    default: object = None
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    for below, (_, value) in _differences(default, vars(owner)[name], path):
        yield below, [None, value]


def _shown(value: object) -> object:
    """A value in a difference: a config as its class's name, all else as JSON has it."""
    return type(value).__name__ if _is_config(value) else to_json(value)
