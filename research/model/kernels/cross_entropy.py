"""Full-softmax cross-entropy that never holds [P, V].

Loss and gradients are computed together, a tile of rows at a time, so the memory is one tile and
the logits are formed once, not again in the backward pass. On a CPU a tile stays in cache. Under
autocast the three products have factors in low precision; all else, gradients too, is fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.precision import SHARES, low_precision, product, without_autocast

# Elements of one tile of logits: 8 MB in fp32 on a CPU; 256 MB on an accelerator.
CPU_TILE = 1 << 21
ACCELERATOR_TILE = 1 << 26
# exp(x) for |x| up to this neither overflows a sum over any catalogue nor underflows in fp32.
SAFE_LOGIT = 60.0
# A tile's rows begin at multiples of this many elements: 64 bytes in fp32, where a CPU's products
# run twice as fast as at odd places, and 32 in low precision, which tensor cores want.
ALIGNED = 16


@dataclass(frozen=True, eq=False)
class _Competing:
    """The rows that states are scored against, in the type that they are multiplied in."""

    rows_CD: Tensor
    """Trained rows, the first columns of the logits."""
    further_ED: Tensor | None
    """Frozen rows, the last columns; None: there are none."""
    bias_C: Tensor | None
    """Added to the logits of the trained rows."""

    @property
    def columns(self) -> int:
        """Rows that compete, of both kinds."""
        return len(self.rows_CD) + (0 if self.further_ED is None else len(self.further_ED))

    def logits(self, states: Tensor, tile: Tensor) -> Tensor:
        """[P, columns] of a few states; in fp32 they stand in `tile`."""
        own, count = self.rows_CD, len(self.rows_CD)
        if states.dtype in (torch.bfloat16, torch.float16):
            logits = product(states, own.T)
            logits = logits if self.bias_C is None else logits.add_(self.bias_C)
            if self.further_ED is None:
                return logits
            return torch.cat([logits, product(states, self.further_ED.T)], dim=1)
        if self.bias_C is None:
            torch.mm(states, own.T, out=tile[:, :count])
        else:
            torch.addmm(self.bias_C, states, own.T, out=tile[:, :count])
        if self.further_ED is not None:
            torch.mm(states, self.further_ED.T, out=tile[:, count:])
        return tile

    def mixed(self, weights: Tensor) -> Tensor:
        """[P, D]: the sum of all rows, each times its weight in [P, columns]."""
        own = product(weights[:, : len(self.rows_CD)], self.rows_CD)
        if self.further_ED is None:
            return own
        return own.add_(product(weights[:, len(self.rows_CD) :], self.further_ED))


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_PD: Tensor,
        table_RD: Tensor,
        bias_C: Tensor | None,
        further_ED: Tensor | None,
        targets_P: Tensor,
        rows: int,
        low: torch.dtype | None,
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad)  # type: ignore[attr-defined]
        own_CD = table_RD[:rows]
        safe = is_safe(states_PD, own_CD, bias_C, further_ED)
        factors = states_PD
        if low is not None:
            # What is differentiated below is the loss of the rounded factors.
            factors, own_CD = states_PD.to(low), own_CD.to(low)
            further_ED = None if further_ED is None else further_ED.to(low)
        competing = _Competing(own_CD, further_ED, bias_C)
        grads = _Gradients.zeros(states_PD, table_RD, bias_C, rows) if wants_grad else None
        total = states_PD.new_zeros((), dtype=torch.float64)
        height = tile_rows(competing.columns, states_PD.device)
        buffer = aligned_tile(own_CD, min(height, len(states_PD)), competing.columns)
        for first in range(0, len(states_PD), height):
            part = slice(first, first + height)
            states, targets = factors[part], targets_P[part]
            tile = buffer[: len(states)]
            logits = competing.logits(states, tile)
            right = logits.gather(1, targets[:, None])[:, 0]
            if safe:
                sums = logits.exp_().sum(1)
                total += (sums.log() - right).sum(dtype=torch.float64)
            else:
                largest = logits.amax(1)
                sums = logits.sub_(largest[:, None]).exp_().sum(1)
                total += (sums.log() + largest - right).sum(dtype=torch.float64)
            if grads is not None:
                grads.add(part, competing, states, logits, sums, tile)
        if grads is not None:
            grads.subtract_targets(own_CD, factors, targets_P)
            ctx.grads = grads  # type: ignore[attr-defined]
        return total.to(states_PD.dtype)

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None, None, None]:
        grads: _Gradients = ctx.grads  # type: ignore[attr-defined]
        return (
            grads.states_PD * grad_total,
            grads.table_RD * grad_total,
            None if grads.bias_C is None else grads.bias_C * grad_total,
            None,
            None,
            None,
            None,
        )


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Gradients of a loss with respect to its differentiable inputs, filled tile by tile."""

    states_PD: Tensor
    table_RD: Tensor
    """Of the whole table; rows that do not compete stay 0."""
    bias_C: Tensor | None
    rows: int
    """How many rows of the table compete."""

    @staticmethod
    def zeros(states_PD: Tensor, table_RD: Tensor, bias_C: Tensor | None, rows: int) -> _Gradients:
        """Nothing yet."""
        bias = None if bias_C is None else torch.zeros_like(bias_C)
        return _Gradients(torch.zeros_like(states_PD), torch.zeros_like(table_RD), bias, rows)

    def add(
        self,
        part: slice,
        competing: _Competing,
        states: Tensor,
        exponentials: Tensor,
        sums: Tensor,
        tile: Tensor,
    ) -> None:
        """The expectations under the softmax, exponentials / sums, of the states in `part`."""
        own = exponentials[:, : self.rows]
        grad_states, grad_rows = self.states_PD[part], self.table_RD[: self.rows]
        if states.dtype != grad_states.dtype:
            shares = torch.mul(exponentials, (SHARES / sums)[:, None], out=tile)
            torch.div(competing.mixed(shares), SHARES, out=grad_states)
            grad_rows.add_(product(shares[:, : self.rows].T, states), alpha=1 / SHARES)
        else:
            # Dividing the narrow factors spares a pass over the tile.
            torch.mm(own, competing.rows_CD, out=grad_states)
            if competing.further_ED is not None:
                grad_states.addmm_(exponentials[:, self.rows :], competing.further_ED)
            grad_states /= sums[:, None]
            grad_rows.addmm_(own.T, states / sums[:, None])
        if self.bias_C is not None:
            self.bias_C.addmv_(own.T, 1 / sums)

    def subtract_targets(self, own_CD: Tensor, states_PD: Tensor, targets_P: Tensor) -> None:
        """What every state has of its target with certainty."""
        wide = self.states_PD.dtype
        self.states_PD.sub_(own_CD[targets_P])
        self.table_RD.index_add_(0, targets_P, states_PD.to(wide), alpha=-1)
        if self.bias_C is not None:
            self.bias_C.index_add_(0, targets_P, torch.ones_like(targets_P, dtype=wide), alpha=-1)


def aligned_tile(like: Tensor, height: int, columns: int) -> Tensor:
    """An uninitialized [height, columns] of the type and device of `like`, its rows aligned."""
    return like.new_empty(height, -(-columns // ALIGNED) * ALIGNED)[:, :columns]


def tile_rows(columns: int, device: torch.device) -> int:
    """Rows of a tile of products with a whole table of `columns` rows."""
    tile = CPU_TILE if device.type == "cpu" else ACCELERATOR_TILE
    return max(16, tile // columns)


def is_safe(
    states_PD: Tensor,
    table_CD: Tensor,
    bias_C: Tensor | None = None,
    further_ED: Tensor | None = None,
) -> bool:
    """Whether no |logit| is above `SAFE_LOGIT`, by a bound; an accelerator, which would have to be
    waited for, is not asked: False."""
    if states_PD.device.type != "cpu":
        return False
    if len(states_PD) == 0:
        return True
    norms = [table.norm(dim=1).amax() for table in (table_CD, further_ED) if table is not None]
    # By Cauchy and Schwarz.
    bound = states_PD.norm(dim=1).amax() * torch.stack(norms).amax()
    bound = bound if bias_C is None else bound + bias_C.abs().amax()
    return bool(bound < SAFE_LOGIT)


def top_one(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    targets_P: Tensor,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
) -> Tensor:
    """int64 scalar: how many rows score their target above all else; a tie is none; no graph.

    Outside autocast, which would round scores until they tie. What competes: as `softmax_loss`.
    """
    correct = targets_P.new_zeros(())
    competing = _Competing(table_RD[:rows], further_ED, bias_C)
    height = tile_rows(competing.columns, states_PD.device)
    buffer = aligned_tile(table_RD, min(height, len(states_PD)), competing.columns)
    with torch.no_grad(), without_autocast(states_PD):
        for states, targets in zip(states_PD.split(height), targets_P.split(height)):
            logits = competing.logits(states.to(table_RD.dtype), buffer[: len(states)])
            right = logits.gather(1, targets[:, None])
            correct += ((logits >= right).sum(1) == 1).sum()
    return correct


def all_scores(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
) -> Tensor:
    """[P, columns]: scores of all that competes, as in `softmax_loss`; outside autocast."""
    with without_autocast(states_PD):
        states_PD = states_PD.to(table_RD.dtype)
        scores_PC = states_PD @ table_RD[:rows].T
        scores_PC = scores_PC if bias_C is None else scores_PC + bias_C
        if further_ED is None:
            return scores_PC
        return torch.cat([scores_PC, states_PD @ further_ED.T], dim=1)


def softmax_loss(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    targets_P: Tensor,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
) -> Tensor:
    """Sum over P of -log softmax(table h + bias)[target], a scalar; 0 for P = 0.

    The first `rows` rows of the table compete (None: all), and those of `further_ED`, which are no
    targets and get no gradient. Differentiable once, with respect to states, table and bias.
    """
    low = low_precision(table_RD)
    rows = len(table_RD) if rows is None else rows
    with without_autocast(states_PD):
        total: Tensor = _TiledCrossEntropy.apply(  # type: ignore[no-untyped-call]
            states_PD.to(table_RD.dtype), table_RD, bias_C, further_ED, targets_P, rows, low
        )
    return total
