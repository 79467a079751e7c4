"""Initial weights, each parameter from a generator of its own."""

from __future__ import annotations

import torch
from torch import nn

from research.randomness import generator


def initialize(module: nn.Module, std: float, seed: int, purpose: str) -> None:
    """Normal weights, zero biases, unit norms, each parameter from its own keyed generator.

    A parameter's start depends on (seed, purpose, its name) alone, so that adding a head to a run
    changes nothing else.
    """
    norms = {
        f"{path}.{name}"
        for path, part in module.named_modules()
        if isinstance(part, nn.LayerNorm)
        for name in ("weight", "bias")
    }
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in norms:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape, dtype=torch.float32)
                drawn.normal_(0.0, std, generator=generator(seed, purpose, name))
                parameter.copy_(drawn)
