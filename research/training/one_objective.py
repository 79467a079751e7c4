"""One objective a step, drawn with a probability in proportion to its weight.

The drawn objective gets the sum of all weights as its weight, so that in expectation a step's
gradient is that of the weighted sum. A step costs one objective instead of all of them.
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
        """Return the module; `InputError` if no weight is above 0."""
        if not sum(weights.values()) > 0.0:
            raise InputError("combination is OneObjective, but no objective has a weight above 0")
        return DrawnObjective()


class DrawnObjective(Combination):
    """Draws the objective by the step's random state, so that all processes draw the same one."""

    def weights_at(self, weights: Sequence[float], step: int, random_state: int) -> Sequence[float]:
        """Return [K]: the sum of all weights for the objective that is drawn, 0 for the others."""
        index_drawn = draw_objective(weights, random_state)
        return [sum(weights) if index == index_drawn else 0.0 for index in range(len(weights))]

    def participants(
        self, weights: Sequence[float], step: int, random_state: int
    ) -> Sequence[bool]:
        """Return [K]: true for the objective that is drawn alone."""
        index_drawn = draw_objective(weights, random_state)
        return [index == index_drawn for index in range(len(weights))]


def draw_objective(weights: Sequence[float], random_state: int) -> int:
    """Return the drawn objective, 0 to K - 1, with a probability in proportion to its weight."""
    point = uniform(fold(random_state, torch.tensor([0]))).item() * sum(weights)
    ends = list(accumulate(weights))
    # Rounding may put `point` at the very end, where the last objectives may have weight 0.
    last = max(index for index, weight in enumerate(weights) if weight > 0.0)
    return min(last, next((index for index, end in enumerate(ends) if point < end), last))
