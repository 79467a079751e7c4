"""Builders of a study's cells: a base run and named changes of it.

A change is a mapping from dotted names to values, as `research.overrides.replace_fields` takes it:
`{"encoder.layers": 3, "stages.0.objectives.cloze.corruption.rate": 0.4}`. Every builder returns
configs by cell name, the base first. A cell's name is also the name of its folder.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from research.annotations import suggest
from research.errors import InputError
from research.overrides import replace_fields
from research.runs.config import RunConfig

Changes = Mapping[str, object]
Levels = Mapping[str, Changes]
Cells = dict[str, RunConfig]


def levels(fields: str | Sequence[str], values: Iterable[object]) -> dict[str, Changes]:
    """One level for each value, named after it: a change that sets all `fields` (dotted names)."""
    dotted_names = (fields,) if isinstance(fields, str) else fields
    return {value_text(value): dict.fromkeys(dotted_names, value) for value in values}


def named_cells(base: RunConfig, changes: Mapping[str, Changes], *, name: str = "base") -> Cells:
    """The base under the name `name`, and one cell for each named change.

    Raises `InputError` for a change that cannot be made or that changes nothing, for two cells with
    the same config, for a cell named like the base, and for a name that cannot name a folder.
    """
    cells = {name: base}
    for cell, change in changes.items():
        if cell in cells:
            raise InputError(f"cell {cell} has the name of the base; name one of them otherwise")
        config = _apply_change(base, change, cell)
        equal = [earlier for earlier in cells if cells[earlier] == config]
        if equal:
            raise InputError(f"cell {cell} is the same run as {equal[0]}; leave one of them out")
        cells[cell] = config
    for cell in cells:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,+%-]{0,63}", cell):
            raise InputError(
                f"cell {cell!r}: a cell's name is a folder's; allowed: at most 64 letters, digits "
                "and - _ . = , + %, the first a letter or a digit"
            )
    return cells


def one_factor(base: RunConfig, factors: Mapping[str, Levels], *, name: str = "base") -> Cells:
    """Vary one factor at a time, all else as in the base: cells `layers=1`, `layers=3`, `norm=pre`.

    `factors` maps the name of a factor to its levels. A level that the base already has gives no
    cell.
    """
    changes = {
        f"{factor}={level}": change
        for factor, factor_levels in factors.items()
        for level, change in factor_levels.items()
    }
    return named_cells(base, _without_base(base, changes), name=name)


def grid(base: RunConfig, factors: Mapping[str, Levels], *, name: str = "base") -> Cells:
    """Every combination of the factors' levels: cells `rate=0.2,keep=0.1`.

    The combination that equals the base, if there is one, gives no cell beside it. Raises
    raise InputError(
        f"cell {cell}: two factors change {both[0]}; choose factors that change "
        "different fields"
        "different fields"
    )
    """
    changes: dict[str, Changes] = {}
    for combination in itertools.product(*(choices.items() for choices in factors.values())):
        cell = ",".join(f"{factor}={level}" for factor, (level, _) in zip(factors, combination))
        merged: dict[str, object] = {}
        for _, change in combination:
            both = sorted(merged.keys() & change.keys())
            if both:
                raise InputError(
                    f"cell {cell}: two factors change {both[0]}; choose factors that change "
                    "different fields"
                )
            merged |= change
        changes[cell] = merged
    return named_cells(base, _without_base(base, changes), name=name)


def without_objectives(config: RunConfig, stage: str, *keys: str) -> RunConfig:
    """The run without the objectives `keys` of the stage named `stage`, and without their windows.

    Raises `InputError` when there is no such stage or objective, and for the objective that the
    stage ranks by.
    """
    index = _stage_index(config, stage)
    old = config.stages[index]
    unknown = [key for key in keys if key not in old.objectives]
    if unknown:
        raise InputError(
            f"stage {stage} has no objective {unknown[0]!r}"
            f"{suggest(unknown[0], set(old.objectives))}"
        )
    if old.rank_by in keys:
        raise InputError(f"stage {stage} ranks by {old.rank_by}, which cannot be left out")
    new = replace(
        old,
        objectives={key: objective for key, objective in old.objectives.items() if key not in keys},
        own_windows={key: rule for key, rule in old.own_windows.items() if key not in keys},
    )
    stages = (*config.stages[:index], new, *config.stages[index + 1 :])
    return replace(config, stages=stages)


def leave_one_out(
    base: RunConfig, stage: str, *, always: Sequence[str] = (), name: str = "base"
) -> Cells:
    """The base, and for each objective of a stage a cell without it, such as `no-aap`.

    Objectives in `always` stay in every cell. Raises `InputError` when a stage would be left
    without objectives.
    """
    cells = {name: base}
    for key in _removable_keys(base, stage, always):
        cells[f"no-{key}"] = without_objectives(base, stage, key)
    return cells


def one_only(
    base: RunConfig, stage: str, *, always: Sequence[str] = (), name: str = "base"
) -> Cells:
    """The base, and for each objective of a stage a cell with it alone, such as `only-aap`.

    Objectives in `always` stay in every cell. When the stage has only one objective beside those,
    the base is the only cell.
    """
    cells = {name: base}
    keys = _removable_keys(base, stage, always)
    for key in keys:
        others = [other for other in keys if other != key]
        cells[f"only-{key}"] = without_objectives(base, stage, *others)
    return cells if len(keys) > 1 else {name: base}


def _apply_change(base: RunConfig, change: Changes, cell: str) -> RunConfig:
    try:
        return replace_fields(base, change)
    except InputError as error:
        raise InputError(f"cell {cell}: {error}") from error


def _without_base(base: RunConfig, changes: Mapping[str, Changes]) -> dict[str, Changes]:
    """The changes that make a config different from the base."""
    configs = {cell: _apply_change(base, change, cell) for cell, change in changes.items()}
    return {cell: change for cell, change in changes.items() if configs[cell] != base}


def value_text(value: object) -> str:
    """How a value is written in a cell's name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return "none" if value is None else str(value)


def _stage_index(config: RunConfig, stage: str) -> int:
    names = [stage_config.name for stage_config in config.stages]
    if stage not in names:
        raise InputError(f"the run has no stage {stage!r}{suggest(stage, names)}")
    return names.index(stage)


def _removable_keys(base: RunConfig, stage: str, always: Sequence[str]) -> list[str]:
    """The keys of a stage's objectives without those in `always`.

    Raises `InputError` when `always` names an objective that the stage does not have.
    """
    objectives = base.stages[_stage_index(base, stage)].objectives
    unknown = [key for key in always if key not in objectives]
    if unknown:
        raise InputError(
            f"stage {stage} has no objective {unknown[0]!r}{suggest(unknown[0], set(objectives))}"
        )
    return [key for key in objectives if key not in always]
