"""Softmax attention with dropout on a CPU, in tiles of scores that stay in cache.

`research/model/attention.py` uses it, because on a CPU torch's own dropout costs more than the
attention. For the backward pass only the dropout mask is kept; the weights are computed again,
which costs less than writing and reading them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.dropout import fill_keep_mask
from research.rectangles import MIN_SCORES

# Attention scores in a tile: 1 MB in fp32.
SCORES_TILE = 1 << 18
# Queries in a tile under `triangular`; the tile leaves out keys that are newer than all of them.
TRIANGULAR_QUERIES = 64


def tiled_attention(
    q_BHQK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, bias_BHQL: Tensor | None, *,
    triangular: bool, dropout: float,
) -> Tensor:  # fmt: skip
    """[B, H, Q, K]: softmax(q k' / sqrt(K) + bias) v, with dropout on the attention weights.

    Under `triangular`, query q sees only the keys 0..q.
    """
    output: Tensor = _TiledAttention.apply(  # type: ignore[no-untyped-call]
        q_BHQK, k_BHLK, v_BHLK, bias_BHQL, triangular, dropout
    )
    return output


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None,
        triangular: bool, dropout: float,
    ) -> Tensor:  # fmt: skip
        q, k, v = (part.contiguous() for part in (q, k, v))
        tiles = list(_tiles(q, k, triangular))
        keep_mask = torch.empty(sum(math.prod(tile.shape) for tile in tiles), dtype=torch.uint8)
        output = torch.empty_like(q)
        scale = 1.0
        for tile, mask_RQL in zip(tiles, _tile_views(keep_mask, tiles)):
            weights = tile.weights(q, k, bias)
            scale = fill_keep_mask(mask_RQL, dropout)
            weights = weights.mul_(mask_RQL)[..., : tile.keys]
            _multiply(tile.of_queries(output), weights, tile.of_keys(v), scale)
        ctx.save_for_backward(q, k, v, bias, keep_mask)  # type: ignore[arg-type]
        ctx.tiles, ctx.scale = tiles, scale  # type: ignore[attr-defined]
        return output

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, keep_mask = ctx.saved_tensors  # type: ignore[attr-defined]
        tiles, scale = ctx.tiles, ctx.scale  # type: ignore[attr-defined]
        key_scale = q.shape[-1] ** -0.5
        grad = grad.contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(part) for part in (q, k, v))
        needed = ctx.needs_input_grad[3]  # type: ignore[attr-defined]
        grad_bias = grad.new_zeros(bias.shape) if needed else None
        for tile, mask_RQL in zip(tiles, _tile_views(keep_mask, tiles)):
            weights, grad_RQK = tile.weights(q, k, bias), tile.of_queries(grad)
            grad_weights = grad.new_empty(*weights.shape[:2], tile.keys)
            _multiply(grad_weights, grad_RQK, tile.of_keys(v).mT, scale)
            grad_scores = torch.ops.aten._softmax_backward_data(
                _pad_columns(grad_weights, 0.0).mul_(mask_RQL), weights, -1, weights.dtype
            )[..., : tile.keys]
            if grad_bias is not None:
                grad_tile = tile.of_bias(grad_bias)
                grad_tile.copy_(grad_scores.reshape(grad_tile.shape))
            weights = weights.mul_(mask_RQL)[..., : tile.keys]
            _multiply(tile.of_queries(grad_q), grad_scores, tile.of_keys(k), key_scale)
            # A sequence's first tile, that of its newest queries, has all keys and so fills all
            # gradients of keys and values; later tiles add to them.
            added = not tile.newest
            _multiply(tile.of_keys(grad_v), weights.mT, grad_RQK, scale, added)
            _multiply(tile.of_keys(grad_k), grad_scores.mT, tile.of_queries(q), key_scale, added)
        return grad_q, grad_k, grad_v, grad_bias, None, None


@dataclass(frozen=True)
class _Tile:
    """Some queries of some sequences, and the keys that they see; R = sequences x heads."""

    sequences: slice
    """Which of the B sequences."""
    heads: int
    """H, the number of heads."""
    queries: slice
    """Which of the Q queries."""
    keys: int
    """How many of the L keys, counted from the oldest."""
    triangular: bool
    """Whether query q sees only the keys 0..q."""
    newest: bool
    """Whether these are the newest queries; their tile has all L keys."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(R, queries, columns) of the tile's weights; columns: the keys, at least `MIN_SCORES`."""
        rows = (self.sequences.stop - self.sequences.start) * self.heads
        return rows, self.queries.stop - self.queries.start, max(self.keys, MIN_SCORES)

    def of_queries(self, x_BHQK: Tensor) -> Tensor:
        """[R, queries, K]: a view of the tile's part of a tensor shaped like the queries."""
        return x_BHQK[self.sequences].flatten(0, 1)[:, self.queries]

    def of_keys(self, x_BHLK: Tensor) -> Tensor:
        """[R, keys, K]: a view of the tile's part of a tensor shaped like the keys."""
        return x_BHLK[self.sequences].flatten(0, 1)[:, : self.keys]

    def of_bias(self, x_BHQL: Tensor) -> Tensor:
        """[sequences, H, queries, keys]: a view of the tile's part of a bias."""
        return x_BHQL[self.sequences, :, self.queries, : self.keys]

    def weights(self, q_BHQK: Tensor, k_BHLK: Tensor, bias_BHQL: Tensor | None) -> Tensor:
        """Attention weights before dropout, of `shape`; 0 in columns beyond the keys."""
        rows, queries, _ = self.shape
        scores = q_BHQK.new_empty(rows, queries, self.keys)
        scale = q_BHQK.shape[-1] ** -0.5
        _multiply(scores, self.of_queries(q_BHQK), self.of_keys(k_BHLK).mT, scale)
        if self.triangular:
            newer_QL = scores.new_full((queries, self.keys), -torch.inf)
            scores.add_(newer_QL.triu_(self.queries.start + 1))
        if bias_BHQL is not None:
            bias = self.of_bias(bias_BHQL)
            scores.view(bias.shape).add_(bias)
        return torch.softmax(_pad_columns(scores, -torch.inf), dim=-1)


def _tiles(q_BHQK: Tensor, k_BHLK: Tensor, triangular: bool) -> Iterator[_Tile]:
    """All tiles; a sequence's tile with its newest queries comes before its other tiles."""
    sequences, heads, queries, _ = q_BHQK.shape
    keys = k_BHLK.shape[2]
    queries_per_tile = min(queries, TRIANGULAR_QUERIES) if triangular else queries
    queries_per_tile = max(1, min(queries_per_tile, SCORES_TILE // (heads * keys)))
    for stop in range(queries, 0, -queries_per_tile):
        start, newest = max(0, stop - queries_per_tile), stop == queries
        num_keys = stop if triangular and not newest else keys
        size = max(1, SCORES_TILE // (heads * (stop - start) * num_keys))
        for first in range(0, sequences, size):
            sequences_slice = slice(first, min(first + size, sequences))
            yield _Tile(sequences_slice, heads, slice(start, stop), num_keys, triangular, newest)


def _tile_views(keep_mask: Tensor, tiles: Sequence[_Tile]) -> list[Tensor]:
    """Views of the flat dropout mask, one for each tile, in the tile's shape."""
    pieces = keep_mask.split([math.prod(tile.shape) for tile in tiles])
    return [piece.view(tile.shape) for piece, tile in zip(pieces, tiles)]


def _pad_columns(x_RQL: Tensor, value: float) -> Tensor:
    """x, filled up with columns of `value` to at least `MIN_SCORES` columns."""
    absent = MIN_SCORES - x_RQL.shape[-1]
    return x_RQL if absent <= 0 else F.pad(x_RQL, (0, absent), value=value)


def _multiply(out: Tensor, left: Tensor, right: Tensor, scale: float, added: bool = False) -> None:
    """Write scale * left @ right into `out`, or add it there."""
    if left.shape[-1] == 1 and not added:
        # Gradients of a single query, for which torch's product takes ten times as long.
        torch.mul(left * scale, right, out=out)
    else:
        torch.baddbmm(out, left, right, beta=int(added), alpha=scale, out=out)
