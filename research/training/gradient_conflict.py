"""How the objectives of a stage pull at the shared encoder: norms of their gradients, and cosines.

Each measurement costs one further backward pass an objective, so a stage asks for an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class GradientCosines:
    """The gradient of every term on the shared parameters, summed over micro-batches.

    A term is an objective's part of the loss, weight and division included, so the norms add up to
    the update as vectors do.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's terms; the graph stays for the step's own backward pass."""
        for key, term in terms.items():
            flat = _flat(term, self.parameters)
            self._sums[key] = self._sums[key] + flat if key in self._sums else flat

    def stacked(self, accelerator: Accelerator) -> Tensor:
        """float64 [K, E]: every term's gradient on all of the parameters, over all processes."""
        # Every process holds world times its share: the mean is the gradient of the whole batch.
        stacked_KE: Tensor = accelerator.reduce(torch.stack(list(self._sums.values())), "mean")
        return stacked_KE

    def replace(self, gradient_E: Tensor) -> None:
        """Let this be the gradient of the parameters."""
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, gradient_E.split(sizes)):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def figures(self, accelerator: Accelerator) -> dict[str, float]:
        """`gradient_norm/KEY` of every term and `gradient_cosine/KEY+KEY` of every pair of terms.

        A pair has no cosine when a gradient is zero.
        """
        if not self._sums:
            return {}
        vectors = dict(zip(self._sums, self.stacked(accelerator).unbind()))
        norms = {key: vector.norm().item() for key, vector in vectors.items()}
        figures = {f"gradient_norm/{key}": norm for key, norm in norms.items()}
        for first, second in combinations(vectors, 2):
            scale = norms[first] * norms[second]
            if scale > 0.0:
                product = torch.dot(vectors[first], vectors[second]).item()
                figures[f"gradient_cosine/{first}+{second}"] = product / scale
        return figures


def _flat(term: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """float64 [all parameters]: the gradient of one term, zero where it does not reach."""
    parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros(each.numel(), dtype=torch.float64, device=each.device)
            if part is None
            else part.double().flatten()
            for each, part in zip(parameters, parts, strict=True)
        ]
    )
