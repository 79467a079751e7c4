"""Initial weights, each parameter from a generator of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

from research.randomness import generator


def initialize(
    module: nn.Module,
    std: float,
    seed: int,
    purpose: str,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    skip: Sequence[nn.Module] = (),
) -> None:
    """Normal weights, zero biases, unit norms, each parameter from its own keyed generator.

    A parameter's start depends on (seed, purpose, name) alone, so that adding a head to a run
    changes nothing else. The name is the parameter's path, or what `names` has for it: once a
    parameter has been drawn by a name it keeps it, wherever it moves to. Parts in `skip` are left
    as they are: they have come with their own.
    """
    norms = {
        f"{path}.{name}"
        for path, part in module.named_modules()
        if isinstance(part, nn.LayerNorm)
        for name in ("weight", "bias")
    }
    skipped = {id(parameter) for part in skip for parameter in part.parameters()}
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if id(parameter) in skipped:
                continue
            if path in norms:
                parameter.fill_(1.0 if path.endswith("weight") else 0.0)
            elif "bias" in path.rpartition(".")[2]:
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape, dtype=torch.float32)
                name = names.get(path, path)
                drawn.normal_(0.0, std, generator=generator(seed, purpose, name))
                parameter.copy_(drawn)
