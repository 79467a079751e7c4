"""Products in low precision, everything else in fp32: what losses with own gradients need.

Autocast casts what torch differentiates by itself, but neither `out=` products nor gradients formed
in a forward pass. Those losses ask here what autocast would have done, and then work outside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Shares of a softmax over a million items are near 1e-6, below what fp16 resolves; times this they
# are not, and 1 is still below its largest number. A power of two: nothing is rounded.
SHARES = 2.0**14


def low_precision(x: Tensor) -> torch.dtype | None:
    """The type in which autocast multiplies x; None when it would leave x as it is."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> torch.autocast:
    """A context in which products keep the type of their factors on x's device."""
    return torch.autocast(x.device.type, enabled=False)


def allow_tf32(allowed: bool) -> None:
    """Whether fp32 products and convolutions on a GPU may round their factors to TF32."""
    # torch's newer names for it (`fp32_precision`) make the older ones raise, and torch.compile
    # reads those; these keep both in step in all of torch 2.11 to 2.15.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """A context in which fp32 products are true ones on any device, whatever training's are."""
    precision = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    allow_tf32(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of matrices of one type; in fp32, accumulated in fp32, when that is a low one.

    On a CPU, bf16 products are rounded to bf16 on their way: it has no product from low to fp32.
    """
    if left.dtype not in (torch.bfloat16, torch.float16):
        return left @ right
    if left.device.type == "cuda":
        wide: Tensor = torch.mm(left, right, out_dtype=torch.float32)
        return wide
    if left.dtype == torch.float16:
        return left.float() @ right.float()
    return (left @ right).float()
