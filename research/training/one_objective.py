"""One objective a step, drawn with a chance in proportion to its weight.

Its term is multiplied by the sum of all weights, so that in expectation a step's gradient is that
of the weighted sum. A step costs one objective instead of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from research.errors import InputError
from research.randomness import fold, uniform
from research.training.combination import Combination, CombinationConfig


@dataclass(frozen=True, kw_only=True)
class OneObjective(CombinationConfig):
    """Each step trains one objective alone."""

    def build(self, weights: Mapping[str, float]) -> DrawnObjective:
        """The module; `InputError` where no weight is above 0."""
        if not sum(weights.values()) > 0.0:
            raise InputError("combination is OneObjective, but no objective has a weight above 0")
        return DrawnObjective()


class DrawnObjective(Combination):
    """The draw is a function of the step's random state."""

    def weights_at(self, weights: Sequence[float], step: int, state: int) -> Sequence[float]:
        """[K] the sum of all weights for the one that is drawn, 0 for the others."""
        turn = drawn(weights, state)
        return [sum(weights) if number == turn else 0.0 for number in range(len(weights))]

    def takes_part(self, weights: Sequence[float], step: int, state: int) -> Sequence[bool]:
        """[K] the one that is drawn."""
        turn = drawn(weights, state)
        return [number == turn for number in range(len(weights))]


def drawn(weights: Sequence[float], state: int) -> int:
    """Whose turn it is, 0 to K - 1, each with a chance in proportion to its weight."""
    place = uniform(fold(state, torch.tensor([0]))).item() * sum(weights)
    ends = list(accumulate(weights))
    # Rounding may leave the place at the very end, where a weight of 0 may stand.
    last = max(number for number, weight in enumerate(weights) if weight > 0.0)
    return min(last, next((number for number, end in enumerate(ends) if place < end), last))
