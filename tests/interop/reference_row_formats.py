"""RecBole's SASRec and BERT4Rec and gSASRec, item by item in plain loops; nothing of ours is used.

Written from the papers (Kang and McAuley 2018; Sun et al. 2019; Petrov and Macdonald 2023) and the
names of the released weights. A history has the row numbers of its items, oldest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


def recbole_sasrec_scores(state: State, history: Sequence[int], heads: int) -> Tensor:
    """[rows]: the scores of all rows of the item table."""
    table = state["item_embedding.weight"]
    newest = list(history)[-len(state["position_embedding.weight"]) :]
    hidden = _recbole_states(state, newest, heads, causal=True)
    return torch.stack([(row * hidden[-1]).sum() for row in table])


def recbole_bert4rec_scores(state: State, history: Sequence[int], heads: int) -> Tensor:
    """[V + 1]: the scores of the padding and of all items, asked by a mask after the history."""
    table, bias = state["item_embedding.weight"], state["output_bias"]
    mask = len(table) - 1
    places = len(state["position_embedding.weight"])
    newest = [*list(history)[-(places - 1) :], mask]
    hidden = _recbole_states(state, newest, heads, causal=False)[-1]
    hidden = _norm(state, "output_ln", _gelu(_dense(state, "output_ffn", hidden)), 1e-12)
    return torch.stack([(table[row] * hidden).sum() + bias[row] for row in range(mask)])


def _recbole_states(state: State, rows: Sequence[int], heads: int, *, causal: bool) -> list[Tensor]:
    table, places = state["item_embedding.weight"], state["position_embedding.weight"]
    hidden = [
        _norm(state, "LayerNorm", table[row] + places[place], 1e-12)
        for place, row in enumerate(rows)
    ]
    layers = sum(key.endswith("feed_forward.dense_1.bias") for key in state)
    for layer in range(layers):
        part = f"trm_encoder.layer.{layer}.multi_head_attention"
        names = [f"{part}.{name}" for name in ("query", "key", "value")]
        mixed = _attention(state, names, hidden, hidden, heads, causal=causal)
        inner = [
            _norm(state, f"{part}.LayerNorm", _dense(state, f"{part}.dense", mix) + own, 1e-12)
            for mix, own in zip(mixed, hidden, strict=True)
        ]
        part = f"trm_encoder.layer.{layer}.feed_forward"
        hidden = [
            _norm(
                state,
                f"{part}.LayerNorm",
                _dense(state, f"{part}.dense_2", _gelu(_dense(state, f"{part}.dense_1", own)))
                + own,
                1e-12,
            )
            for own in inner
        ]
    return hidden


def gsasrec_scores(state: State, history: Sequence[int], heads: int) -> Tensor:
    """[V + 2]: the scores of all rows of the table that scores."""
    table, places = state["item_embedding.weight"], state["position_embedding.weight"]
    newest = list(history)[-len(places) :]
    # The newest item is in the last place, as padding stands on the left.
    first = len(places) - len(newest)
    hidden = [table[row] + places[first + place] for place, row in enumerate(newest)]
    blocks = sum(key.endswith("dense1.bias") for key in state)
    for block in range(blocks):
        stem = f"transformer_blocks.{block}"
        queries = [_norm(state, f"{stem}.first_norm", own, 1e-5) for own in hidden]
        names = [
            f"{stem}.multihead_attention.{name}" for name in ("query_proj", "key_proj", "val_proj")
        ]
        mixed = _attention(state, names, queries, hidden, heads, causal=True)
        inner = [
            _norm(state, f"{stem}.second_norm", mix + query, 1e-5)
            for mix, query in zip(mixed, queries, strict=True)
        ]
        hidden = [
            own + _dense(state, f"{stem}.dense2", _dense(state, f"{stem}.dense1", own).clamp(min=0))
            for own in inner
        ]
    last = _norm(state, "seq_norm", hidden[-1], 1e-5)
    scored = state.get("output_embedding.weight", table)
    return torch.stack([(row * last).sum() for row in scored])


def _attention(
    state: State,
    names: Sequence[str],
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    heads: int,
    *,
    causal: bool,
) -> list[Tensor]:
    query, key, value = names
    outputs = []
    for place, asked in enumerate(queries):
        seen = keys[: place + 1] if causal else keys
        parts = []
        for head in range(heads):
            share = slice(len(asked) // heads * head, len(asked) // heads * (head + 1))
            q = _dense(state, query, asked)[share]
            scores = [
                float((q * _dense(state, key, each)[share]).sum()) / math.sqrt(len(q))
                for each in seen
            ]
            shares = [math.exp(score - max(scores)) for score in scores]
            parts.append(
                sum(
                    weight / sum(shares) * _dense(state, value, each)[share]
                    for weight, each in zip(shares, seen, strict=True)
                )
            )
        outputs.append(torch.cat([torch.as_tensor(part) for part in parts]))
    return outputs


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean()
    scaled = centred / math.sqrt(float((centred**2).mean()) + eps)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))
