"""Measures how a stage's objectives pull at the shared encoder: gradient norms and cosines.

Each measurement costs one more backward pass an objective, so a stage takes one only every
`gradients_every` steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class GradientCosines:
    """Each objective's gradient on the shared parameters, summed over a step's micro-batches.

    A term is an objective's part of the loss, weight and division included, so in a weighted sum
    the terms' gradients add up, as vectors, to the gradient of the update.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the gradients of a micro-batch's terms; keep the graph for the backward pass."""
        for key, term in terms.items():
            flat = _flat(term, self.parameters)
            self._sums[key] = self._sums[key] + flat if key in self._sums else flat

    def stacked_gradients(self, accelerator: Accelerator) -> Tensor:
        """Return float64 [K, E]: each of K terms' gradient on all E numbers of the parameters.

        It is the gradient of the whole batch: all processes call it together.
        """
        # Each process's terms are multiplied by the number of processes (`loss_factors`), so the
        # mean over processes is the gradient of the whole batch.
        stacked_KE: Tensor = accelerator.reduce(torch.stack(list(self._sums.values())), "mean")
        return stacked_KE

    def replace(self, gradient_E: Tensor) -> None:
        """Set each parameter's `grad` to its part of `gradient_E`, in its own shape and dtype.

        E counts the numbers of all parameters, one parameter after the other.
        """
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, gradient_E.split(sizes)):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def log_values(self, accelerator: Accelerator) -> dict[str, float]:
        """Return `gradient_norm/KEY` of every term and `gradient_cosine/KEY+KEY` of every pair.

        A pair has no cosine when one of its gradients is zero. Without any term there are no
        figures. All processes call it together.
        """
        if not self._sums:
            return {}
        vectors = dict(zip(self._sums, self.stacked_gradients(accelerator).unbind()))
        norms = {key: vector.norm().item() for key, vector in vectors.items()}
        figures = {f"gradient_norm/{key}": norm for key, norm in norms.items()}
        for first, second in combinations(vectors, 2):
            scale = norms[first] * norms[second]
            if scale > 0.0:
                product = torch.dot(vectors[first], vectors[second]).item()
                figures[f"gradient_cosine/{first}+{second}"] = product / scale
        return figures


def _flat(term: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return float64 [E]: a term's gradient on all parameters, 0 on those it does not depend on."""
    parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            torch.zeros(parameter.numel(), dtype=torch.float64, device=parameter.device)
            if part is None
            else part.to_dense().double().flatten()
            for parameter, part in zip(parameters, parts, strict=True)
        ]
    )
