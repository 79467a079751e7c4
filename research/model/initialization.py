"""Initial weights: each parameter is drawn by a random generator of its own.

Encoders, item tables and heads call `initialize` when they are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import nn

from research.randomness import generator


def norm_parameters(module: nn.Module) -> set[str]:
    """The dotted paths of all weights and biases of LayerNorms and RMSNorms in a module."""
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, (nn.LayerNorm, nn.RMSNorm))
        for name, _ in part.named_parameters(recurse=False)
    }


def is_bias(path: str) -> bool:
    """Whether a parameter is a bias: whether the last part of its path contains "bias"."""
    return "bias" in path.rpartition(".")[2]


def initialize(
    module: nn.Module,
    std: float,
    seed: int,
    purpose: str,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    stds: Mapping[str, float] = MappingProxyType({}),
    skip: Sequence[nn.Module] = (),
) -> None:
    """Set all parameters of a module: normal weights of deviation `std`, zero biases, unit norms.

    A parameter's initial values depend only on (seed, purpose, name), so adding a head to a run
    changes nothing else. The name is the parameter's path, or what `names` maps the path to, so
    that a parameter keeps its initial values if its path changes. `stds` has, by path, the
    deviations of weights that are not drawn with `std`. Modules in `skip` are left alone,
    as they have drawn their own initial weights.
    """
    norms = norm_parameters(module)
    skipped = {id(parameter) for part in skip for parameter in part.parameters()}
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if id(parameter) in skipped:
                continue
            if path in norms:
                parameter.fill_(1.0 if path.endswith("weight") else 0.0)
            elif is_bias(path):
                parameter.zero_()
            else:
                drawn = torch.empty(parameter.shape, dtype=torch.float32)
                name = names.get(path, path)
                drawn.normal_(0.0, stds.get(path, std), generator=generator(seed, purpose, name))
                parameter.copy_(drawn)
