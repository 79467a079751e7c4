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

from research.model.dropout import keep_scales
from research.packed import Packed, pad, unpad


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
            output = _spelled_out(q, k, v, mask, causal, dropout)
        else:
            output = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
            )
        outputs.append(rearrange(output, "S H L K -> (S L) H K"))
    if not outputs:
        return v_THK
    return unpad(torch.cat(outputs), rectangles)


def _spelled_out(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """softmax(q k' / sqrt(K)) v with dropout on the weights; [S, H, L, K] in and out."""
    length = q.shape[-2]
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if causal:
        future = torch.full((length, length), -torch.inf, dtype=q.dtype).triu_(1)
        scores = scores + future
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    return torch.matmul(weights * keep_scales(weights, dropout), v)
