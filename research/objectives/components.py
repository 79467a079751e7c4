"""What the stages and objectives of a run share: encoder, attribute embeddings, item vectors.

A run builds one `ModelComponents` and gives it, with the stage's catalogue, to every
`ObjectiveConfig.build`.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch
from torch import nn

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.attribute_embedding import AttributeTable
from research.model.backbone import Backbone, BackboneConfig
from research.model.initialization import initialize
from research.model.item_table import ItemTable, ItemTableConfig
from research.model.item_vectors import ItemVectors, VectorProjection


class SharedModules:
    """The modules that the stages of a run share; each is built on first use.

    A module's initial weights depend only on the seed and the module's own name.
    """

    def __init__(
        self,
        config: BackboneConfig,
        catalogue: Catalogue,
        seed: int,
        items: ItemTableConfig,
    ) -> None:
        self.config = config
        self.catalogue = catalogue
        self.seed = seed
        self.items = items

    @cached_property
    def encoder(self) -> Backbone:
        """The encoder; `InputError` when `items` asks for what the corpus has not."""
        projection = None
        if self.items.vectors != "none":
            projection = VectorProjection(
                self.item_vectors,
                self.config.width,
                self.items.projection_width,
                self.config.init_std,
                self.seed,
            )
        item_table = ItemTable(
            self.catalogue.num_items,
            self.config.width,
            init_std=self.config.init_std,
            seed=self.seed,
            attributes=self.attributes if self.items.attributes else None,
            projection=projection,
            has_ids=self.items.vectors != "alone",
            dropout=self.items.dropout,
        )
        return self.config.build(item_table, self.seed)

    @cached_property
    def attributes(self) -> AttributeTable:
        """The embeddings of attributes; `InputError` when the corpus has none."""
        catalogue = self.catalogue
        if catalogue.num_attributes == 0 or len(catalogue.attribute_ids) == 0:
            raise InputError(
                "the corpus has no item attributes, which aap, map and items.attributes need; "
                "prepare it from a source that has them (s3rec: FILE_item2attributes.json "
                "beside FILE.txt; atomic: a .item file) or leave those objectives out"
            )
        return AttributeTable(
            catalogue.num_attributes,
            self.config.width,
            catalogue.attribute_offsets,
            catalogue.attribute_ids,
            self.config.init_std,
            self.seed,
        )

    @cached_property
    def item_vectors(self) -> ItemVectors:
        """The content vectors of the items; `InputError` when the corpus has none."""
        if self.catalogue.item_vectors is None:
            raise InputError(
                "the corpus has no vectors of items, which items.vectors and objectives over "
                "vectors need; prepare it with --item-vectors FILE (sf.prepare(vectors=...), or "
                "sf.attach_vectors), or set items.vectors to none and leave those objectives out"
            )
        return ItemVectors(self.catalogue.item_vectors)

    @cached_property
    def zero_attribute(self) -> NullAttribute:
        """The further class, attribute 0, that no item has (S3-Rec as published)."""
        return NullAttribute(self.config.width, self.config.init_std, self.seed)


class ModelComponents:
    """What an objective is built with: the modules that stages share, and a stage's catalogue."""

    def __init__(
        self,
        config: BackboneConfig,
        catalogue: Catalogue,
        seed: int,
        items: ItemTableConfig = ItemTableConfig(),
    ) -> None:
        self.config = config
        self.catalogue = catalogue
        self.seed = seed
        self.items = items
        self._modules = SharedModules(config, catalogue, seed, items)

    def with_catalogue(self, catalogue: Catalogue) -> ModelComponents:
        """The same modules, for a stage that knows this catalogue, of the same corpus."""
        other = copy(self)
        other.catalogue = catalogue
        return other

    @property
    def encoder(self) -> Backbone:
        """The encoder; `InputError` when `items` asks for what the corpus has not."""
        return self._modules.encoder

    @property
    def attributes(self) -> AttributeTable:
        """The embeddings of attributes; `InputError` when the corpus has none."""
        return self._modules.attributes

    @property
    def item_vectors(self) -> ItemVectors:
        """The content vectors of the items; `InputError` when the corpus has none."""
        return self._modules.item_vectors

    @property
    def zero_attribute(self) -> NullAttribute:
        """The further class, attribute 0, that no item has (S3-Rec as published)."""
        return self._modules.zero_attribute


class NullAttribute(nn.Module):
    """The embedding of attribute 0, which no item has and which yet is scored and trained."""

    def __init__(self, width: int, init_std: float, seed: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.empty(1, width))
        initialize(self, init_std, seed, "zero attribute")
