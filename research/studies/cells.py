"""Builders of a study's cells: a base run and named changes of it.

A change is a level: a mapping from dotted names to values, such as
`{"encoder.layers": 3, "stages.finetune.objectives.cloze.corruption.rate": 0.4}`, in which a stage
is given by its place or by its name; or a function from config to config, for what no field says,
such as a stage more. Every builder returns configs by cell name, the base first. A cell's name is
also the name of its folder.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from research.annotations import suggest
from research.errors import InputError
from research.runs.config import RunConfig
from research.studies.changes import Changes, Level, Levels, stage_index, with_levels
from research.studies.factorial import Grid
from research.training.config import StageConfig

Cells = dict[str, RunConfig]


def levels(fields: str | Sequence[str], values: Iterable[object]) -> dict[str, Changes]:
    """One level for each value, named after it: a change that sets all `fields` (dotted names).

    Raises `InputError` for two values of one name.
    """
    dotted_names = (fields,) if isinstance(fields, str) else fields
    named: dict[str, Changes] = {}
    for value in values:
        name = value_text(value)
        if name in named:
            raise InputError(
                f"two levels of {', '.join(dotted_names)} are called {name!r}; give a mapping from "
                "names to changes in place of `levels`"
            )
        named[name] = dict.fromkeys(dotted_names, value)
    return named


def named_cells(base: RunConfig, changes: Mapping[str, Level], *, name: str = "base") -> Cells:
    """The base under the name `name`, and one cell for each named change.

    Raises `InputError` for a change that cannot be made or that changes nothing, for two cells with
    the same config, for a cell named like the base, and for a name that cannot name a folder.
    """
    configs = {cell: _config_of(base, {cell: level}, cell) for cell, level in changes.items()}
    return _checked_cells(base, configs, name)


def one_factor(base: RunConfig, factors: Mapping[str, Levels], *, name: str = "base") -> Cells:
    """Vary one factor at a time, all else as in the base: cells `layers=1`, `layers=3`, `norm=pre`.

    `factors` maps the name of a factor to its levels. A level that the base already has gives no
    cell.
    """
    configs = {
        f"{factor}={level}": _config_of(base, {factor: change}, f"{factor}={level}")
        for factor, factor_levels in factors.items()
        for level, change in factor_levels.items()
    }
    changed = {cell: config for cell, config in configs.items() if config != base}
    return _checked_cells(base, changed, name)


def grid(
    base: RunConfig,
    factors: Mapping[str, Levels],
    *,
    omit: Sequence[Mapping[str, object]] = (),
    name: str = "base",
) -> Grid:
    """Every combination of the factors' levels: cells `rate=0.2,keep=0.1`.

    A level is a change by dotted name or a function, `{}` is the base as it is. Dotted names always
    mean the base's stages, also beside a factor that adds a stage or takes one away. The base
    stands in the place of the combination that equals it, if there is one, else beside the others.
    `omit` leaves combinations out: each entry has the levels of some factors, by factor, and means
    all combinations with them. A study of the grid reports main effects and interactions; it can
    estimate those whose combinations are all there.

        longer = lambda config: with_stage(config, PRETRAIN, before="train")
        grid(base, {
            "pretrain": {"no": {}, "yes": longer},
            "layers": levels("encoder.layers", (1, 2)),
        })

    Raises `InputError` for a level that cannot be applied, for two factors that change the same or
    whose functions do not go in either order, for a factor with fewer than two levels, for two
    combinations that are the same run, and for names that cannot stand in a folder's name.
    """
    _check_names(factors)
    left_out = [_checked_omission(entry, factors) for entry in omit]
    base_levels = {
        factor: next((level for level in choices if _is_base(base, choices[level])), name)
        for factor, choices in factors.items()
    }
    configs: Cells = {}
    cell_levels = {name: base_levels}
    for combination in itertools.product(*factors.values()):
        chosen = dict(zip(factors, combination))
        cell = _combination_text(chosen)
        if any(entry.items() <= chosen.items() for entry in left_out):
            if chosen == base_levels:
                raise InputError(f"omit leaves out {cell}, which is the base")
            continue
        if chosen != base_levels:
            changes = {factor: factors[factor][level] for factor, level in chosen.items()}
            configs[cell] = _config_of(base, changes, cell)
            cell_levels[cell] = chosen
    for factor, choices in factors.items():
        if len(choices) == 1:
            raise InputError(
                f"factor {factor} has one level, {next(iter(choices))!r}, and so no effect; give "
                "it another level ({} for the base as it is), or make this level part of the base"
            )
    return Grid(
        _checked_cells(base, configs, name),
        {factor: tuple(choices) for factor, choices in factors.items()},
        cell_levels,
    )


def with_stage(config: RunConfig, stage: StageConfig, *, before: str | None = None) -> RunConfig:
    """The run with one stage more, before the stage named `before`; None: after all others.

    Raises `InputError` when there is no stage `before`, or one of the new stage's name already.
    """
    place = len(config.stages) if before is None else stage_index(config, before)
    return replace(config, stages=(*config.stages[:place], stage, *config.stages[place:]))


def without_stage(config: RunConfig, stage: str) -> RunConfig:
    """The run without the stage named `stage`; `InputError` when there is none or no other."""
    place = stage_index(config, stage)
    return replace(config, stages=(*config.stages[:place], *config.stages[place + 1 :]))


def without_objectives(config: RunConfig, stage: str, *keys: str) -> RunConfig:
    """The run without the objectives `keys` of the stage named `stage`, and without their windows.

    Raises `InputError` when there is no such stage or objective, and for the objective that the
    stage ranks by.
    """
    index = stage_index(config, stage)
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


def _config_of(base: RunConfig, changes: Mapping[str, Level], cell: str) -> RunConfig:
    """The base with one level of each factor; an error names the cell."""
    try:
        return with_levels(base, changes)
    except InputError as error:
        raise InputError(f"cell {cell}: {error}") from error


def _checked_cells(base: RunConfig, configs: Mapping[str, RunConfig], name: str) -> Cells:
    """The base and the cells, which must differ in name and config; see `named_cells`."""
    cells = {name: base}
    for cell, config in configs.items():
        if cell in cells:
            raise InputError(f"cell {cell} has the name of the base; name one of them otherwise")
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


def _is_base(base: RunConfig, level: Level) -> bool:
    """Whether a level leaves the base as it is; one that cannot be applied alone does not."""
    try:
        return with_levels(base, {"": level}) == base
    except InputError:
        return False


def _combination_text(chosen: Mapping[str, str]) -> str:
    return ",".join(f"{factor}={level}" for factor, level in chosen.items())


def _check_names(factors: Mapping[str, Levels]) -> None:
    """Raise `InputError` unless names of factors and levels can be told apart in a cell's name."""
    for factor, choices in factors.items():
        if not isinstance(choices, Mapping) or not choices:
            raise InputError(
                f"factor {factor} is {choices!r:.60}; give its levels by name, two or more, as in "
                "levels('encoder.layers', [1, 2])"
            )
        for kind, text, allowed in (
            ("factor", factor, r"[A-Za-z0-9_+%-]+"),
            *(("level", level, r"[A-Za-z0-9._+%-]+") for level in choices),
        ):
            if not re.fullmatch(allowed, text):
                raise InputError(
                    f"{text!r} names a {kind} of a grid; allowed: letters, digits and _ + % -"
                    f"{', and for a level a point' if kind == 'level' else ''}"
                )


def _checked_omission(
    omission: Mapping[str, object], factors: Mapping[str, Levels]
) -> dict[str, str]:
    """The levels by factor of what is to be left out, as text; `InputError` for an unknown one."""
    if not omission:
        raise InputError("omit has an entry without levels, which means every cell")
    chosen = {factor: value_text(level) for factor, level in omission.items()}
    for factor, level in chosen.items():
        if factor not in factors:
            raise InputError(f"omit names factor {factor!r}{suggest(factor, set(factors))}")
        if level not in factors[factor]:
            raise InputError(
                f"omit names level {level!r} of {factor}{suggest(level, set(factors[factor]))}"
            )
    return chosen


def value_text(value: object) -> str:
    """How a value is written in a cell's name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return "none" if value is None else str(value)


def _removable_keys(base: RunConfig, stage: str, always: Sequence[str]) -> list[str]:
    """The keys of a stage's objectives without those in `always`.

    Raises `InputError` when `always` names an objective that the stage does not have.
    """
    objectives = base.stages[stage_index(base, stage)].objectives
    unknown = [key for key in always if key not in objectives]
    if unknown:
        raise InputError(
            f"stage {stage} has no objective {unknown[0]!r}{suggest(unknown[0], set(objectives))}"
        )
    return [key for key in objectives if key not in always]
