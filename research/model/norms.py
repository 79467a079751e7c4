"""The norms that a block can choose from."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["layer", "bare", "rms"]
"""LayerNorm (Ba et al. 2016); the same without learned parameters; RMSNorm (Zhang and Sennrich
2019)."""


def build_norm(kind: Norm, width: int, eps: float) -> nn.Module:
    """A norm over the last dimension, which has `width` numbers: [..., D] -> [..., D].

    layer: (x - mean) / sqrt(variance + eps) * gain + shift; bare: without gain and shift; rms:
    x / sqrt(mean of squares + eps) * gain.
    """
    if kind == "rms":
        return nn.RMSNorm(width, eps=eps)
    return nn.LayerNorm(width, eps=eps, elementwise_affine=kind == "layer")
