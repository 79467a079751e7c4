"""PCGrad, projecting conflicting gradients (Yu et al. 2020, algorithm 1), on the shared encoder.

Each objective's gradient g_i meets the other gradients g_j in a random order. Where the two
conflict, g_i . g_j < 0, the part of g_i that points against g_j is removed:
g_i - (g_i . g_j) / |g_j|^2 g_j. The update is the sum of the projected gradients. Parameters
outside of the encoder (an objective's head) keep their own gradient.
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
    """The sum of the objectives' gradients after conflicting parts are removed.

    It holds every objective's gradient on the whole encoder in float64, and takes one more backward
    pass for each objective.
    """

    @property
    def merges_gradients(self) -> bool:
        """True: the objectives' own gradients are projected."""
        return True

    def build(self, weights: Mapping[str, float]) -> ProjectedGradients:
        """Return the module."""
        return ProjectedGradients()


class ProjectedGradients(Combination):
    """Draws in each step, for each objective, the order in which its gradient meets the others."""

    def merge_gradients(self, gradients_KE: Tensor, random_state: int) -> Tensor:
        """Return [E]: the sum of the projected gradients."""
        products_KK = gradients_KE @ gradients_KE.T
        # Every projected g_i is a linear combination of the original gradients; row i holds its K
        # coefficients.
        coefficients_KK = torch.eye(len(gradients_KE), dtype=gradients_KE.dtype)
        products_KK = products_KK.cpu()
        norms_K = products_KK.diagonal()
        for i in range(len(gradients_KE)):
            for j in permutation(
                int(fold(random_state, torch.tensor(i))), len(gradients_KE)
            ).tolist():
                product = coefficients_KK[i] @ products_KK[:, j]
                if j != i and product < 0.0:
                    coefficients_KK[i, j] -= product / norms_K[j]
        merged_E: Tensor = coefficients_KK.sum(0).to(gradients_KE.device) @ gradients_KE
        return merged_E
