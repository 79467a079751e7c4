"""Scores of each token's own candidates.

Gathering N embeddings a token is right for few candidates; for many it holds [P, N, D] and its
gradient adds rows one by one. Then it is faster, and bounded in memory, to multiply with the whole
table a tile at a time and pick: for 257 of 3,416 items at width 128, 20 to 50 times. Scores are
fp32 under autocast too; only products with the whole table have factors in low precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.precision import low_precision, product, without_autocast
from research.model.softmax import tile_rows

# A gathered row costs as much as products with this many rows of the table (measured on a CPU).
ROWS_PER_GATHER = 512


class _PickedProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_PD: Tensor,
        table_VD: Tensor,
        items_PN: Tensor,
        low: torch.dtype | None,
    ) -> Tensor:
        scores_PN = hidden_PD.new_empty(items_PN.shape)
        if low is not None:
            hidden_PD, table_VD = hidden_PD.to(low), table_VD.to(low)
        ctx.save_for_backward(hidden_PD, table_VD, items_PN)
        for tile in _tiles(items_PN, table_VD):
            products = product(hidden_PD[tile], table_VD.T)
            torch.gather(products, 1, items_PN[tile], out=scores_PN[tile])
        return scores_PN

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PN: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_PD, table_VD, items_PN = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_hidden_PD = grad_PN.new_empty(hidden_PD.shape)
        grad_table_VD = grad_PN.new_zeros(table_VD.shape)
        for tile in _tiles(items_PN, table_VD):
            items, hidden = items_PN[tile], hidden_PD[tile]
            # An item may stand in a row more than once, so the sum is formed before it is rounded.
            spread = grad_PN.new_zeros(len(items), len(table_VD))
            spread = spread.scatter_add_(1, items, grad_PN[tile]).to(hidden.dtype)
            if hidden.dtype == grad_PN.dtype:
                torch.mm(spread, table_VD, out=grad_hidden_PD[tile])
                grad_table_VD.addmm_(spread.T, hidden)
            else:
                grad_hidden_PD[tile] = product(spread, table_VD)
                grad_table_VD += product(spread.T, hidden)
        return grad_hidden_PD, grad_table_VD, None, None


def _tiles(items_PN: Tensor, table_VD: Tensor) -> list[slice]:
    rows = tile_rows(table_VD)
    return [slice(first, first + rows) for first in range(0, len(items_PN), rows)]


def candidate_scores(hidden_PD: Tensor, table_VD: Tensor, items_PN: Tensor) -> Tensor:
    """[P, N]: inner products of each state with its own row of items; differentiable once."""
    low = low_precision(table_VD)
    with without_autocast(hidden_PD):
        hidden_PD = hidden_PD.to(table_VD.dtype)
        if len(table_VD) > ROWS_PER_GATHER * items_PN.shape[1]:
            return einsum(hidden_PD, F.embedding(items_PN, table_VD), "P D, P N D -> P N")
        scores_PN: Tensor = _PickedProducts.apply(  # type: ignore[no-untyped-call]
            hidden_PD, table_VD, items_PN, low
        )
    return scores_PN
