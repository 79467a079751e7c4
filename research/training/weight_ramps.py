"""Weights of objectives that change over a stage's steps, each along a straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from research.annotations import suggest
from research.config import check_types
from research.errors import InputError
from research.training.combination import Combination, CombinationConfig


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A factor of an objective's weight: a straight line between two steps, constant outside."""

    first: float = 0.0
    """The factor up to step `begin`."""
    last: float = 1.0
    """The factor from step `end` on."""
    begin: int = 0
    """Optimizer steps of the stage before the factor begins to change."""
    end: int = 1000
    """Optimizer steps of the stage after which the factor no longer changes."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("first", "last"):
            if vars(self)[name] < 0.0:
                raise InputError(f"ramp: {name} is {vars(self)[name]}; it must be 0 or more")
        if not 0 <= self.begin <= self.end:
            raise InputError(
                f"ramp: begin is {self.begin} and end {self.end}; 0 <= begin <= end is needed"
            )

    def at(self, step: int) -> float:
        """Return the factor in the step with number `step` (0-based)."""
        if step >= self.end:
            return self.last
        if step <= self.begin:
            return self.first
        share = (step - self.begin) / (self.end - self.begin)
        return self.first + (self.last - self.first) * share


@dataclass(frozen=True, kw_only=True)
class WeightRamps(CombinationConfig):
    """The weighted sum, with some weights that rise or fall over the stage's steps."""

    ramps: Mapping[str, Ramp] = field(default_factory=dict)
    """By objective; one without a ramp keeps its weight."""

    def build(self, weights: Mapping[str, float]) -> RampedWeights:
        """Return the module; `InputError` for a ramp of an objective that the stage lacks."""
        for key in self.ramps:
            if key not in weights:
                raise InputError(
                    f"combination.ramps names objective {key!r}{suggest(key, weights)}"
                )
        return RampedWeights(tuple(weights), self.ramps)


class RampedWeights(Combination):
    """Multiplies each weight by its ramp's factor."""

    def __init__(self, keys: tuple[str, ...], ramps: Mapping[str, Ramp]) -> None:
        super().__init__()
        self.keys = keys
        self.ramps = ramps

    def weights_at(self, weights: Sequence[float], step: int, random_state: int) -> Sequence[float]:
        """Return [K]: the weights of the step, multiplied by their ramps' factors."""
        return [
            weight * self.ramps[key].at(step) if key in self.ramps else weight
            for key, weight in zip(self.keys, weights)
        ]

    def log_values(
        self, weights: Mapping[str, float], step: int, random_state: int
    ) -> dict[str, float]:
        """Return `weight/KEY` of every objective that has a ramp."""
        return {f"weight/{key}": weights[key] * ramp.at(step) for key, ramp in self.ramps.items()}
