"""PCGrad, projecting conflicting gradients (Yu et al. 2020, algorithm 1), on the shared encoder.

Of every objective's gradient g_i, for each other one g_j in a random order: where they conflict,
g_i . g_j < 0, what points against g_j is taken out, g_i - (g_i . g_j) / |g_j|^2 g_j. The update is
the sum of what is left. What belongs to an objective alone (its head) keeps its own gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from research.randomness import fold, permutation
from research.training.combination import Combination, CombinationConfig


@dataclass(frozen=True, kw_only=True)
class PCGrad(CombinationConfig):
    """The sum of gradients without what conflicts in them.

    It holds every objective's gradient on the whole encoder, in float64, and takes a backward pass
    more for each objective.
    """

    @property
    def merges_gradients(self) -> bool:
        """Yes."""
        return True

    def build(self, weights: Mapping[str, float]) -> ProjectedGradients:
        """The module."""
        return ProjectedGradients()


class ProjectedGradients(Combination):
    """The order in which others are met is drawn anew each step, for each objective."""

    def merged(self, gradients_KE: Tensor, state: int) -> Tensor:
        """[E] the sum of the projected gradients."""
        products_KK = gradients_KE @ gradients_KE.T
        # Every g_i stays a combination of the gradients as they were: K numbers say which.
        shares_KK = torch.eye(len(gradients_KE), dtype=gradients_KE.dtype)
        products_KK = products_KK.cpu()
        norms_K = products_KK.diagonal()
        for i in range(len(gradients_KE)):
            for j in permutation(int(fold(state, torch.tensor(i))), len(gradients_KE)).tolist():
                product = shares_KK[i] @ products_KK[:, j]
                if j != i and product < 0.0:
                    shares_KK[i, j] -= product / norms_K[j]
        merged_E: Tensor = shares_KK.sum(0).to(gradients_KE.device) @ gradients_KE
        return merged_E
