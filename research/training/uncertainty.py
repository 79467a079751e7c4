"""Uncertainty weighting (Kendall, Gal and Cipolla 2018, eq. 10, for likelihoods of classes).

With s_k = log sigma_k^2 learned for each objective, the loss is the sum over objectives of

    exp(-s_k) term_k + s_k / 2

A large term lowers its own weight exp(-s_k), and s_k / 2 keeps the weights from vanishing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.errors import InputError
from research.training.combination import Combination, CombinationConfig


@dataclass(frozen=True, kw_only=True)
class UncertaintyWeights(CombinationConfig):
    """Weights learned with the model; each s_k starts at 0, which gives the weighted sum."""

    @property
    def learns(self) -> bool:
        """True: one number an objective."""
        return True

    def build(self, weights: Mapping[str, float]) -> LearnedWeights:
        """Return the module; `InputError` for a weight of 0, whose s_k would fall for ever."""
        for key, weight in weights.items():
            if weight == 0.0:
                raise InputError(
                    f"combination is UncertaintyWeights, but objectives.{key}.weight is 0: the "
                    f"weight that it learns would grow without end; leave {key} out"
                )
        return LearnedWeights(tuple(weights))


class LearnedWeights(Combination):
    """`log_variances` holds s_k by the objective's key, so that a later stage can take it over."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.keys = keys
        self.log_variances = nn.ParameterDict({key: nn.Parameter(torch.zeros(())) for key in keys})

    def loss(self, terms_K: Tensor, num_micro_batches: int) -> Tensor:
        """Return the scalar loss of one micro-batch; over all of a step, s_k / 2 counts once."""
        s_K = self._log_variances().to(terms_K.dtype)
        return (terms_K * torch.exp(-s_K)).sum() + s_K.sum() / (2 * num_micro_batches)

    @torch.no_grad()
    def log_values(
        self, weights: Mapping[str, float], step: int, random_state: int
    ) -> dict[str, float]:
        """Return `weight/KEY`: the objective's weight times exp(-s_k)."""
        factors = self._log_variances().neg().exp().tolist()
        return {f"weight/{key}": weights[key] * factor for key, factor in zip(self.keys, factors)}

    def _log_variances(self) -> Tensor:
        return torch.stack([self.log_variances[key] for key in self.keys])
