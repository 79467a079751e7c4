"""fp32 products and exponentials at the full width of a processor's vectors, on AMD's processors.

On x86 torch multiplies in fp32 by MKL, which on AMD takes vectors of 256 bits, also on processors
that have 512. oneDNN takes these: on one core of a Zen 5 it does 240 GFLOP/s, MKL 100. torch hands
fp32 products to oneDNN only if it may round their factors to bf16, and oneDNN rounds them only on
processors with units for bf16 matrices (AMX). So here it may, where a product shows that it does
not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from research.model.kernels.precision import SWITCHES

CPU_INFO = Path("/proc/cpuinfo")
# Rounding to bf16 makes errors of 2^-9 in every factor; those of sums in fp32 are below this.
KEPT_FP32 = 1e-5


def full_width(x: Tensor, shapes_recur: bool = True) -> AbstractContextManager[None]:
    """A context in which fp32 products on a CPU use vectors of full width, if x is in fp32 on one.

    It changes only how fp32 is summed, and nothing where that is not faster. oneDNN compiles a
    kernel for every new shape, in about a millisecond; `shapes_recur` says whether shapes come
    often enough to be worth it, and if not, nothing changes. Products with a vector do not belong
    into the context, as torch copies the matrix there.
    """
    return _may_round() if shapes_recur and applies_to(x) else nullcontext()


def applies_to(x: Tensor) -> bool:
    """Whether products and exponentials of the dtype and device of x are faster at full width."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and is_faster()


@cache
def is_faster() -> bool:
    """Whether oneDNN is faster than MKL here, and does not round the factors of fp32 products."""
    return _is_amd_with_avx512() and _keeps_fp32()


def exp_(x: Tensor) -> Tensor:
    """exp(x), written to x and returned; x is on any device and of any floating-point dtype.

    At full width it is a power of two, which a Zen 5 computes at 6 numbers a nanosecond, while
    MKL's exp gives 1.6 there. The relative error is then at most 1.3 |x| 2^-24, from rounding log2
    e and the exponent.
    """
    return x.mul_(math.log2(math.e)).exp2_() if applies_to(x) else x.exp_()


@contextmanager
def _may_round() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with SWITCHES:
        before = matmul.fp32_precision
        try:
            matmul.fp32_precision = "bf16"
            yield
        finally:
            matmul.fp32_precision = before


def _is_amd_with_avx512() -> bool:
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "AuthenticAMD" in text and "avx512f" in text


def _keeps_fp32() -> bool:
    draws = torch.Generator().manual_seed(0)
    # As in a tile of logits, whatever dtype and device are torch's defaults.
    left, right = (
        torch.rand(shape, generator=draws, dtype=torch.float32, device="cpu")
        for shape in ((128, 64), (64, 1024))
    )
    exact = left.double() @ right.double()
    with _may_round(), torch.autocast("cpu", enabled=False):
        error = (left @ right - exact).abs().max() / exact.max()
    return bool(error < KEPT_FP32)
