"""The state dict of S3-Rec's code (Zhou et al. 2020; RUCAIBox/CIKM2020-S3Rec), key by key.

Each tensor of the format is some rows of one of our parameters. One table of rows (`entries`)
therefore serves import and export, and both are exact. The format's item table has a padding row 0,
rows 1..V for V items, and the mask's row V + 1; its attribute table has a row 0 and rows 1..A for A
attributes. `import_export.py` uses this; `s3rec_checks.py` refuses what the format cannot express.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from research.errors import InputError
from research.interop.foreign import Entry, rows_in_parameter
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
# For each module of their block, ours, and which third of it (queries, keys or values of the fused
# projection); 0 also where ours is not fused.
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
# The parameters that hold rows 0 here. Only a stage that scores those classes, as published, has
# them.
ZERO_ROWS = {ITEMS: "objectives.next.head.padding_row", ATTRIBUTES: "shared.zero.row"}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, as the shapes of its state dict show them."""

    num_items: int
    """V, the number of items."""
    num_attributes: int
    """A, the number of attributes."""
    width: int
    """D, the width of states and embeddings."""
    layers: int
    """Number of transformer blocks."""
    length: int
    """Number of positions: the most items that the encoder reads."""
    inner: int
    """F, the inner width of the feed-forward part."""

    def encoder(self, heads: int) -> TransformerConfig:
        """The config of the published encoder with these sizes and `heads` attention heads."""
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
    """The configs, by key, of the four objectives that the format has heads for, and of next item.

    The stage ranks by next item. With `special_classes` the padding and the mask are ranked among
    the items, as in S3-Rec's own full ranking.
    """
    return {
        "next": NextItemConfig(head=HeadConfig(special_classes=special_classes)),
        "aap": AAPConfig(),
        "mip": MIPConfig(),
        "map": MAPConfig(),
        "sp": SPConfig(),
    }


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by key, in the format's order."""
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


def entries(sizes: Sizes, items_V: Tensor, attributes_A: Tensor) -> list[Entry]:
    """The table of all tensors, in the format's order.

    `items_V` and `attributes_A` are int64: for each of our items and attributes, in the order of
    dense ids, its row in the format, from 1.
    """
    table = []
    for key, shape in shapes_of(sizes).items():
        file_rows = parameter_rows = torch.arange(shape[0])
        parameter = _TABLES.get(key, "")
        rows = shape[0]
        if key == ITEMS:
            mask = torch.tensor([sizes.num_items + 1])
            file_rows = torch.cat([items_V, mask])
            parameter_rows, rows = parameter_rows[:-1], rows - 1
            description = f"{parameter}, rows by raw item id, the mask's last"
        elif key == ATTRIBUTES:
            file_rows, parameter_rows, rows = attributes_A, parameter_rows[:-1], rows - 1
            description = f"{parameter}, rows by raw attribute id"
        elif key == POSITIONS:
            file_rows = file_rows.flip(0)
            description = f"{parameter}, rows in reverse"
        else:
            stem, _, part = key.rpartition(".")
            module, third = _module_of(stem)
            parameter = f"{module}.{part}"
            rows, parameter_rows, description = rows_in_parameter(parameter, shape[0], third)
        table.append(
            Entry(
                key=key,
                shape=shape,
                file_rows=file_rows,
                parameter=parameter,
                parameter_shape=(rows, *shape[1:]),
                parameter_rows=parameter_rows,
                description=description,
            )
        )
    return table


def _module_of(stem: str) -> tuple[str, int]:
    """Our module for a dense layer or norm of theirs, and which third of it (0 if it is whole)."""
    block = BLOCK.fullmatch(stem)
    if block is None:
        return _MODULES[stem], 0
    name, third = _BLOCK_MODULES[block[2]]
    return f"encoder.blocks.{block[1]}.{name}", third


def to_state_dict(
    weights: Mapping[str, Tensor], zero_rows: Mapping[str, Tensor], table: list[Entry]
) -> dict[str, Tensor]:
    """The state dict, float32, by key, from our parameters `weights` by name.

    `zero_rows` holds rows 0, [D] each, by key. Parameters that `weights` lacks, and rows 0 that
    `zero_rows` lacks, are zeros. `InputError` for a parameter of another shape than in `table`.
    """
    state: dict[str, Tensor] = {}
    for entry in table:
        tensor = torch.zeros(entry.shape)
        if entry.parameter in weights:
            weight = weights[entry.parameter]
            if tuple(weight.shape) != entry.parameter_shape:
                raise InputError(
                    f"{entry.parameter} has shape {tuple(weight.shape)}, but the run's config says "
                    f"{entry.parameter_shape}; the checkpoint is of another run"
                )
            tensor[entry.file_rows] = weight[entry.parameter_rows].float()
        if entry.key in zero_rows:
            tensor[0] = zero_rows[entry.key].float()
        state[entry.key] = tensor
    return state
