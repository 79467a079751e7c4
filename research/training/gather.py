"""What the rows of one process need of those of the others: ids that they offer, and states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.distributed.collectives import host_group


@dataclass(frozen=True)
class Gather:
    """The processes of a job; with one of them nothing is sent. All call each method together."""

    rank: int = 0
    world: int = 1

    def ids(self, ids_N: Tensor) -> Tensor:
        """int64: the ids of all processes, in the order of ranks, on the device of `ids_N`."""
        if self.world == 1:
            return ids_N
        own = ids_N.cpu()
        longest = torch.tensor(len(own))
        dist.all_reduce(longest, dist.ReduceOp.MAX, group=host_group())
        padded = own.new_full((int(longest),), -1)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded, group=host_group())
        ids = torch.cat(parts)
        return ids[ids >= 0].to(ids_N.device)

    def states(self, states_QD: Tensor) -> Tensor:
        """[others' rows, D]: the other processes' states in the order of ranks, differentiable.

        What a loss here asks of them is sent back to where they were made and added up there.
        """
        if self.world == 1:
            return states_QD[:0]
        # Not in low precision, in which not all that sends can add.
        wide_QD = states_QD.to(torch.promote_types(states_QD.dtype, torch.float32))
        others_QD: Tensor = _OtherStates.apply(  # type: ignore[no-untyped-call]
            wide_QD, self.rank, self.world
        )
        return others_QD


class _OtherStates(torch.autograd.Function):
    """The states of the other processes; backward, the sum of what all of them ask of ours."""

    @staticmethod
    def forward(ctx: FunctionCtx, states_QD: Tensor, rank: int, world: int) -> Tensor:
        own = torch.tensor(len(states_QD))
        lengths = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(lengths, own, group=host_group())
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
        asked = grad_QD.new_zeros(len(sizes), max(sizes), grad_QD.shape[1])
        others = [number for number in range(len(sizes)) if number != rank]
        for number, part in zip(others, grad_QD.split([sizes[number] for number in others])):
            asked[number, : len(part)] = part
        dist.all_reduce(asked)
        return asked[rank, : sizes[rank]], None, None
