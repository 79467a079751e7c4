"""What the state dicts of RecBole's SASRec and BERT4Rec, and of gSASRec-pytorch, look like.

All three number items from 1, and their item table has a row 0 that is padding or unused. Which
item row n is, the file does not say (`row_model.py`).

- RecBole 1.2 (`recbole/model/sequential_recommender`): post-norm blocks, positions from the oldest
  item. BERT4Rec has a last row for the mask, and a head with a bias for each item.
- gSASRec-pytorch (asash/gSASRec-pytorch): SASRec's own block without an output projection, ReLU, a
  last norm, positions from the newest item (it pads on the left). Its last row is padding. With
  `reuse_item_embeddings=False` it scores by a table of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from research.interop.foreign import check_keys, check_shapes, check_tables, num_layers
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig

ITEMS, POSITIONS, OUTPUT, BIAS = (
    "item_embedding.weight",
    "position_embedding.weight",
    "output_embedding.weight",
    "output_bias",
)
_RECBOLE_BLOCK = {
    "multi_head_attention.query": ("qkv", 0),
    "multi_head_attention.key": ("qkv", 1),
    "multi_head_attention.value": ("qkv", 2),
    "multi_head_attention.dense": ("output", 0),
    "multi_head_attention.LayerNorm": ("attention_norm", 0),
    "feed_forward.dense_1": ("inner", 0),
    "feed_forward.dense_2": ("outer", 0),
    "feed_forward.LayerNorm": ("feed_forward_norm", 0),
}
_GSASREC_BLOCK = {
    "first_norm": ("attention_norm", 0),
    "second_norm": ("feed_forward_norm", 0),
    "multihead_attention.query_proj": ("qkv", 0),
    "multihead_attention.key_proj": ("qkv", 1),
    "multihead_attention.val_proj": ("qkv", 2),
    "dense1": ("inner", 0),
    "dense2": ("outer", 0),
}


@dataclass(frozen=True)
class RowSizes:
    """The sizes of a model, as the shapes of its state dict show them."""

    num_items: int
    """V, the number of items."""
    width: int
    """D, the width of states and embeddings."""
    layers: int
    """Number of transformer blocks."""
    length: int
    """Number of positions: the most items that the encoder reads."""
    inner: int
    """F, the inner width of the feed-forward part."""
    own_table: bool
    """Whether items are scored by a table of their own."""


@dataclass(frozen=True)
class RowFormat:
    """What the state dicts of one program's model look like, and what they are here."""

    kind: str
    """The program and its model, for messages."""
    stem: str
    """What the keys of block N begin with, before "N."."""
    block: Mapping[str, tuple[str, int]]
    """By module of a block: ours, and which third of it (queries, keys or values)."""
    inner: str
    """The module of a block with the inner width."""
    modules: Mapping[str, str]
    """By module outside the blocks, ours."""
    last_rows: int
    """Rows of the item table after the items."""
    masked: bool
    """Whether the row after the items is the mask's."""
    newest: bool
    """Whether the last position is the newest item's."""
    encoder: Callable[[RowSizes, int], TransformerConfig]
    """The encoder's config, by sizes and number of heads."""
    objective: Callable[[bool], ObjectiveConfig]
    """The objective that ranks, by whether items are scored by a table of their own."""
    implied: str
    """What the state dict does not say and is taken for granted, for the report."""

    @property
    def key(self) -> str:
        """The key of the objective in the stage."""
        return "cloze" if self.masked else "next"

    @property
    def block_pattern(self) -> re.Pattern[str]:
        """Matches the keys of blocks: number and rest."""
        return re.compile(rf"{re.escape(self.stem)}\.(\d+)\.(.+)")

    def shapes(self, sizes: RowSizes) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by key."""
        width, inner = sizes.width, sizes.inner
        table = (sizes.num_items + 1 + self.last_rows, width)
        shapes: dict[str, tuple[int, ...]] = {ITEMS: table, POSITIONS: (sizes.length, width)}
        if sizes.own_table:
            shapes[OUTPUT] = table
        if self.masked:
            shapes[BIAS] = (sizes.num_items + 1,)
        modules = {
            f"{self.stem}.{layer}.{name}": ours
            for layer in range(sizes.layers)
            for name, (ours, _) in self.block.items()
        }
        for name, ours in (modules | dict(self.modules)).items():
            shape: tuple[int, ...] = (width,) if ours.endswith("norm") else (width, width)
            shape = {"inner": (inner, width), "outer": (width, inner)}.get(ours, shape)
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def read_sizes(self, state: Mapping[str, Tensor], path: Path) -> RowSizes:
        """The sizes of a state dict; `InputError` for keys or shapes not of the format."""
        layers = num_layers(state, self.block_pattern)
        own_table = OUTPUT in state and self.newest
        expected = list(self.shapes(RowSizes(1, 1, layers, 1, 1, own_table)))
        check_keys(state, expected, path, self.kind, layers)
        inner = f"{self.stem}.0.{self.inner}.weight"
        check_tables(state, {ITEMS: 2 + self.last_rows, POSITIONS: 1, inner: 1}, path)
        rows, width = state[ITEMS].shape
        length, inner_width = state[POSITIONS].shape[0], state[inner].shape[0]
        sizes = RowSizes(rows - 1 - self.last_rows, width, layers, length, inner_width, own_table)
        check_shapes(state, self.shapes(sizes), path, f"{ITEMS} {(rows, width)}")
        return sizes

    def module_of(self, stem: str) -> tuple[str, int]:
        """Our module for a dense layer or norm of theirs, and which third of it."""
        match = self.block_pattern.fullmatch(stem)
        if match is None:
            return self.modules[stem], 0
        name, third = self.block[match[2]]
        return f"encoder.blocks.{match[1]}.{name}", third


def _sized(sizes: RowSizes, heads: int) -> TransformerConfig:
    return TransformerConfig(
        length=sizes.length,
        width=sizes.width,
        layers=sizes.layers,
        heads=heads,
        feed_forward=sizes.inner,
    )


def _recbole_encoder(sizes: RowSizes, heads: int) -> TransformerConfig:
    return replace(
        _sized(sizes, heads),
        activation="gelu",
        block=PostNorm(),
        norm_eps=1e-12,
        positions=LearnedPositions(count_from="oldest"),
    )


def _gsasrec_encoder(sizes: RowSizes, heads: int) -> TransformerConfig:
    return replace(
        _sized(sizes, heads),
        activation="relu",
        block=QueryNorm(),
        output_projection=False,
        embedding_norm=False,
        final_norm=True,
        norm_eps=1e-5,
        positions=LearnedPositions(count_from="newest"),
    )


def _next_item(own_table: bool) -> ObjectiveConfig:
    return NextItemConfig(head=HeadConfig(table="own" if own_table else "tied"))


def _recbole_cloze(own_table: bool) -> ObjectiveConfig:
    return ClozeConfig(head=HeadConfig(bias=True, transform="nonlinear"))


_RECBOLE_IMPLIED = "hidden_act gelu and layer_norm_eps 1e-12, RecBole's defaults"
ROW_FORMATS: Mapping[str, RowFormat] = {
    "recbole-sasrec": RowFormat(
        kind="RecBole SASRec",
        stem="trm_encoder.layer",
        block=_RECBOLE_BLOCK,
        inner="feed_forward.dense_1",
        modules={"LayerNorm": "encoder.embedding_norm"},
        last_rows=0,
        masked=False,
        newest=False,
        encoder=_recbole_encoder,
        objective=_next_item,
        implied=_RECBOLE_IMPLIED,
    ),
    "recbole-bert4rec": RowFormat(
        kind="RecBole BERT4Rec",
        stem="trm_encoder.layer",
        block=_RECBOLE_BLOCK,
        inner="feed_forward.dense_1",
        modules={
            "LayerNorm": "encoder.embedding_norm",
            "output_ffn": "objectives.cloze.head.dense",
            "output_ln": "objectives.cloze.head.norm",
        },
        last_rows=1,
        masked=True,
        newest=False,
        encoder=_recbole_encoder,
        objective=_recbole_cloze,
        implied=f"{_RECBOLE_IMPLIED}; a history shorter than the longest keeps its oldest item, "
        "which RecBole drops when it ranks",
    ),
    "gsasrec": RowFormat(
        kind="gSASRec-pytorch",
        stem="transformer_blocks",
        block=_GSASREC_BLOCK,
        inner="dense1",
        modules={"seq_norm": "encoder.final_norm"},
        last_rows=1,
        masked=False,
        newest=True,
        encoder=_gsasrec_encoder,
        objective=_next_item,
        implied="ReLU in the feed-forward part, which its first versions lack",
    ),
}
