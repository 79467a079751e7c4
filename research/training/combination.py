"""How a stage's objectives become one update: the term of each, and what is made of all of them.

A way of combining is a config and a module in a file of its own; the weighted sum is here. A term
is an objective's sum of losses, divided by its count and multiplied by its weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


class CombinationConfig(ABC):
    """Abstract: a way of combining objectives; a frozen dataclass below."""

    @abstractmethod
    def build(self, weights: Mapping[str, float]) -> Combination:
        """The module, for objectives with these weights; `InputError` for what does not fit them.

        What it learns is trained with the stage, without weight decay.
        """

    @property
    def learns(self) -> bool:
        """Whether its module has parameters."""
        return False

    @property
    def merges_gradients(self) -> bool:
        """Whether it needs the gradient of each objective: a backward pass more for each."""
        return False


class Combination(nn.Module, ABC):
    """Abstract: what the training step asks; K objectives in their order."""

    def weights_at(self, weights: Sequence[float], step: int, state: int) -> Sequence[float]:
        """[K] the weights of the step with this number (0-based), from those of the objectives.

        `state` keys what is drawn for it, alike in all processes.
        """
        return weights

    def takes_part(self, weights: Sequence[float], step: int, state: int) -> Sequence[bool]:
        """[K] which objectives are shown rows in that step; the others count nothing in it."""
        return [True] * len(weights)

    def loss(self, terms_K: Tensor, pieces: int) -> Tensor:
        """Scalar that is differentiated for each of the step's pieces: the sum of the terms."""
        return terms_K.sum()

    def merged(self, gradients_KE: Tensor, state: int) -> Tensor:
        """[E] what becomes of the terms' gradients on the encoder, where it merges them."""
        raise NotImplementedError

    def figures(self, weights: Mapping[str, float], step: int, state: int) -> dict[str, float]:
        """What a log line says of it, by name; nothing where weights are fixed."""
        return {}


@dataclass(frozen=True, kw_only=True)
class WeightedSum(CombinationConfig):
    """The sum of the terms."""

    def build(self, weights: Mapping[str, float]) -> FixedWeights:
        """The module."""
        return FixedWeights()


class FixedWeights(Combination):
    """Every objective takes part in each step with its own weight."""
