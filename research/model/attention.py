"""Attention over packed sequences; the only place in a transformer that pads.

`attention` takes packed queries, keys and values and returns the packed outputs of the tokens that
are read. No token sees another sequence's tokens, and under `causal` none sees a newer one. It
calls `over_rectangles`, which lays sequences out in padded rectangles for any core, so that a block
can bring a core of its own; `mix_rows` does the same for what mixes a row's states without queries
and keys. The softmax core is torch's scaled_dot_product_attention (Vaswani et al. 2017, eq. 1).
With attention dropout on a CPU it is `tiled_attention` instead, because there torch's dropout would
cost more than the attention.
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

# Most sequences in one call of torch's kernels: a GPU's grid has no room for more (pytorch#142228).
MAX_SEQUENCES = (1 << 16) - 1

Bias = Callable[[Rectangle], Tensor]
"""From a rectangle to what is added to its scaled scores; it broadcasts to [B, H, Q, L]."""
Mixer = Callable[[Tensor, Rectangle], Tensor]
"""From the states [B, L, D] of a rectangle, with zeros in empty slots, to [B, Q, D]: what each
query gets from the tokens of its row."""


class Core(Protocol):
    """A kind of attention, computed for the sequences of one rectangle."""

    def __call__(
        self, q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle
    ) -> Tensor:
        """[B, Q, H, K]: the output of each query over the keys that `rectangle.visible` shows it.

        Empty slots hold zeros. What is returned for empty queries is dropped.
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
    """Softmax attention within each sequence: outputs [P, H, K] at the tokens `read_P`, or all T.

    `dropout` is the probability of dropping an attention weight; 0 outside training. `read_P`,
    int64 [P], may name tokens in any order and more than once; None: all tokens, in order.
    """
    return over_rectangles(SoftmaxCore(causal, dropout, bias), qkv_T3HK, packed, read_P)


def over_rectangles(
    core: Core, qkv_T3HK: Tensor, packed: Packed, read_P: Tensor | None = None
) -> Tensor:
    """A core's outputs [P, H, K] at the tokens `read_P`, in that order; None: at all T tokens.

    On a CPU, a rectangle holds sequences of similar length, and has queries only at the tokens that
    are read. On an accelerator, one rectangle holds all sequences, with queries at every token. A
    batch that is padded already is the rectangle itself; all of its tokens are read.
    """
    rectangles = packed.rectangles if read_P is None else lay_out(packed, read_P)
    if packed.padded:
        (block,) = rectangles.blocks
        q_BLHK, k_BLHK, v_BLHK = qkv_T3HK.unflatten(0, block.slots_BL.shape).unbind(2)
        # Copied, as ONNX's form of attention may have another layout than the one that is traced.
        mixed_BLHK = core(q_BLHK, k_BLHK, v_BLHK, block)
        return mixed_BLHK.clone(memory_format=torch.contiguous_format).flatten(0, 1)
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


def mix_rows(mixer: Mixer, x_TD: Tensor, packed: Packed, read_P: Tensor | None = None) -> Tensor:
    """A mixer's outputs [P, D] at the tokens `read_P`, in that order; None: at all T tokens.

    It is laid out like attention's queries and values (`over_rectangles`).
    """
    rectangles = packed.rectangles if read_P is None else lay_out(packed, read_P)
    if packed.padded:
        (block,) = rectangles.blocks
        x_BLD, filled = x_TD.unflatten(0, block.slots_BL.shape), block.visible(causal=False)
        # What stands in padding means nothing, and a mixer is promised zeros.
        x_BLD = x_BLD if filled is None else torch.where(filled.mT, x_BLD, 0.0)
        return mixer(x_BLD, block).flatten(0, 1)
    if not rectangles.blocks:
        return x_TD[:0]
    parts: Sequence[Tensor] = _LayOut.apply(x_TD[:, None, None], rectangles)  # type: ignore[no-untyped-call]
    outputs = [
        mixer(x_BL1D[:, :, 0], block)[:, :, None] for x_BL1D, block in zip(parts, rectangles.blocks)
    ]
    joined_P1D: Tensor = _Join.apply(rectangles, *outputs)  # type: ignore[no-untyped-call]
    joined_PD = joined_P1D[:, 0]
    return joined_PD if rectangles.order is None else joined_PD.index_select(0, rectangles.order)


class _LayOut(torch.autograd.Function):
    """[T, 3, H, K] -> for each rectangle, queries [B, Q, H, K], keys and values [B, L, H, K].

    [T, 1, H, K] -> for each rectangle, values alone.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x_TNHK: Tensor, rectangles: Rectangles) -> tuple[Tensor, ...]:
        kinds, heads = x_TNHK.shape[1:3]
        index, _ = rectangles.indices(heads, kinds)
        ctx.index, ctx.shape = index, x_TNHK.shape  # type: ignore[attr-defined]
        shapes = [
            tokens_BN.shape
            for block in rectangles.blocks
            for tokens_BN in (block.queries_BQ, block.slots_BL, block.slots_BL)[-kinds:]
        ]
        return _to_slots(x_TNHK, index, shapes)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        return _from_slots(grads, ctx.index).view(ctx.shape), None  # type: ignore[attr-defined]


class _Join(torch.autograd.Function):
    """The outputs [B, Q, H, K] of each rectangle -> [P, H, K]."""

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
    """For each shape [B, N], a tensor [B, N, H, K] of rows of x [..., H, K]; 0 in empty slots.

    In memory it is [B, H, N, K], so that batched matrix products need no copy.
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
    """[rows, K]: each row from its slot in `parts` [B, N, H, K]; zeros for rows in no slot."""
    width = parts[0].shape[-1]
    slots = [part.transpose(1, 2).reshape(-1, width) for part in parts]
    return torch.cat([*slots, slots[0].new_zeros(1, width)]).index_select(0, index.slot_of_row)


@dataclass(frozen=True)
class SoftmaxCore:
    """softmax(q k' / sqrt(K) + bias) v, with dropout on the weights."""

    causal: bool
    """Whether a query sees only the keys of its own token and of older ones."""
    dropout: float = 0.0
    """Probability of dropping an attention weight."""
    bias: Bias | None = None
    """What is added to the scaled scores; None: nothing."""

    def __call__(
        self, q_BQHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, rectangle: Rectangle
    ) -> Tensor:
        """[B, Q, H, K]: see `Core`."""
        q, k, v = q_BQHK.transpose(1, 2), k_BLHK.transpose(1, 2), v_BLHK.transpose(1, 2)
        bias = None if self.bias is None else self.bias(rectangle)
        # If query q is the token in slot q, the kernel's triangular mask hides newer tokens, and
        # empty slots with them; no mask has to be formed.
        triangular = self.causal and rectangle.reads_all and bias is None
        visible = None if triangular else rectangle.visible(self.causal)
        if visible is not None:
            # log of True and False: 0 where a query sees a key, minus infinity elsewhere
            # (docs/pitfalls.md, "finite mask constants").
            hidden = visible[:, None].to(q.dtype).log_()
            bias = hidden if bias is None else bias + hidden
        if self.dropout == 0.0 or q.device.type != "cpu":
            return _torch_attention(q, k, v, bias, triangular, self.dropout).transpose(1, 2)
        # In fp32 at least, as torch's kernels do not round scores and their softmax either.
        wide = torch.promote_types(q.dtype, torch.float32)
        if bias is not None:
            bias = bias.to(wide).expand(*q.shape[:3], k.shape[2])
        with without_autocast(q):
            output = tiled_attention(
                q.to(wide), k.to(wide), v.to(wide), bias,
                triangular=triangular, dropout=self.dropout,
            )  # fmt: skip
        return output.to(q.dtype).transpose(1, 2)


def _torch_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, triangular: bool, dropout: float
) -> Tensor:
    """torch's attention: q [B, H, Q, K], k and v [B, H, L, K] -> [B, H, Q, K].

    `bias` is added to the scaled scores, and is minus infinity where a key is hidden.
    """
    if bias is not None:
        bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    if q.shape[0] <= MAX_SEQUENCES:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=triangular
        )
    outputs = [
        F.scaled_dot_product_attention(
            q[first : first + MAX_SEQUENCES],
            k[first : first + MAX_SEQUENCES],
            v[first : first + MAX_SEQUENCES],
            attn_mask=None if bias is None else bias[first : first + MAX_SEQUENCES],
            dropout_p=dropout,
            is_causal=triangular,
        )
        for first in range(0, len(q), MAX_SEQUENCES)
    ]
    return torch.cat(outputs)
