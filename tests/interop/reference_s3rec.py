"""S3-Rec's model as its authors lay it out: padded rows and keys as in its state dict.

Written from a description of the published code; nothing of ours is imported. Rows are padded on
the left with item 0 to the length of the position table, and an additive mask hides the padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
HIDDEN = -10000.0


def padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    """int64 [B, L]: the newest L raw item ids of each row, zeros on the left."""
    kept = [list(row)[-length:] for row in rows]
    return torch.tensor([[0] * (length - len(row)) + row for row in kept])


def dense(state: State, name: str, x: Tensor) -> Tensor:
    """W x + b."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """LayerNorm over the last dimension, eps 1e-12."""
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    normed = (x - mean) / torch.sqrt(variance + 1e-12)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention_mask(items_BL: Tensor, causal: bool) -> Tensor:
    """[B, 1, L, L]: 0 where a query may look, -10000 at padding and, causally, at what follows."""
    length = items_BL.shape[1]
    seen = (items_BL > 0)[:, None, None, :].expand(-1, 1, length, length)
    if causal:
        seen = seen & torch.ones(length, length).tril().bool()
    return torch.zeros(seen.shape).masked_fill(~seen, HIDDEN)


def states(state: State, items_BL: Tensor, *, heads: int, causal: bool) -> Tensor:
    """[B, L, D]: hidden states of every place, those of padding included, without dropout."""
    batch, length = items_BL.shape
    x = state["item_embeddings.weight"][items_BL] + state["position_embeddings.weight"][:length]
    x = norm(state, "LayerNorm", x)
    mask = attention_mask(items_BL, causal)
    layer = 0
    while f"item_encoder.layer.{layer}.attention.query.weight" in state:
        stem = f"item_encoder.layer.{layer}"
        query, key, value = (
            dense(state, f"{stem}.attention.{name}", x)
            .view(batch, length, heads, -1)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + mask
        mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(batch, length, -1)
        mixed = dense(state, f"{stem}.attention.dense", mixed)
        x = norm(state, f"{stem}.attention.LayerNorm", mixed + x)
        inner = dense(state, f"{stem}.intermediate.dense_1", x)
        inner = inner * 0.5 * (1.0 + torch.erf(inner / math.sqrt(2.0)))
        x = norm(
            state,
            f"{stem}.intermediate.LayerNorm",
            dense(state, f"{stem}.intermediate.dense_2", inner) + x,
        )
        layer += 1
    return x


def scores(state: State, items_BL: Tensor, *, heads: int) -> Tensor:
    """[B, V + 2]: the newest place's causal state against the whole item table."""
    newest_BD = states(state, items_BL, heads=heads, causal=True)[:, -1]
    return newest_BD @ state["item_embeddings.weight"].T
