"""How training is computed: precision, compilation, recomputation, sharding and determinism.

None of it changes what is learned, except by rounding. Precision and determinism are applied by
`research/distributed/accelerator.py`, compilation and recomputation by the encoder
(`TransformerEncoder.use_compute`).
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
    """How training is computed; evaluation is always in fp32 and never compiled."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Precision of matrix products in training; weights, sums and optimizer stay in fp32. With tf32
    a GPU rounds the factors of fp32 products to 10 bits of mantissa; a CPU has no tf32 and computes
    in fp32."""
    compile: bool = False
    """Whether torch.compile compiles the position-wise parts of each block. It is for GPUs: it
    takes a while at the start, and on a CPU its dropout costs more than it saves."""
    recompute: bool = False
    """Whether each block is computed again in the backward pass, so that less memory is kept for
    it (activation checkpointing)."""
    shard_weights: bool = False
    """Whether weights, gradients and optimizer moments are sharded over the processes (FSDP2)
    instead of copied to each, for item tables that are too large; with one process it does
    nothing."""
    deterministic: bool = False
    """Whether a GPU uses only algorithms that give the same bits each time, at a cost in speed; an
    operation that has none is an error. Bits may still differ on another GPU, with another number
    of processes or another version of torch. A CPU repeats its bits without this."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.shard_weights and self.precision == "fp16":
            raise InputError(
                "compute.shard_weights does not go with precision fp16, whose loss scaling knows "
                "no split gradients; use bf16 or fp32"
            )


@cache
def compile_part(part: Callable[..., Result]) -> Callable[..., Result]:
    """`part(module, tensor, ...)`, compiled once for all layers and any number of rows.

    Rows are the first dimension of each tensor. There must be at least two: torch compiles once
    more for 0 rows and for 1. It also compiles again if a tensor's kind changes between calls:
    its strides, whether it needs a gradient, or (in some cases) whether it is a view.
    """
    compiled = torch.compile(part)

    def call(module: nn.Module, *tensors: Tensor) -> Result:
        for tensor in tensors:
            # Without this, torch would tie the two sizes if the first batch has D rows.
            torch._dynamo.mark_dynamic(tensor, 0)
        return compiled(module, *tensors)

    return call


def begin_compiling() -> None:
    """Drop what was compiled for earlier models: torch keeps eight, then compiles no more."""
    torch.compiler.reset()
    # The gradients of single objectives are measured on the graph that the step needs afterwards,
    # so no backward pass may reuse its buffers.
    torch._functorch.config.donated_buffer = False
    # Warnings about what the compiler itself does.
    warnings.filterwarnings("ignore", r".*torch\.jit\..* is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
    # Advice to allow TF32; `precision` decides that.
    warnings.filterwarnings("ignore", r"TensorFloat32 tensor cores .* available but not enabled")


def graphs_compiled() -> int:
    """The number of graphs that torch.compile has built in this process.

    It should not rise once a stage has trained on a few batches; if it does, torch compiles again
    for new shapes, which costs seconds each time.
    """
    counters = torch._dynamo.utils.counters
    return int(counters["stats"]["unique_graphs"])
