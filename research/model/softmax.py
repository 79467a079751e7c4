"""Full-softmax cross-entropy that never holds [P, V].

Loss and gradients are computed together, a tile of rows at a time, so the memory is one tile and
the logits are formed once, not again in the backward pass. On a CPU a tile stays in cache. Under
autocast the three products have factors in low precision; all else, gradients too, is fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.precision import SHARES, low_precision, product, without_autocast

# Elements of one tile of logits: 8 MB in fp32 on a CPU; 256 MB on an accelerator.
CPU_TILE = 1 << 21
ACCELERATOR_TILE = 1 << 26
# exp(x) for |x| up to this neither overflows a sum over any catalogue nor underflows in fp32.
SAFE_LOGIT = 60.0


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_PD: Tensor,
        table_VD: Tensor,
        bias_V: Tensor | None,
        targets_P: Tensor,
        low: torch.dtype | None,
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad)  # type: ignore[attr-defined]
        rows = tile_rows(table_VD)
        grad_hidden_PD = torch.zeros_like(hidden_PD)
        grad_table_VD = torch.zeros_like(table_VD) if wants_grad else table_VD
        grad_bias_V = None if bias_V is None else torch.zeros_like(bias_V)
        total = hidden_PD.new_zeros((), dtype=torch.float64)
        small = bool(largest_logit(hidden_PD, table_VD, bias_V) < SAFE_LOGIT)
        wide = hidden_PD.dtype
        if low is not None:
            # What is differentiated below is the loss of the rounded factors.
            hidden_PD, table_VD = hidden_PD.to(low), table_VD.to(low)
        items = len(table_VD)
        # Tensor cores want rows of low precision that begin at multiples of 16 bytes.
        columns = items if low is None else -(-items // 8) * 8
        buffer = hidden_PD.new_empty(min(rows, len(hidden_PD)), columns)[:, :items]
        for first in range(0, len(hidden_PD), rows):
            hidden = hidden_PD[first : first + rows]
            targets = targets_P[first : first + rows]
            tile = buffer[: len(hidden)]
            if low is not None:
                logits = product(hidden, table_VD.T)
                logits = logits if bias_V is None else logits.add_(bias_V)
            elif bias_V is None:
                logits = torch.mm(hidden, table_VD.T, out=tile)
            else:
                logits = torch.addmm(bias_V, hidden, table_VD.T, out=tile)
            right = logits.gather(1, targets[:, None])[:, 0]
            if small:
                sums = logits.exp_().sum(1)
                total += (sums.log() - right).sum(dtype=torch.float64)
            else:
                largest = logits.amax(1)
                sums = logits.sub_(largest[:, None]).exp_().sum(1)
                total += (sums.log() + largest - right).sum(dtype=torch.float64)
            if not wants_grad:
                continue
            # softmax = logits / sums
            grad_hidden = grad_hidden_PD[first : first + rows]
            if low is not None:
                shares = torch.mul(logits, (SHARES / sums)[:, None], out=tile)
                torch.div(product(shares, table_VD), SHARES, out=grad_hidden)
                grad_table_VD.add_(product(shares.T, hidden), alpha=1 / SHARES)
            else:
                # Dividing the narrow factors spares a pass over the tile.
                torch.mm(logits, table_VD, out=grad_hidden)
                grad_hidden /= sums[:, None]
                grad_table_VD.addmm_(logits.T, hidden / sums[:, None])
            grad_hidden -= table_VD[targets]
            if grad_bias_V is not None:
                grad_bias_V.addmv_(logits.T, 1 / sums)
        if wants_grad:
            grad_table_VD.index_add_(0, targets_P, hidden_PD.to(wide), alpha=-1)
            if grad_bias_V is not None:
                ones_P = torch.ones_like(targets_P, dtype=grad_bias_V.dtype)
                grad_bias_V.index_add_(0, targets_P, ones_P, alpha=-1)
            ctx.grads = grad_hidden_PD, grad_table_VD, grad_bias_V  # type: ignore[attr-defined]
        return total.to(wide)

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grad_hidden_PD, grad_table_VD, grad_bias_V = ctx.grads  # type: ignore[attr-defined]
        return (
            grad_hidden_PD * grad_total,
            grad_table_VD * grad_total,
            None if grad_bias_V is None else grad_bias_V * grad_total,
            None,
            None,
        )


def tile_rows(table_VD: Tensor) -> int:
    """Rows of a tile of products with the whole table."""
    tile = CPU_TILE if table_VD.device.type == "cpu" else ACCELERATOR_TILE
    return max(16, tile // len(table_VD))


def largest_logit(hidden_PD: Tensor, table_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """A bound on every |logit| by Cauchy and Schwarz; 0 for no rows."""
    if len(hidden_PD) == 0:
        return hidden_PD.new_zeros(())
    bound: Tensor = hidden_PD.norm(dim=1).amax() * table_VD.norm(dim=1).amax()
    return bound if bias_V is None else bound + bias_V.abs().amax()


def top_one(
    hidden_PD: Tensor, table_VD: Tensor, bias_V: Tensor | None, targets_P: Tensor
) -> Tensor:
    """int64 scalar: how many rows score their target above all else; a tie is none; no graph.

    Outside autocast, which would round scores until they tie.
    """
    correct = targets_P.new_zeros(())
    rows = tile_rows(table_VD)
    with without_autocast(hidden_PD):
        for hidden, targets in zip(hidden_PD.split(rows), targets_P.split(rows)):
            logits = hidden.to(table_VD.dtype) @ table_VD.T
            if bias_V is not None:
                logits += bias_V
            right = logits.gather(1, targets[:, None])
            correct += ((logits >= right).sum(1) == 1).sum()
    return correct


def softmax_loss(
    hidden_PD: Tensor, table_VD: Tensor, bias_V: Tensor | None, targets_P: Tensor
) -> Tensor:
    """Sum over P of -log softmax(table h + bias)[target], a scalar; 0 for P = 0.

    Differentiable once, with respect to hidden, table and bias.
    """
    low = low_precision(table_VD)
    with without_autocast(hidden_PD):
        total: Tensor = _TiledCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_PD.to(table_VD.dtype), table_VD, bias_V, targets_P, low
        )
    return total
