"""The one door to attention, and the one place that may pad.

`attention` takes packed queries, keys and values and gives the packed outputs of the tokens that
are read; no token sees another sequence's tokens, and under `causal` none sees a newer one. Below
it, `over_rectangles` lays sequences out in padded rectangles for any core: a block may bring its
own. Ours is torch's scaled_dot_product_attention (Vaswani et al. 2017, eq. 1); with attention
dropout on a CPU it is spelled out, because torch's dropout would cost more than the attention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.precision import without_autocast
from research.model.kernels.tiled_attention import tiled_attention
from research.packed import Packed
from research.rectangles import Rectangle, Rectangles, SlotIndex, lay_out

# Sequences of one call of torch's kernels: the grid of a GPU has no more room (pytorch#142228).
MOST_SEQUENCES = (1 << 16) - 1

Bias = Callable[[Rectangle], Tensor]
"""What is added to the scaled scores of a rectangle, to be broadcast to [B, H, Q, L]."""


class Core(Protocol):
    """Attention of the sequences of one rectangle."""

    def __call__(
        self, q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle
    ) -> Tensor:
        """[B, Q, H, K]: the outputs of the queries, which may see what `rectangle.visible` says.

        Empty slots hold zeros; outputs for empty queries are dropped.
        """


def attention(
    qkv_T3HK: Tensor,
    packed: Packed,
    *,
    causal: bool,
    dropout: float,
    read_P: Tensor | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Softmax attention within each sequence: [P, H, K], of the tokens that are read or of all.

    `dropout` is the probability of dropping an attention weight; 0 outside training. `read_P` may
    name tokens in any order and more than once.
    """
    return over_rectangles(SoftmaxCore(causal, dropout, bias), qkv_T3HK, packed, read_P)


def over_rectangles(
    core: Core, qkv_T3HK: Tensor, packed: Packed, read_P: Tensor | None = None
) -> Tensor:
    """A core's outputs [P, H, K] of the tokens that are read, in that order; None: of all T.

    On a CPU the core gets sequences of similar length together, with queries at the tokens that
    are read alone; on an accelerator all sequences at once, with queries at every token.
    """
    rectangles = packed.rectangles if read_P is None else lay_out(packed, read_P)
    if not rectangles.blocks:
        return qkv_T3HK[:0, 2]
    parts: Sequence[Tensor]
    parts = _LayOut.apply(qkv_T3HK, rectangles)  # type: ignore[no-untyped-call]
    outputs = [
        core(q_BQHK, k_BLHK, v_BLHK, block)
        for q_BQHK, k_BLHK, v_BLHK, block in zip(
            parts[::3], parts[1::3], parts[2::3], rectangles.blocks
        )
    ]
    joined_PHK: Tensor = _Join.apply(rectangles, *outputs)  # type: ignore[no-untyped-call]
    return joined_PHK if rectangles.order is None else joined_PHK.index_select(0, rectangles.order)


class _LayOut(torch.autograd.Function):
    """[T, 3, H, K] -> queries [B, Q, H, K], keys and values [B, L, H, K] of each rectangle."""

    @staticmethod
    def forward(ctx: FunctionCtx, qkv_T3HK: Tensor, rectangles: Rectangles) -> tuple[Tensor, ...]:
        index, _ = rectangles.indices(qkv_T3HK.shape[2])
        ctx.index, ctx.shape = index, qkv_T3HK.shape  # type: ignore[attr-defined]
        shapes = [
            tokens_BN.shape
            for block in rectangles.blocks
            for tokens_BN in (block.queries_BQ, block.slots_BL, block.slots_BL)
        ]
        return _to_slots(qkv_T3HK, index, shapes)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        return _from_slots(grads, ctx.index).view(ctx.shape), None  # type: ignore[attr-defined]


class _Join(torch.autograd.Function):
    """[B, Q, H, K] of each rectangle -> [P, H, K]."""

    @staticmethod
    def forward(ctx: FunctionCtx, rectangles: Rectangles, *outputs: Tensor) -> Tensor:
        heads, width = outputs[0].shape[2:]
        _, index = rectangles.indices(heads)
        shapes = [outputs_BQ.shape for outputs_BQ in rectangles.outputs]
        ctx.index, ctx.shapes = index, shapes  # type: ignore[attr-defined]
        return _from_slots(outputs, index).view(-1, heads, width)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_PHK: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_to_slots(grad_PHK, ctx.index, ctx.shapes)  # type: ignore[attr-defined]


def _to_slots(x: Tensor, index: SlotIndex, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """[B, N, H, K] of each shape [B, N] from the rows [..., H, K] of x; zeros in empty slots.

    A row's heads are apart in memory, so that a product of matrices takes them without a copy.
    """
    heads, width = x.shape[-2:]
    rows = torch.cat([x.reshape(-1, width), x.new_zeros(1, width)])
    parts = rows.index_select(0, index.row_of_slot).split(
        [shape.numel() * heads for shape in shapes]
    )
    return tuple(
        part.view(shape[0], heads, shape[1], width).transpose(1, 2)
        for part, shape in zip(parts, shapes)
    )


def _from_slots(parts: Sequence[Tensor], index: SlotIndex) -> Tensor:
    """The rows [..., K] that stand in the slots [B, N, H, K]; zeros for those in none."""
    width = parts[0].shape[-1]
    slots = [part.transpose(1, 2).reshape(-1, width) for part in parts]
    return torch.cat([*slots, slots[0].new_zeros(1, width)]).index_select(0, index.slot_of_row)


@dataclass(frozen=True)
class SoftmaxCore:
    """softmax(q k' / sqrt(K) + bias) v, with dropout on the weights."""

    causal: bool
    """Whether a query sees no newer key than its own."""
    dropout: float = 0.0
    """Probability of dropping a weight."""
    bias: Bias | None = None
    """What is added to the scores; None: nothing."""

    def __call__(
        self, q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle
    ) -> Tensor:
        """[B, Q, H, K]."""
        q, k, v = q_BQHK.transpose(1, 2), k_BLHK.transpose(1, 2), v_BLHK.transpose(1, 2)
        bias = None if self.bias is None else self.bias(rectangle)
        # A query in the slot of its own number can do without a mask of what is newer.
        triangular = self.causal and rectangle.reads_all and bias is None
        visible = None if triangular else rectangle.visible(self.causal)
        if visible is not None:
            # 0 where a query sees, minus infinity elsewhere.
            hidden = visible[:, None].to(q.dtype).log_()
            bias = hidden if bias is None else bias + hidden
        if self.dropout == 0.0 or q.device.type != "cpu":
            return _fused(q, k, v, bias, triangular, self.dropout).transpose(1, 2)
        # In fp32 at least: torch's kernels round neither scores nor their softmax.
        wide = torch.promote_types(q.dtype, torch.float32)
        if bias is not None:
            bias = bias.to(wide).expand(*q.shape[:3], k.shape[2])
        with without_autocast(q):
            output = tiled_attention(
                q.to(wide), k.to(wide), v.to(wide), bias,
                triangular=triangular, dropout=self.dropout,
            )  # fmt: skip
        return output.to(q.dtype).transpose(1, 2)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, triangular: bool, dropout: float
) -> Tensor:
    """torch's own attention: [B, H, Q, K], [B, H, L, K] x 2 -> [B, H, Q, K]."""
    if bias is not None:
        bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    outputs = [
        F.scaled_dot_product_attention(
            q[first : first + MOST_SEQUENCES],
            k[first : first + MOST_SEQUENCES],
            v[first : first + MOST_SEQUENCES],
            attn_mask=None if bias is None else bias[first : first + MOST_SEQUENCES],
            dropout_p=dropout,
            is_causal=triangular,
        )
        for first in range(0, len(q), MOST_SEQUENCES)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
