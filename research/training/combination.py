"""How the losses of a stage's objectives become one update; the default is their weighted sum.

An objective's term is its sum of losses divided by its count (or its rows, as the stage's
`normalize` says) and multiplied by its weight. The training step (`research/training/step.py`)
gives the terms to a `Combination`. Each way of combining is a config and a module in a file of its
own; the weighted sum is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


class CombinationConfig(ABC):
    """Abstract: the config of a way of combining objectives. Subclasses are frozen dataclasses."""

    @abstractmethod
    def build(self, weights: Mapping[str, float]) -> Combination:
        """Return the module for objectives with these weights, by key.

        `InputError` when the weights do not fit this way of combining. The module's parameters are
        trained with the stage, without weight decay.
        """

    @property
    def learns(self) -> bool:
        """Whether the module has parameters."""
        return False

    @property
    def merges_gradients(self) -> bool:
        """Whether it needs each objective's gradient, which costs one more backward pass each."""
        return False


class Combination(nn.Module, ABC):
    """Abstract: what a training step needs of a combination. K objectives, in the config's
    order."""

    def weights_at(self, weights: Sequence[float], step: int, random_state: int) -> Sequence[float]:
        """Return the weights [K] of a step, given the objectives' own weights [K].

        `step` is the step's number (0-based). `random_state` is its random state, equal in all
        processes, by which anything random is drawn.
        """
        return weights

    def participants(
        self, weights: Sequence[float], step: int, random_state: int
    ) -> Sequence[bool]:
        """Return [K] which objectives are shown rows in a step; the others count nothing in it."""
        return [True] * len(weights)

    def loss(self, terms_K: Tensor, num_micro_batches: int) -> Tensor:
        """Return the scalar that is differentiated for one micro-batch: here the sum of its terms.

        `terms_K` are the micro-batch's terms; the step has `num_micro_batches` micro-batches.
        """
        return terms_K.sum()

    def merge_gradients(self, gradients_KE: Tensor, random_state: int) -> Tensor:
        """Return the encoder's gradient [E], made from the gradients [K, E] of the terms on it.

        E is the number of values in the encoder's parameters. Called only where the config's
        `merges_gradients` is true.
        """
        raise NotImplementedError

    def log_values(
        self, weights: Mapping[str, float], step: int, random_state: int
    ) -> dict[str, float]:
        """Return the combination's figures for a log line, by name; none if weights are fixed."""
        return {}


@dataclass(frozen=True, kw_only=True)
class WeightedSum(CombinationConfig):
    """The sum of the objectives' terms, with fixed weights."""

    def build(self, weights: Mapping[str, float]) -> FixedWeights:
        """Return the module."""
        return FixedWeights()


class FixedWeights(Combination):
    """Every objective takes part in each step with its own weight."""
