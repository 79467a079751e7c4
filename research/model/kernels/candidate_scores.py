"""Scores of tokens that have N candidates each, as sampled losses need them.

Where the table is large beside N, the N embeddings of each token are gathered, on a CPU a tile at a
time, so that [P, N, D] is never held; in the gradient each row of the table is summed once. Where N
is many, it is faster to multiply with the whole table, a tile at a time too, and pick the
candidates' scores: on a CPU for 257 of 3,416 items twice as fast, for 65 of them half as fast
(experiments/LOG.md, 2026-11-29). Scores are fp32 under autocast too; only products with the whole
table have factors in low precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.cross_entropy import aligned_tile, tile_rows
from research.model.kernels.precision import low_precision, product, without_autocast

# Gathering a row costs as much as products with this many rows of the table: on a CPU, as measured,
# and on accelerators, where [P, N, D] is held.
CPU_ROWS_PER_GATHER = 28
ROWS_PER_GATHER = 512
# Numbers of gathered embeddings that are held at once: 1 MB in fp32, which stays in cache.
GATHERED = 1 << 18


class _PickedProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_PD: Tensor,
        table_VD: Tensor,
        items_PN: Tensor,
        low_dtype: torch.dtype | None,
    ) -> Tensor:
        scores_PN = states_PD.new_empty(items_PN.shape)
        if low_dtype is not None:
            states_PD, table_VD = states_PD.to(low_dtype), table_VD.to(low_dtype)
        ctx.save_for_backward(states_PD, table_VD, items_PN)
        tiles, buffer = _tiles(items_PN, table_VD)
        for tile in tiles:
            states, products = states_PD[tile], buffer[: len(items_PN[tile])]
            if low_dtype is None:
                torch.mm(states, table_VD.T, out=products)
            else:
                products = product(states, table_VD.T)
            torch.gather(products, 1, items_PN[tile], out=scores_PN[tile])
        return scores_PN

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PN: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states_PD, table_VD, items_PN = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_states_PD = grad_PN.new_empty(states_PD.shape)
        grad_table_VD = grad_PN.new_zeros(table_VD.shape)
        tiles, buffer = _tiles(items_PN, grad_table_VD)
        for tile in tiles:
            items, states = items_PN[tile], states_PD[tile]
            # A row may hold an item more than once: gradients are added before they are rounded.
            grad_tile = buffer[: len(items)].zero_().scatter_add_(1, items, grad_PN[tile])
            if states.dtype == grad_PN.dtype:
                torch.mm(grad_tile, table_VD, out=grad_states_PD[tile])
                grad_table_VD.addmm_(grad_tile.T, states)
            else:
                grad_tile = grad_tile.to(states.dtype)
                grad_states_PD[tile] = product(grad_tile, table_VD)
                grad_table_VD += product(grad_tile.T, states)
        return grad_states_PD, grad_table_VD, None, None


class _GatheredProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_PD: Tensor,
        table_VD: Tensor,
        items_PN: Tensor,
        touched_rows: bool,
    ) -> Tensor:
        ctx.save_for_backward(states_PD, table_VD, items_PN)
        ctx.touched_rows = touched_rows  # type: ignore[attr-defined]
        scores_PN = states_PD.new_empty(items_PN.shape)
        height = max(1, GATHERED // max(1, items_PN.shape[1] * states_PD.shape[1]))
        for states, items, scores in zip(
            states_PD.split(height), items_PN.split(height), scores_PN.split(height)
        ):
            torch.bmm(F.embedding(items, table_VD), states[:, :, None], out=scores[:, :, None])
        return scores_PN

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PN: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states_PD, table_VD, items_PN = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_states_PD = _weighted_sums(table_VD, items_PN, grad_PN)
        # The pairs of a token and a candidate, by candidate: each row's gradient is one sum.
        ids, order = items_PN.flatten().sort()
        rows_U, counts_U = torch.unique_consecutive(ids, return_counts=True)
        tokens = order // max(1, items_PN.shape[1])
        starts_U = counts_U.cumsum(0) - counts_U
        values_UD = _weighted_sums(states_PD, tokens, grad_PN.flatten()[order], starts_U)
        if ctx.touched_rows:  # type: ignore[attr-defined]
            grad_table = torch.sparse_coo_tensor(
                rows_U[None],
                values_UD,
                table_VD.shape,
                is_coalesced=True,
                check_invariants=False,
            )
            return grad_states_PD, grad_table, None, None
        grad_table = grad_PN.new_zeros(table_VD.shape).index_copy_(0, rows_U, values_UD)
        return grad_states_PD, grad_table, None, None


def _tiles(items_PN: Tensor, table_VD: Tensor) -> tuple[list[slice], Tensor]:
    """The rows of each tile, and a buffer for the products of one tile with the whole table."""
    height = tile_rows(len(table_VD), items_PN.device)
    tiles = [slice(first, first + height) for first in range(0, len(items_PN), height)]
    return tiles, aligned_tile(table_VD, min(height, len(items_PN)), len(table_VD))


def _weighted_sums(
    rows: Tensor, ids: Tensor, weights: Tensor, starts: Tensor | None = None
) -> Tensor:
    """[B, D]: sums of `rows[ids] * weights`, of each row of ids [B, N], or from each start [B]."""
    if ids.numel() == 0:
        return rows.new_zeros(len(ids) if starts is None else 0, rows.shape[1])
    sums: Tensor = F.embedding_bag(ids, rows, starts, mode="sum", per_sample_weights=weights)
    return sums


def candidate_scores(
    hidden_PD: Tensor, table_VD: Tensor, items_PN: Tensor, *, touched_rows: bool = False
) -> Tensor:
    """[P, N]: inner products of each state with the table's rows `items_PN[p]`.

    Differentiable once, with respect to states and table. With `touched_rows` the table's gradient
    is a sparse tensor of the rows in `items_PN`, and the rows are always gathered.
    """
    low_dtype = low_precision(table_VD)
    on_cpu = hidden_PD.device.type == "cpu"
    rows_per_gather = CPU_ROWS_PER_GATHER if on_cpu else ROWS_PER_GATHER
    with without_autocast(hidden_PD):
        hidden_PD = hidden_PD.to(table_VD.dtype)
        scores_PN: Tensor
        if not touched_rows and len(table_VD) <= rows_per_gather * items_PN.shape[1]:
            scores_PN = _PickedProducts.apply(  # type: ignore[no-untyped-call]
                hidden_PD, table_VD, items_PN, low_dtype
            )
        elif on_cpu:
            scores_PN = _GatheredProducts.apply(  # type: ignore[no-untyped-call]
                hidden_PD, table_VD, items_PN, touched_rows
            )
        else:
            rows_PND = F.embedding(items_PN, table_VD, sparse=touched_rows)
            scores_PN = einsum(hidden_PD, rows_PND, "P D, P N D -> P N")
    return scores_PN
