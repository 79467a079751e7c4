"""Gathers what an objective that couples rows needs of other processes: item ids and states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.distributed.collectives import host_group


@dataclass(frozen=True)
class Gather:
    """Collects ids and states of all processes; with one process nothing is sent.

    All processes call each method together.
    """

    rank: int = 0
    """Rank of this process."""
    world: int = 1
    """Number of processes."""

    def ids(self, ids_N: Tensor) -> Tensor:
        """Return the int64 ids of all processes, in the order of ranks, on `ids_N`'s device."""
        if self.world == 1:
            return ids_N
        local_ids = ids_N.cpu()
        longest = torch.tensor(len(local_ids))
        dist.all_reduce(longest, dist.ReduceOp.MAX, group=host_group())
        padded = local_ids.new_full((int(longest),), -1)
        padded[: len(local_ids)] = local_ids
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded, group=host_group())
        ids = torch.cat(parts)
        return ids[ids >= 0].to(ids_N.device)

    def states(self, states_QD: Tensor) -> Tensor:
        """Return the other processes' states [other rows, D], fp32 or wider, in the order of ranks.

        They are differentiable: the gradients that losses have on them are sent back to the process
        that made them and added up there. With one process there are none.
        """
        if self.world == 1:
            return states_QD[:0]
        # Not in low precision, which not every communication backend can sum.
        wide_QD = states_QD.to(torch.promote_types(states_QD.dtype, torch.float32))
        others_QD: Tensor = _OtherStates.apply(  # type: ignore[no-untyped-call]
            wide_QD, self.rank, self.world
        )
        return others_QD


class _OtherStates(torch.autograd.Function):
    """The states of the other processes; backward, the sum of all processes' gradients on ours."""

    @staticmethod
    def forward(ctx: FunctionCtx, states_QD: Tensor, rank: int, world: int) -> Tensor:
        length = torch.tensor(len(states_QD))
        lengths = [torch.empty_like(length) for _ in range(world)]
        dist.all_gather(lengths, length, group=host_group())
        sizes = [int(length) for length in lengths]
        padded = states_QD.new_zeros(max(sizes), states_QD.shape[1])
        padded[: len(states_QD)] = states_QD
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        ctx.rank, ctx.sizes = rank, sizes  # type: ignore[attr-defined]
        others = [part[:size] for part, size in zip(parts, sizes)]
        return torch.cat([*others[:rank], *others[rank + 1 :]])

    @staticmethod
    def backward(ctx: FunctionCtx, grad_QD: Tensor) -> tuple[Tensor, None, None]:
        rank, sizes = ctx.rank, ctx.sizes  # type: ignore[attr-defined]
        grad_by_rank = grad_QD.new_zeros(len(sizes), max(sizes), grad_QD.shape[1])
        others = [other for other in range(len(sizes)) if other != rank]
        for other, part in zip(others, grad_QD.split([sizes[other] for other in others])):
            grad_by_rank[other, : len(part)] = part
        dist.all_reduce(grad_by_rank)
        return grad_by_rank[rank, : sizes[rank]], None, None
