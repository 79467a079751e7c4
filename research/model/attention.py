"""The one door to attention, and the one place that may pad.

`attention` takes packed queries, keys and values and gives packed outputs; no token sees another
sequence's tokens, and under `causal` none sees a newer one. The core is torch's
scaled_dot_product_attention (Vaswani et al. 2017, eq. 1); with attention dropout on a CPU it is
spelled out, because torch's dropout would cost more than the attention itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.dropout import fill_kept
from research.model.precision import without_autocast
from research.packed import Packed, pad, unpad

# Attention scores of one tile of `_TiledAttention`: 1 MB in fp32, so that a tile stays in cache.
SCORES_TILE = 1 << 18
# Sequences of one call of torch's kernels: the grid of a GPU has no more room (pytorch#142228).
MOST_SEQUENCES = (1 << 16) - 1


def attention(
    q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, packed: Packed, *, causal: bool, dropout: float
) -> Tensor:
    """Attention within each sequence of `packed`: [T, H, K] x 3 -> [T, H, K].

    `dropout` is the probability of dropping an attention weight; 0 outside training.
    """
    rectangles = packed.rectangles
    qkv_C3HK = pad(torch.stack([q_THK, k_THK, v_THK], dim=1), rectangles)
    sizes = [sequences * length for sequences, length in rectangles.shapes]
    outputs = []
    blocks = zip(torch.split(qkv_C3HK, sizes), rectangles.shapes, rectangles.lengths)
    for block_C3HK, (sequences, length), lengths_S in blocks:
        q, k, v = rearrange(block_C3HK, "(S L) three H K -> three S H L K", S=sequences).unbind()
        mask = None
        if lengths_S is not None and not causal:
            # Padding stands after a sequence's tokens, so a causal mask alone hides it.
            slots_L = torch.arange(length, device=lengths_S.device)
            # An empty sequence keeps one (zero) slot, so that no softmax is over nothing.
            mask = rearrange(slots_L < lengths_S.clamp(min=1)[:, None], "S L -> S 1 1 L")
        if dropout > 0.0 and q.device.type == "cpu":
            # In fp32 at least: torch's kernels round neither scores nor their softmax.
            wide = torch.promote_types(q.dtype, torch.float32)
            with without_autocast(q):
                output = _spelled_out(q.to(wide), k.to(wide), v.to(wide), mask, causal, dropout)
            output = output.to(q.dtype)
        else:
            output = _fused(q, k, v, mask, causal, dropout)
        outputs.append(rearrange(output, "S H L K -> (S L) H K"))
    if not outputs:
        return v_THK
    return unpad(torch.cat(outputs), rectangles)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """torch's own attention; [S, H, L, K] in and out."""
    outputs = [
        F.scaled_dot_product_attention(
            q[first : first + MOST_SEQUENCES],
            k[first : first + MOST_SEQUENCES],
            v[first : first + MOST_SEQUENCES],
            attn_mask=None if mask is None else mask[first : first + MOST_SEQUENCES],
            dropout_p=dropout,
            is_causal=causal,
        )
        for first in range(0, len(q), MOST_SEQUENCES)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class _TiledAttention(torch.autograd.Function):
    """softmax(q k' + bias) v with dropout on the weights, a few rows at a time.

    A row is a head of a sequence. Only which weights were dropped is kept for the backward pass;
    the weights are formed again, which costs less than writing and reading them.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, q_RLK: Tensor, k_RLK: Tensor, v_RLK: Tensor, bias: Tensor, dropout: float
    ) -> Tensor:
        rows, length, _ = q_RLK.shape
        kept = torch.empty(rows, length, length, dtype=torch.bool)
        output = torch.empty_like(v_RLK)
        scale = 1.0
        for tile in _tiles(rows, length):
            weights = _weights(q_RLK[tile], k_RLK[tile], bias[tile])
            scale = fill_kept(kept[tile], dropout)
            torch.bmm(weights.mul_(kept[tile]), v_RLK[tile], out=output[tile])
        ctx.save_for_backward(q_RLK, k_RLK, v_RLK, bias, kept)
        ctx.scale = scale  # type: ignore[attr-defined]
        return output.mul_(scale)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_RLK, k_RLK, v_RLK, bias, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grad * ctx.scale  # type: ignore[attr-defined]
        grad_q, grad_k, grad_v = (torch.empty_like(part) for part in (q_RLK, k_RLK, v_RLK))
        for tile in _tiles(*q_RLK.shape[:2]):
            weights = _weights(q_RLK[tile], k_RLK[tile], bias[tile])
            grad_weights = torch.bmm(grad[tile], v_RLK[tile].mT).mul_(kept[tile])
            grad_scores = torch.ops.aten._softmax_backward_data(
                grad_weights, weights, -1, weights.dtype
            )
            torch.bmm(weights.mul_(kept[tile]).mT, grad[tile], out=grad_v[tile])
            torch.bmm(grad_scores, k_RLK[tile], out=grad_q[tile])
            torch.bmm(grad_scores.mT, q_RLK[tile], out=grad_k[tile])
        return grad_q, grad_k, grad_v, None, None


def _tiles(rows: int, length: int) -> list[slice]:
    size = max(1, SCORES_TILE // (length * length))
    return [slice(first, first + size) for first in range(0, rows, size)]


def _weights(q_RLK: Tensor, k_RLK: Tensor, bias: Tensor) -> Tensor:
    """Attention weights [R, L, L] of a tile before dropout."""
    return torch.softmax(torch.bmm(q_RLK, k_RLK.mT).add_(bias), dim=-1)


def _spelled_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """softmax(q k' / sqrt(K)) v with dropout on the weights; [S, H, L, K] in and out."""
    sequences, heads, length, width = q.shape
    bias = q.new_zeros(1, 1, 1, 1)
    if causal:
        bias = bias + q.new_full((length, length), -torch.inf).triu_(1)
    if mask is not None:
        bias = bias + torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    bias = bias.expand(sequences, heads, *bias.shape[-2:]).flatten(0, 1)
    if mask is None:
        bias = bias[:1].expand(sequences * heads, -1, -1)
    rows = [rearrange(part, "S H L K -> (S H) L K").contiguous() for part in (q, k, v)]
    output_RLK: Tensor = _TiledAttention.apply(  # type: ignore[no-untyped-call]
        rows[0] * width**-0.5, rows[1], rows[2], bias, dropout
    )
    return rearrange(output_RLK, "(S H) L K -> S H L K", S=sequences)
