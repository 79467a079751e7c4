"""Mixed precision for losses that compute their own gradients; tf32 on and off.

Autocast casts the operations that torch differentiates itself, but neither products with `out=` nor
gradients that are computed in a forward pass. Such losses ask here which dtype autocast would use,
then turn it off, and do products in low precision and all else in fp32.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# Softmax probabilities over a million items are near 1e-6, which fp16 cannot resolve. Multiplied by
# this they can be, and a probability of 1 does not overflow. A power of two, so it rounds nothing.
SHARES = 2.0**14
# torch's settings of fp32's precision hold for the whole process. A thread that changes them for a
# while holds this, so that threads that train and rank do not restore each other's.
SWITCHES = threading.RLock()


def low_precision(x: Tensor) -> torch.dtype | None:
    """The dtype in which autocast would multiply x; None: it would leave x as it is."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on x's device, in which products keep their factors' dtype."""
    if not torch.amp.is_autocast_available(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def allow_tf32(allowed: bool) -> None:
    """Set whether fp32 products and convolutions on a GPU may round their factors to TF32."""
    # Setting torch's newer names (`fp32_precision`) makes the older ones raise, which torch.compile
    # reads. Setting these older ones keeps both in step in all of torch 2.11 to 2.15.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class _Rounding(Protocol):
    """A part of torch's backends that may round the factors of fp32 products."""

    fp32_precision: str


@contextmanager
def true_fp32(device: torch.device) -> Iterator[None]:
    """A context in which fp32 products are computed in fp32, whatever precision training uses.

    It turns off autocast, and TF32 and bf16 within fp32 products, by torch's older and newer names
    for them. Afterwards all settings are as before.
    """
    parts: list[_Rounding] = [
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn,  # type: ignore[list-item]
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    ]
    with SWITCHES:
        before = [part.fp32_precision for part in parts]
        try:
            named_precision = torch.get_float32_matmul_precision()
        except RuntimeError:
            # The setting has no older name, as it was made by the newer ones.
            named_precision = "highest"
        torch.set_float32_matmul_precision("highest")
        for part in parts[:2]:
            part.fp32_precision = "ieee"
        try:
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            torch.set_float32_matmul_precision(named_precision)
            for part, precision in zip(parts, before):
                part.fp32_precision = precision


class _RowProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, left_PD: Tensor, right_QD: Tensor, low_dtype: torch.dtype | None
    ) -> Tensor:
        if low_dtype is not None:
            left_PD, right_QD = left_PD.to(low_dtype), right_QD.to(low_dtype)
        ctx.save_for_backward(left_PD, right_QD)
        return product(left_PD, right_QD.T)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PQ: Tensor) -> tuple[Tensor, Tensor, None]:
        left_PD, right_QD = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_PQ = grad_PQ.to(left_PD.dtype)
        return product(grad_PQ, right_QD), product(grad_PQ.T, left_PD), None


def row_products(left_PD: Tensor, right_QD: Tensor) -> Tensor:
    """[P, Q]: inner products of the rows of two tensors, in the dtype of `right_QD`.

    Under autocast the factors are rounded to its dtype, but the result is still fp32.
    Differentiable once.
    """
    low_dtype = low_precision(right_QD)
    with without_autocast(right_QD):
        products_PQ: Tensor = _RowProducts.apply(  # type: ignore[no-untyped-call]
            left_PD.to(right_QD.dtype), right_QD, low_dtype
        )
    return products_PQ


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, for matrices of one dtype; in fp32 (sums too) if they are in low precision.

    On a CPU, bf16 products are rounded to bf16 before they are returned in fp32, as torch has no
    product from bf16 to fp32 there.
    """
    if left.dtype not in (torch.bfloat16, torch.float16):
        return left @ right
    if left.device.type == "cuda":
        wide: Tensor = torch.mm(left, right, out_dtype=torch.float32)
        return wide
    if left.dtype == torch.float16:
        return left.float() @ right.float()
    return (left @ right).float()
