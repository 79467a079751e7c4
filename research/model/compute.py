"""How a model is computed: precision, compilation and what is kept for the backward pass.

None of it changes what is learned but for rounding. `research/distributed/accelerator.py` takes
precision and determinism, the encoder compilation and recomputation (`TransformerEncoder.use`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How training computes; evaluation is always in fp32 and never compiled."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Matrix products of training; weights, sums and optimizer stay in fp32. In tf32 a GPU rounds
    the factors of fp32 products to 10 bits of mantissa; a CPU, which has none, computes in fp32."""
    compile: bool = False
    """Whether torch.compile builds the position-wise parts of each block, for GPUs: it takes a
    while at the start, and on a CPU its dropout costs more than it saves."""
    recompute: bool = False
    """Whether each block is computed again in the backward pass, to keep less for it."""
    shard_weights: bool = False
    """Split weights, gradients and moments over the processes (FSDP2) instead of copying them, for
    item tables that are too large; with one process there is nothing to split."""
    deterministic: bool = False
    """Whether a GPU takes only algorithms that give the same bits each time, at a cost in speed; an
    operation that has none is an error. Says nothing of another GPU, number of processes or version
    of torch. A CPU repeats its bits without it."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.shard_weights and self.precision == "fp16":
            raise InputError(
                "compute.shard_weights does not go with precision fp16, whose loss scaling knows "
                "no split gradients; use bf16 or fp32"
            )


@cache
def compiled(part: Callable[..., Result]) -> Callable[..., Result]:
    """`part(module, tensor, ...)` compiled once for any number of rows and every layer alike.

    Rows are the first dimension of each tensor, at least two: none and one would each be compiled
    for themselves. No tensor is a view, which would be compiled apart as well.
    """
    built = torch.compile(part)

    def call(module: nn.Module, *tensors: Tensor) -> Result:
        for tensor in tensors:
            # Without this a number of rows that happens to be the width is taken for the width.
            torch._dynamo.mark_dynamic(tensor, 0)
        return built(module, *tensors)

    return call


def begin_compiling() -> None:
    """Forget what was compiled for other models, of which torch keeps eight, then no more."""
    torch.compiler.reset()
    # Gradients of single objectives are measured on a graph that the step needs again.
    torch._functorch.config.donated_buffer = False
    # Said by the compiler of its own doings.
    warnings.filterwarnings("ignore", r".*torch\.jit\..* is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
    # Advice to allow TF32, which `precision` decides.
    warnings.filterwarnings("ignore", r"TensorFloat32 tensor cores .* available but not enabled")


def graphs_compiled() -> int:
    """Graphs that torch.compile has built in this process.

    The number stands still once a stage has seen a few batches; if it rises, batches are compiled
    for anew, which costs seconds each time.
    """
    counters = torch._dynamo.utils.counters
    return int(counters["stats"]["unique_graphs"])
