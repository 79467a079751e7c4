"""How the objectives of a stage pull at the shared encoder: norms of their gradients, and cosines.

Each measurement costs one further backward pass an objective, so a stage asks for an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from accelerate import Accelerator
from torch import Tensor, nn


def gradient_figures(
    terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter], accelerator: Accelerator
) -> dict[str, float]:
    """`gradient_norm/KEY` of every term and `gradient_cosine/KEY+KEY` of every pair of terms.

    A term is an objective's part of the loss, weight and division included, so the norms add up to
    the update as vectors do. The graph stays for the step's own backward pass. A pair has no cosine
    when a gradient is zero.
    """
    flat = {key: _flat(term, parameters) for key, term in terms.items()}
    # Every process holds world times its share, so the mean is the gradient of the whole batch.
    vectors = {key: accelerator.reduce(vector, "mean") for key, vector in flat.items()}
    norms = {key: vector.norm().item() for key, vector in vectors.items()}
    figures = {f"gradient_norm/{key}": norm for key, norm in norms.items()}
    for first, second in combinations(terms, 2):
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
