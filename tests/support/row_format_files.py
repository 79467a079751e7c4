"""State dicts of RecBole's and gSASRec-pytorch's models, in their own names and shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.s3rec_files import NUM_ITEMS

WIDTH, LENGTH, LAYERS, HEADS, INNER = 8, 9, 2, 2, 12


def recbole_state(*, bert: bool, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of RecBole's BERT4Rec or SASRec, norms and biases included."""
    draws = _Draws(seed)
    state: dict[str, Tensor] = {"output_bias": draws(NUM_ITEMS + 1)} if bert else {}
    state["item_embedding.weight"] = draws(NUM_ITEMS + 1 + bert, WIDTH)
    state["position_embedding.weight"] = draws(LENGTH, WIDTH)
    for layer in range(LAYERS):
        stem = f"trm_encoder.layer.{layer}"
        for name in ("query", "key", "value", "dense"):
            state |= draws.dense(f"{stem}.multi_head_attention.{name}", WIDTH, WIDTH)
        state |= draws.norm(f"{stem}.multi_head_attention.LayerNorm")
        state |= draws.dense(f"{stem}.feed_forward.dense_1", INNER, WIDTH)
        state |= draws.dense(f"{stem}.feed_forward.dense_2", WIDTH, INNER)
        state |= draws.norm(f"{stem}.feed_forward.LayerNorm")
    state |= draws.norm("LayerNorm")
    if bert:
        state |= draws.dense("output_ffn", WIDTH, WIDTH) | draws.norm("output_ln")
    return state


def gsasrec_state(*, own_table: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of gSASRec-pytorch's model, norms and biases included."""
    draws = _Draws(seed)
    state = {
        "item_embedding.weight": draws(NUM_ITEMS + 2, WIDTH),
        "position_embedding.weight": draws(LENGTH, WIDTH),
    }
    for block in range(LAYERS):
        stem = f"transformer_blocks.{block}"
        state |= draws.norm(f"{stem}.first_norm") | draws.norm(f"{stem}.second_norm")
        for name in ("query_proj", "key_proj", "val_proj"):
            state |= draws.dense(f"{stem}.multihead_attention.{name}", WIDTH, WIDTH)
        for name in ("dense1", "dense2"):
            state |= draws.dense(f"{stem}.{name}", WIDTH, WIDTH)
    state |= draws.norm("seq_norm")
    if own_table:
        state["output_embedding.weight"] = draws(NUM_ITEMS + 2, WIDTH)
    return state


class _Draws:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator) * 0.4

    def dense(self, key: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        return {f"{key}.weight": self(outputs, inputs), f"{key}.bias": self(outputs)}

    def norm(self, key: str) -> dict[str, Tensor]:
        return {f"{key}.weight": 1 + self(WIDTH), f"{key}.bias": self(WIDTH)}
