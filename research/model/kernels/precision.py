"""Products in low precision, everything else in fp32: what losses with own gradients need.

Autocast casts what torch differentiates by itself, but neither `out=` products nor gradients formed
in a forward pass. Those losses ask here what autocast would have done, and then work outside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

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


class _Rounding(Protocol):
    """A part of torch's backends that may round the factors of fp32 products."""

    fp32_precision: str


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """A context in which fp32 products are true ones, whatever training has chosen.

    No autocast, no TF32 and no bf16 inside of fp32 products, by torch's names for them old and new.
    """
    parts: list[_Rounding] = [
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn,  # type: ignore[list-item]
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    ]
    before = [part.fp32_precision for part in parts]
    try:
        named = torch.get_float32_matmul_precision()
    except RuntimeError:
        # It has no old name: the new ones were used.
        named = "highest"
    torch.set_float32_matmul_precision("highest")
    for part in parts[:2]:
        part.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(named)
        for part, precision in zip(parts, before):
            part.fp32_precision = precision


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, left_PD: Tensor, right_QD: Tensor, low: torch.dtype | None
    ) -> Tensor:
        if low is not None:
            left_PD, right_QD = left_PD.to(low), right_QD.to(low)
        ctx.save_for_backward(left_PD, right_QD)
        return product(left_PD, right_QD.T)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PQ: Tensor) -> tuple[Tensor, Tensor, None]:
        left_PD, right_QD = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_PQ = grad_PQ.to(left_PD.dtype)
        return product(grad_PQ, right_QD), product(grad_PQ.T, left_PD), None


def row_products(left_PD: Tensor, right_QD: Tensor) -> Tensor:
    """[P, Q]: inner products of rows, differentiable once, in fp32 under autocast too.

    Only their factors are rounded there. `right_QD` has the type of the result.
    """
    low = low_precision(right_QD)
    with without_autocast(right_QD):
        products_PQ: Tensor = _RowProducts.apply(  # type: ignore[no-untyped-call]
            left_PD.to(right_QD.dtype), right_QD, low
        )
    return products_PQ


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
