"""The state dict of S3-Rec's code (Zhou et al. 2020; RUCAIBox/CIKM2020-S3Rec), key by key.

Each of its tensors is some rows of one of our parameters, so that both directions are the same
table of rows, and exact. What the format cannot say is refused in `s3rec_checks.py`. It has V items
1..V beside a padding row 0 and the mask's row V + 1, and A attributes 1..A beside a row 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from research.errors import InputError
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.head import HeadConfig
from research.objectives.map import MAPConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig

ITEMS = "item_embeddings.weight"
ATTRIBUTES = "attribute_embeddings.weight"
POSITIONS = "position_embeddings.weight"
INNER = "item_encoder.layer.0.intermediate.dense_1.weight"
BLOCK = re.compile(r"item_encoder\.layer\.(\d+)\.(.+)")
# The modules of a block here, and the third of the fused projection that is theirs.
_BLOCK_MODULES = {
    "attention.query": ("qkv", 0),
    "attention.key": ("qkv", 1),
    "attention.value": ("qkv", 2),
    "attention.dense": ("output", 0),
    "attention.LayerNorm": ("attention_norm", 0),
    "intermediate.dense_1": ("inner", 0),
    "intermediate.dense_2": ("outer", 0),
    "intermediate.LayerNorm": ("feed_forward_norm", 0),
}
_MODULES = {
    "LayerNorm": "encoder.embedding_norm",
    "aap_norm": "objectives.aap.head.dense",
    "mip_norm": "objectives.mip.head.dense",
    "map_norm": "objectives.map.head.dense",
    "sp_norm": "objectives.sp.dense",
}
_TABLES = {
    ITEMS: "encoder.item_table.weight",
    ATTRIBUTES: "shared.attributes.attribute_table.weight",
    POSITIONS: "encoder.positions.weight",
}
# Rows 0 have a place here only in a stage that scores those classes, as published.
ZERO_ROWS = {ITEMS: "objectives.next.head.padding_row", ATTRIBUTES: "shared.zero.row"}


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a state dict say."""

    num_items: int
    """V."""
    num_attributes: int
    """A."""
    width: int
    """D."""
    layers: int
    length: int
    inner: int
    """Inner width of the feed-forward part."""

    def encoder(self, heads: int) -> TransformerConfig:
        """The published encoder of these sizes."""
        return TransformerConfig(
            length=self.length,
            width=self.width,
            layers=self.layers,
            heads=heads,
            feed_forward=self.inner,
            activation="gelu",
            block=PostNorm(),
            norm_eps=1e-12,
            positions=LearnedPositions(count_from="newest"),
            dropout=0.5,
        )


def objectives(special_classes: bool) -> dict[str, ObjectiveConfig]:
    """What the format has heads for, and the next item, by which it is ranked.

    With `special_classes` padding and mask compete there, as in S3-Rec's own full ranking.
    """
    return {
        "next": NextItemConfig(head=HeadConfig(special_classes=special_classes)),
        "aap": AAPConfig(),
        "mip": MIPConfig(),
        "map": MAPConfig(),
        "sp": SPConfig(),
    }


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The shape of every key, in the format's order."""
    width, inner = sizes.width, sizes.inner
    norm, square = (width,), (width, width)
    modules: dict[str, tuple[int, ...]] = {"LayerNorm": norm}
    for layer in range(sizes.layers):
        stem = f"item_encoder.layer.{layer}"
        for name in _BLOCK_MODULES:
            modules[f"{stem}.{name}"] = norm if name.endswith("LayerNorm") else square
        modules[f"{stem}.intermediate.dense_1"] = (inner, width)
        modules[f"{stem}.intermediate.dense_2"] = (width, inner)
    modules |= {name: square for name in _MODULES if name != "LayerNorm"}
    shapes: dict[str, tuple[int, ...]] = {
        ITEMS: (sizes.num_items + 2, width),
        ATTRIBUTES: (sizes.num_attributes + 1, width),
        POSITIONS: (sizes.length, width),
    }
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


@dataclass(frozen=True, eq=False)
class Entry:
    """One tensor of the format: its rows `theirs` are the rows `ours` of one of our parameters."""

    key: str
    shape: tuple[int, ...]
    theirs: Tensor
    parameter: str
    parameter_shape: tuple[int, ...]
    ours: Tensor
    said: str
    """Where it stands here, for people."""


def entries(sizes: Sizes, items_V: Tensor, attributes_A: Tensor) -> list[Entry]:
    """Every tensor's place; `items_V` and `attributes_A` are our rows' numbers, from 1."""
    made = []
    for key, shape in shapes_of(sizes).items():
        theirs = ours = torch.arange(shape[0])
        parameter, third = _TABLES.get(key, ""), 0
        rows = shape[0]
        if key == ITEMS:
            mask = torch.tensor([sizes.num_items + 1])
            theirs, ours, rows = torch.cat([items_V, mask]), ours[:-1], rows - 1
            said = f"{parameter}, rows by raw item id, the mask's last"
        elif key == ATTRIBUTES:
            theirs, ours, rows = attributes_A, ours[:-1], rows - 1
            said = f"{parameter}, rows by raw attribute id"
        elif key == POSITIONS:
            theirs = theirs.flip(0)
            said = f"{parameter}, rows in reverse"
        else:
            stem, _, part = key.rpartition(".")
            parameter, third = _module_of(stem)
            parameter = said = f"{parameter}.{part}"
            if ".qkv." in parameter:
                rows, ours = 3 * sizes.width, ours + third * sizes.width
                said += f", rows {int(ours[0])} to {int(ours[-1])}"
        whole = (rows, *shape[1:])
        made.append(Entry(key, shape, theirs, parameter, whole, ours, said))
    return made


def _module_of(stem: str) -> tuple[str, int]:
    """Our module of a dense layer or norm of theirs, and which third of it."""
    block = BLOCK.fullmatch(stem)
    if block is None:
        return _MODULES[stem], 0
    name, third = _BLOCK_MODULES[block[2]]
    return f"encoder.blocks.{block[1]}.{name}", third


def into_ours(state: Mapping[str, Tensor], table: list[Entry]) -> dict[str, Tensor]:
    """Our parameters, every row of them, from a checked state dict; rows 0 are left out."""
    weights: dict[str, Tensor] = {}
    for entry in table:
        if entry.parameter not in weights:
            weights[entry.parameter] = torch.full(entry.parameter_shape, torch.nan)
        weights[entry.parameter][entry.ours] = state[entry.key][entry.theirs]
    assert not any(bool(weight.isnan().any()) for weight in weights.values()), "a row is left out"
    return weights


def into_theirs(
    weights: Mapping[str, Tensor], zero_rows: Mapping[str, Tensor], table: list[Entry]
) -> dict[str, Tensor]:
    """The state dict; what `weights` lacks and a row 0 that is not in `zero_rows` are zeros.

    `zero_rows` [D] by key. `InputError` for a parameter of another shape than the sizes say.
    """
    state: dict[str, Tensor] = {}
    for entry in table:
        tensor = torch.zeros(entry.shape)
        if entry.parameter in weights:
            given = weights[entry.parameter]
            if tuple(given.shape) != entry.parameter_shape:
                raise InputError(
                    f"{entry.parameter} has shape {tuple(given.shape)}, but the run's config says "
                    f"{entry.parameter_shape}; the checkpoint is of another run"
                )
            tensor[entry.theirs] = given[entry.ours].float()
        if entry.key in zero_rows:
            tensor[0] = zero_rows[entry.key].float()
        state[entry.key] = tensor
    return state
