"""Checks that a file is of S3-Rec's format, and that a run can be written in it.

An import calls `read_sizes` for the file before it makes anything, an export calls
`expressible_encoder` for the run before it writes; both call `row_numbers` for the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from research.errors import InputError
from research.interop.foreign import check_keys, check_shapes, check_tables, num_layers
from research.interop.s3rec import ATTRIBUTES, BLOCK, INNER, ITEMS, POSITIONS, Sizes, shapes_of
from research.model.backbone import BackboneConfig
from research.model.item_table import ItemTableConfig
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm
from research.model.transformer_config import TransformerConfig, as_transformer
from research.objectives.base import ObjectiveConfig
from research.objectives.next_item import NextItemConfig

# The fields of an encoder that the format does not store, and the value that it implies.
_ALLOWED: dict[str, object] = {
    "block": PostNorm(),
    "activation": "gelu",
    "output_projection": True,
    "embedding_norm": True,
    "embedding_scale": False,
    "final_norm": False,
    "norm_eps": 1e-12,
    "positions": LearnedPositions(count_from="newest"),
    "segments": 0,
}
_HEAD: dict[str, object] = {
    "table": "tied",
    "bias": False,
    "transform": "none",
    "similarity": "dot",
    "temperature": 1.0,
}


def read_sizes(state: Mapping[str, Tensor], path: Path) -> Sizes:
    """The sizes of the model in a state dict; `InputError` for keys or shapes not of the format."""
    layers = num_layers(state, BLOCK)
    check_keys(state, list(shapes_of(Sizes(1, 1, 1, layers, 1, 1))), path, "S3-Rec", layers)
    check_tables(state, {ITEMS: 3, ATTRIBUTES: 1, POSITIONS: 1, INNER: 1}, path)
    sizes = Sizes(
        num_items=state[ITEMS].shape[0] - 2,
        num_attributes=state[ATTRIBUTES].shape[0] - 1,
        width=state[ITEMS].shape[1],
        layers=layers,
        length=state[POSITIONS].shape[0],
        inner=state[INNER].shape[0],
    )
    beside = f"{ITEMS} {tuple(state[ITEMS].shape)} and {INNER} {tuple(state[INNER].shape)}"
    check_shapes(state, shapes_of(sizes), path, beside)
    return sizes


def check_counts(
    sizes: Sizes, num_items: int, num_attributes: int, path: Path, corpus: str
) -> None:
    """Raise `InputError` unless file and corpus have as many items, and as many attributes."""
    for kind, key, extra, in_file, in_corpus in (
        ("items", ITEMS, 2, sizes.num_items, num_items),
        ("attributes", ATTRIBUTES, 1, sizes.num_attributes, num_attributes),
    ):
        if in_file != in_corpus:
            raise InputError(
                f"{path}: {key} has {in_file + extra} rows for {in_file:,} {kind}, but corpus "
                f"{corpus} has {in_corpus:,}; allowed: {in_corpus + extra} rows; import it on the "
                "corpus that it was trained on, prepared from S3-Rec's text file and its "
                "item2attributes.json"
            )


def row_numbers(names: Sequence[str], kind: str, corpus: str) -> Tensor:
    """The numbers that the names spell: int64 [N]; `InputError` unless they are 1..N in any order.

    `names` are raw ids of items or attributes (`kind`), in the order of dense ids.
    """
    allowed = {str(number): number for number in range(1, len(names) + 1)}
    for name in names:
        if name not in allowed:
            raise InputError(
                f"corpus {corpus}: {kind} {name!r:.100} is not a number from 1 to {len(names)}, "
                f"which is how the s3rec format names its {kind}s; use a corpus whose raw ids are "
                "these numbers, as S3-Rec's own files have"
            )
    assert len(set(names)) == len(names), "Corpus.verify has checked it"
    return torch.tensor([allowed[name] for name in names], dtype=torch.int64)


def expressible_encoder(
    encoder: BackboneConfig,
    items: ItemTableConfig,
    objectives: Mapping[str, ObjectiveConfig],
    source: str,
) -> TransformerConfig:
    """The encoder as a transformer's config, if the format can express the run.

    `InputError` when the encoder, the item table, or a next-item objective or its head has a field
    with a value other than the one that the format implies. `source` names the run in the message.
    """
    transformer = as_transformer(encoder, f"{source}, for the s3rec format")
    fields = [(f"encoder.{name}", vars(transformer)[name], _ALLOWED[name]) for name in _ALLOWED]
    fields.append(("items.attributes", items.attributes, False))
    for key, objective in objectives.items():
        if isinstance(objective, NextItemConfig):
            head = objective.head
            fields += [
                (f"objectives.{key}.head.{name}", getattr(head, name), _HEAD[name])
                for name in _HEAD
            ]
            fields.append((f"objectives.{key}.direction", objective.direction, "causal"))
    for field, value, allowed in fields:
        if value != allowed:
            raise InputError(
                f"{source}: {field} is {value!r}; the s3rec format allows only {allowed!r}; "
                "export a run with the encoder and heads of baselines/s3rec.py"
            )
    return transformer
