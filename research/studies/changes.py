"""What a cell of a study changes of its base: fields by dotted name, or a function of the config.

`cells.py` builds cells of such levels; `with_levels` applies those of several factors at once, in
such a way that none can change the meaning of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from research.annotations import suggest
from research.errors import InputError
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.runs.differences import difference_of

# New values by dotted name. A stage is given by its place in the base or by its name:
# `stages.0.epochs`, `stages.finetune.epochs`.
Changes = Mapping[str, object]
# What a level does to a config; `{}` leaves it as it is.
Level = Changes | Callable[[RunConfig], RunConfig]
# Levels of a factor, by their names.
Levels = Mapping[str, Level]


def with_levels(base: RunConfig, levels: Mapping[str, Level]) -> RunConfig:
    """The base with one level of each factor; `levels` are by the factor's name.

    The dotted names of all factors are replaced in the base first and all at once, so a place among
    the stages is one among the base's stages, whatever other factors add or take away. Then the
    functions are called. Raises `InputError` if a level cannot be applied, if two factors set one
    field, if a function takes away or overwrites what another factor sets, and if functions give
    another config when they are called in the opposite order.
    """
    changes = _merged(base, levels)
    changed = replace_fields(base, changes)
    functions = {
        factor: level for factor, level in levels.items() if not isinstance(level, Mapping)
    }
    for factor, function in functions.items():
        if not callable(function):
            raise InputError(
                f"a level of {factor} is {function!r:.60}; give changes by dotted name, {{}} for "
                "none, or a function of the config"
            )
    config = _called(functions.values(), changed)
    if len(functions) > 1 and _called(reversed(functions.values()), changed) != config:
        raise InputError(
            f"the functions of factors {' and '.join(functions)} give another run in the opposite "
            "order; make one factor of them, whose levels say the order"
        )
    if functions:
        _check_kept(base, changes, config)
    return config


def stage_index(config: RunConfig, stage: str) -> int:
    """The place of the stage of this name among the config's stages; `InputError` if none is."""
    names = [stage_config.name for stage_config in config.stages]
    if stage not in names:
        raise InputError(f"the run has no stage {stage!r}{suggest(stage, names)}")
    return names.index(stage)


def _merged(base: RunConfig, levels: Mapping[str, Level]) -> dict[str, object]:
    """The changes of all levels, with every stage given by its place."""
    merged: dict[str, object] = {}
    for level in levels.values():
        if not isinstance(level, Mapping):
            continue
        changes = {_with_place(base, name): value for name, value in level.items()}
        if "stages" in changes and len(levels) > 1:
            raise InputError(
                "one of several factors sets all stages, and so changes what the others mean by "
                "the name of a stage; give a function that adds a stage or takes one away"
            )
        both = sorted(merged.keys() & changes.keys())
        if both:
            raise InputError(
                f"two factors change {both[0]}; choose factors that change different fields"
            )
        merged |= changes
    return merged


def _with_place(config: RunConfig, name: str) -> str:
    """A dotted name with the place of a stage in `config` in place of the stage's name."""
    head, *rest = name.split(".")
    if head != "stages" or not rest or rest[0].isdecimal():
        return name
    return ".".join((head, str(stage_index(config, rest[0])), *rest[1:]))


def _called(functions: Iterable[Callable[[RunConfig], RunConfig]], config: RunConfig) -> RunConfig:
    for function in functions:
        config = function(config)
        if not isinstance(config, RunConfig):
            raise InputError(
                f"the function of a level returns a {type(config).__name__}; give one that returns "
                "the changed RunConfig"
            )
    return config


def _check_kept(base: RunConfig, changes: Changes, config: RunConfig) -> None:
    """Raise `InputError` unless `config` still has all that `changes` change, in the same stages.

    A value that the base has anyway may go, so that a factor of a stage can stay at the level of
    the base where the stage is left out.
    """
    places = {stage.name: str(place) for place, stage in enumerate(config.stages)}
    in_config = {}
    for name, value in changes.items():
        if _is_in(base, name, value):
            continue
        head, *rest = name.split(".")
        if head == "stages":
            stage = base.stages[int(rest[0])].name
            if stage not in places:
                raise InputError(
                    f"one factor changes {name} and another takes stage {stage} away; leave such "
                    "combinations out (`omit` of `grid`)"
                )
            name = ".".join((head, places[stage], *rest[1:]))
        in_config[name] = value
    try:
        lost = difference_of(config, replace_fields(config, in_config))
    except InputError as error:
        raise InputError(
            f"one factor changes what another takes away ({error}); leave such combinations out "
            "(`omit` of `grid`)"
        ) from error
    if lost:
        raise InputError(
            f"one factor changes {next(iter(lost))} and the function of another changes it once "
            "more; choose factors that change different parts"
        )


def _is_in(base: RunConfig, name: str, value: object) -> bool:
    """Whether the base has this value already; one that is valid only beside others it has not."""
    try:
        return replace_fields(base, {name: value}) == base
    except InputError:
        return False
