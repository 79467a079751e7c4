"""A space: a function that draws values by name, and returns what they change in a base run.

    def space(trial: Trial) -> Changes:
        changes = {"stages.0.optimizer.lr": trial.log_uniform("lr", 3e-4, 1e-2)}
        if trial.choice("loss", ("full", "sampled")) == "sampled":
            loss = SampledSoftmax(number=trial.integer("negatives", 16, 128, log=True))
            changes["stages.0.objectives.next.loss"] = loss
        return changes

A space is called again with values that were drawn before, so it must be a function of its draws
alone. `trials.py` calls it with values that Optuna draws; this file does not know Optuna.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from types import FunctionType
from typing import TypeVar, final

import numpy as np

from research.config import check_config
from research.errors import InputError
from research.overrides import replace_fields
from research.randomness import seed_of
from research.runs.config import RunConfig
from research.studies.cells import value_text
from research.studies.changes import Changes

Option = TypeVar("Option")
# A drawn value; of a choice its name.
Value = float | int | str
# Draws that check a space before anything is trained.
PROBES = 64
# Fields that the tuning sets, or by which the values of two trials would not be comparable.
FIXED_FIELDS = ("corpus", "seed", "split", "training_share", "evaluation")


@dataclass(frozen=True)
class FloatRange:
    """Numbers from `low` to `high`, uniform in themselves or, with `log`, in their logarithms."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class IntegerRange:
    """Whole numbers from `low` to `high`, both included; with `log` small ones are likelier."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]


Distribution = FloatRange | IntegerRange | Choice
# Gives the value of a parameter that a space asks for.
Draw = Callable[[str, Distribution], Value]


@final
class Trial:
    """Draws values for a space, each under a name; the same name gives the same value again.

    A name stands for one distribution in all trials of a cell. Methods raise `InputError` for a
    range or choices that cannot be drawn from, and for a name whose distribution has changed.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.parameters: dict[str, Value] = {}
        """The values drawn so far, by name; of a choice its name."""
        self.distributions: dict[str, Distribution] = {}
        """What each was drawn from."""

    def uniform(self, name: str, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return float(self._value(name, FloatRange(float(low), float(high))))

    def log_uniform(self, name: str, low: float, high: float) -> float:
        """A number from `low`, above 0, to `high`, with a uniform logarithm."""
        return float(self._value(name, FloatRange(float(low), float(high), log=True)))

    def integer(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number from `low` to `high`, both included; `log` makes small ones likelier."""
        return int(self._value(name, IntegerRange(low, high, log)))

    def choice(self, name: str, options: Sequence[Option] | Mapping[str, Option]) -> Option:
        """One of some values, such as numbers, texts, configs, or names of config classes.

        A mapping gives each a name. Without one a number or text is its own name, and a config has
        that of its class.
        """
        by_name = options if isinstance(options, Mapping) else {}
        if not isinstance(options, Mapping):
            by_name = {value_text(option): option for option in options}
            if len(by_name) < len(options):
                raise InputError(
                    f"choice {name!r}: two options are called the same; give a mapping from names "
                    "to options"
                )
        return by_name[str(self._value(name, Choice(tuple(by_name))))]

    def _value(self, name: str, distribution: Distribution) -> Value:
        check_distribution(name, distribution)
        earlier = self.distributions.setdefault(name, distribution)
        check_same(name, earlier, distribution)
        if name not in self.parameters:
            self.parameters[name] = self._draw(name, distribution)
        return self.parameters[name]


Space = Callable[[Trial], "Changes | RunConfig"]


@dataclass(frozen=True, kw_only=True)
class TunedCell:
    """A cell that is to be tuned: a base run, and the space of what may change in it."""

    base: RunConfig
    """The run that is changed."""
    space: Space
    """Draws values from a `Trial`, and returns changes by dotted name, or a whole config."""
    first: Mapping[str, Value] | Sequence[Mapping[str, Value]] = ()
    """Values of the first trial, by the names under which the space draws them, such as those of
    a published recipe; several, those of the first trials. What they do not name is drawn."""

    def __post_init__(self) -> None:
        if not isinstance(self.base, RunConfig) or not callable(self.space):
            raise InputError(
                f"a tuned cell has a RunConfig and a function, not a {type(self.base).__name__} "
                f"and a {type(self.space).__name__}"
            )
        for values in self.firsts:
            if not isinstance(values, Mapping):
                raise InputError(
                    f"a tuned cell's first has {values!r:.60}; give values by name, or a sequence "
                    "of such"
                )
            wrong = [name for name, value in values.items() if type(value) not in (int, float, str)]
            if wrong:
                raise InputError(
                    f"a tuned cell's first has {wrong[0]}={values[wrong[0]]!r:.60}; give a number, "
                    "or the name of a choice"
                )

    @property
    def firsts(self) -> tuple[Mapping[str, Value], ...]:
        """The values of `first` for each of the first trials."""
        if isinstance(self.first, Mapping):
            return (self.first,) if self.first else ()
        return tuple(self.first)


@dataclass(frozen=True, kw_only=True)
class DrawnRun:
    """What a space has made of some draws."""

    config: RunConfig
    """The run."""
    parameters: Mapping[str, Value]
    """The values drawn, by name in the order in which they were asked for."""
    distributions: Mapping[str, Distribution]
    """What each was drawn from."""


def check_distribution(name: str, distribution: Distribution) -> None:
    """Raise `InputError` for a distribution that nothing can be drawn from."""
    if not isinstance(name, str) or not name:
        raise InputError(f"a parameter is named {name!r:.60}; give it a name that is not empty")
    if isinstance(distribution, Choice):
        if not distribution.names:
            raise InputError(f"choice {name!r} has no options; give at least one")
        return
    low, high = distribution.low, distribution.high
    whole = isinstance(distribution, IntegerRange)
    if whole and not (type(low) is int and type(high) is int):
        raise InputError(f"integer {name!r} goes from {low!r} to {high!r}; give whole numbers")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(
            f"parameter {name!r} goes from {low} to {high}; the first must not be above the second"
        )
    if distribution.log and low <= 0:
        raise InputError(
            f"parameter {name!r} goes from {low} to {high} with a uniform logarithm; both must be "
            "above 0"
        )


def check_same(name: str, earlier: Distribution, now: Distribution) -> None:
    """Raise `InputError` where one name stands for two distributions."""
    if earlier != now:
        raise InputError(
            f"parameter {name!r} is drawn from {now} and was drawn from {earlier}; give one of "
            "them another name"
        )


def run_of(cell: str, tuned: TunedCell, draw: Draw, packages: Sequence[str] = ()) -> DrawnRun:
    """The run that a cell's space makes of the values that `draw` gives.

    `packages` are those, beside this project's, whose classes may be named. Raises `InputError`,
    which names the cell, for a field that does not exist or a value that it refuses, where the
    space changes what the tuning sets, and for any error within the space.
    """
    trial = Trial(draw)
    try:
        result = result_of(tuned.space, trial)
        if isinstance(result, Mapping):
            config = replace_fields(tuned.base, result, packages=packages)
        elif isinstance(result, RunConfig):
            config = result
        else:
            raise InputError(
                f"the space returns a {type(result).__name__}; return changes by dotted name, or a "
                "RunConfig"
            )
    except InputError as error:
        raise InputError(f"cell {cell}, {parameters_text(trial.parameters)}: {error}") from error
    changed = [
        field.name
        for field in fields(RunConfig)
        if field.name in FIXED_FIELDS
        and getattr(config, field.name) != getattr(tuned.base, field.name)
    ]
    if changed:
        raise InputError(
            f"cell {cell}: the space changes {changed[0]}; {', '.join(FIXED_FIELDS)} must be the "
            "base's in all trials, so that their values can be compared"
        )
    return DrawnRun(config=config, parameters=trial.parameters, distributions=trial.distributions)


def result_of(space: Space, trial: Trial) -> Changes | RunConfig:
    """What a space returns; of an error within it an `InputError` says in which line it is."""
    try:
        return space(trial)
    except InputError:
        raise
    except Exception as error:
        # The first frame is this function; the space's own file is that of the second.
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = [
            f"{frame.filename}, line {frame.lineno}"
            for frame in frames
            if frame.filename == frames[0].filename
        ]
        if not where and isinstance(space, FunctionType):
            code = space.__code__
            where = [f"{code.co_filename}, line {code.co_firstlineno}"]
        place = where[-1] if where else str(space)
        raise InputError(
            f"the space raises {type(error).__name__}: {error!s:.200} ({place}); mend it there"
        ) from error


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Values by name as text: `lr=0.00123, block=PreNorm`."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in parameters.items()) or (
        "without a draw"
    )


def check_space(
    cell: str,
    tuned: TunedCell,
    seed: int,
    packages: Sequence[str] = (),
    *,
    prunes: bool = False,
) -> dict[str, Distribution]:
    """Call a space with `PROBES` random draws, each twice; returns its distributions by name.

    `prunes`: trials are pruned by the validation curve of their last stage, so it must have one.
    Raises `InputError` as `run_of` does, for a config that is not valid, for a name with two
    distributions, for a space that draws nothing, and for one that makes two runs of equal draws.
    """
    distributions: dict[str, Distribution] = {}
    for number in range(PROBES + len(tuned.firsts)):
        draw = given_first(tuned, number, random_draw(seed_of(seed, "probe", number)))
        drawn = run_of(cell, tuned, draw, packages)
        try:
            check_config(drawn.config)
            last = drawn.config.stages[-1] if drawn.config.stages else None
            if prunes and last is not None and last.validation is None:
                raise InputError(
                    f"the last stage, {last.name}, has no validation, by whose curve trials are "
                    "pruned; give it one, or set pruner to None"
                )
            for name, distribution in drawn.distributions.items():
                check_same(name, distributions.setdefault(name, distribution), distribution)
        except InputError as error:
            raise InputError(
                f"cell {cell}, {parameters_text(drawn.parameters)}: {error}"
            ) from error
        repeat(cell, tuned, drawn, packages)
    for number in range(len(tuned.firsts)):
        check_first(cell, tuned, number, list(distributions))
    if not distributions:
        raise InputError(
            f"cell {cell}: the space draws nothing; give the config itself for a cell that is not "
            "tuned"
        )
    return distributions


def given_first(tuned: TunedCell, number: int, draw: Draw) -> Draw:
    """Gives the values that `tuned.first` has for trial `number`, and draws all others.

    The draw raises `InputError` for a value that cannot be drawn.
    """
    values = values_of_trial(tuned, number)

    def value_of(name: str, distribution: Distribution) -> Value:
        if name not in values:
            return draw(name, distribution)
        value = values[name]
        if not is_within(value, distribution):
            raise InputError(
                f"first has {name}={value!r}, which the space cannot draw from "
                f"{distribution}; give a value that it can"
            )
        return value

    return value_of


def values_of_trial(tuned: TunedCell, number: int) -> Mapping[str, Value]:
    """What `tuned.first` has for trial `number`; empty: nothing."""
    return tuned.firsts[number] if number < len(tuned.firsts) else {}


def check_first(cell: str, tuned: TunedCell, number: int, drawn: Collection[str]) -> None:
    """Raise `InputError` for a value given to trial `number` that is not among what was drawn."""
    unknown = [name for name in values_of_trial(tuned, number) if name not in drawn]
    if unknown:
        raise InputError(
            f"cell {cell}: first has {unknown[0]!r}, which the space does not draw there; it draws "
            f"{', '.join(drawn)}: leave it out, or give the values on which it depends as well"
        )


def random_draw(seed: int) -> Draw:
    """Draws values independently."""
    random = np.random.default_rng(abs(seed))
    return lambda _, distribution: random_value(distribution, random)


def random_value(distribution: Distribution, random: np.random.Generator) -> Value:
    """A value drawn from a distribution; whole numbers are drawn uniformly, with `log` too."""
    if isinstance(distribution, Choice):
        return distribution.names[int(random.integers(len(distribution.names)))]
    if isinstance(distribution, IntegerRange):
        return int(random.integers(distribution.low, distribution.high + 1))
    if distribution.log:
        return float(np.exp(random.uniform(np.log(distribution.low), np.log(distribution.high))))
    return float(random.uniform(distribution.low, distribution.high))


def is_within(value: Value, distribution: Distribution) -> bool:
    """Whether a value can have been drawn from a distribution."""
    if isinstance(distribution, Choice):
        return value in distribution.names
    numbers = (int,) if isinstance(distribution, IntegerRange) else (int, float)
    return type(value) in numbers and distribution.low <= value <= distribution.high  # type: ignore[operator]


def repeat(cell: str, tuned: TunedCell, drawn: DrawnRun, packages: Sequence[str] = ()) -> None:
    """Raise `InputError` where a space makes another run of the same draws."""
    again = replay(cell, tuned, drawn.parameters, packages)
    if again != drawn:
        raise InputError(
            f"cell {cell}: the space is no function of its draws: called twice with "
            f"{parameters_text(drawn.parameters)} it gave two different runs; draw all that is "
            "random from the trial"
        )


def replay(
    cell: str,
    tuned: TunedCell,
    parameters: Mapping[str, Value],
    packages: Sequence[str] = (),
) -> DrawnRun:
    """The run that a cell's space makes of values that were drawn before.

    Raises `InputError` when it asks for other parameters: the space has changed, or is no function
    of its draws.
    """

    def draw(name: str, distribution: Distribution) -> Value:
        if name not in parameters or not is_within(parameters[name], distribution):
            raise InputError(f"the space asks for {name!r} from {distribution}{_OTHERS}")
        return parameters[name]

    drawn = run_of(cell, tuned, draw, packages)
    unused = [name for name in parameters if name not in drawn.parameters]
    if unused:
        raise InputError(
            f"cell {cell}, {parameters_text(parameters)}: the space does not ask for "
            f"{unused[0]!r}{_OTHERS}"
        )
    return drawn


_OTHERS = (
    ", and did otherwise when these values were drawn; undo its change, or give the tuning another "
    "name (a space must be a function of its draws alone)"
)
