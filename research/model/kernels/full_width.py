"""fp32 products and exponentials at the full width of a processor's vectors, on a CPU.

torch multiplies in fp32 by MKL, which on AMD's processors uses vectors of 256 bits even where there
are some of 512. oneDNN uses those: on one core of a Zen 5 it does 240 GFLOP/s, MKL 100. torch hands
fp32 products to oneDNN only where their factors may be rounded to bf16, of which oneDNN makes use
only on processors with units for bf16 matrices (AMX). So the permission is given for some products,
and only on processors that do not use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

CPU_INFO = Path("/proc/cpuinfo")
# Rounding to bf16 makes errors of 2^-9 in every factor; those of sums in fp32 are below this.
KEPT_FP32 = 1e-5


@contextmanager
def full_width(x: Tensor, shapes_recur: bool) -> Iterator[None]:
    """A context in which products of the dtype and device of x use vectors of full width.

    It changes only how fp32 is summed, and only where that is faster. oneDNN compiles a kernel for
    every new shape, in about a millisecond, so `shapes_recur` should say whether the same shapes
    come again in every step; if not, nothing is changed. The setting holds for the whole process.
    """
    if not (shapes_recur and x.dtype == torch.float32 and x.device.type == "cpu" and is_faster()):
        yield
        return
    with _may_round():
        yield


@cache
def is_faster() -> bool:
    """Whether oneDNN is faster than MKL here, and does not round the factors of fp32 products."""
    return _is_amd_with_avx512() and _keeps_fp32()


def exp_(x: Tensor) -> Tensor:
    """exp(x), written to x and returned; x is on any device and of any floating-point dtype.

    In fp32 on a CPU it is a power of two, of which AMD's processors compute 8 a nanosecond, while
    MKL's exp gives 1.6. Rounding the exponent makes a relative error of |x| 2^-24.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return x.mul_(math.log2(math.e)).exp2_()
    return x.exp_()


@contextmanager
def _may_round() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
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
