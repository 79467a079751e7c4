"""What every objective is: a corruption to see through, and a sum of losses with its count.

The loop knows `Objective` and `LossSum` only. An objective is one file in this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.errors import InputError
from research.model.attributes import AttributeTable
from research.model.backbone import Backbone, BackboneConfig
from research.model.initial import initialize
from research.model.item_table import ItemTable, ItemTableConfig
from research.objectives.head import Head
from research.packed import Packed


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How much of what was counted is right, before any division."""

    correct: Tensor
    """Scalar float64, without a graph."""
    count: Tensor
    """Scalar float64; may be 0."""


@dataclass(frozen=True, eq=False)
class LossSum:
    """A loss before any division."""

    total: Tensor
    """Scalar, attached to the graph: the sum over what is counted."""
    count: Tensor
    """Scalar float64: how many things were summed; may be 0."""
    accuracy: Accuracy | None = None
    """How much of it is right, in a step that measures."""


@dataclass(frozen=True, eq=False)
class View:
    """What the encoder sees of a batch, and which tokens an objective reads."""

    packed: Packed
    """Corrupted sequences."""
    causal: bool
    """The direction of attention that this view is meant for."""
    picked_P: Tensor
    """int64 [P]: tokens of `packed` that the corruption picked, for objectives to read."""
    targets_P: Tensor
    """int64 [P]: the item that belongs there; empty where picks are compared with one another."""

    @property
    def owner_P(self) -> Tensor:
        """int64 [P]: the sequence of each picked token."""
        return self.packed.owner_T[self.picked_P]

    @property
    def num_picked(self) -> Tensor:
        """Scalar float64: P."""
        return torch.tensor(len(self.picked_P), dtype=torch.float64, device=self.picked_P.device)


class ModelComponents:
    """What the stages and objectives of a run share; a part is made when it is first asked for.

    A part's initial weights are a function of the seed and its own name alone.
    """

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

    @cached_property
    def encoder(self) -> Backbone:
        """The encoder; `InputError` when it reads attributes that the corpus lacks."""
        item_table = ItemTable(
            self.catalogue.num_items,
            self.config.width,
            init_std=self.config.init_std,
            seed=self.seed,
            attributes=self.attributes if self.items.attributes else None,
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
    def zero_attribute(self) -> NullAttribute:
        """The class that no item has (S3-Rec as published)."""
        return NullAttribute(self.config.width, self.config.init_std, self.seed)


class NullAttribute(nn.Module):
    """The embedding of attribute 0, which stands for none and yet is scored and trained."""

    def __init__(self, width: int, init_std: float, seed: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.empty(1, width))
        initialize(self, init_std, seed, "zero attribute")


class Corruption(ABC):
    """Abstract; a frozen dataclass below. Equal corruptions share one encoding."""

    @abstractmethod
    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The corrupted batch; a pure function of the batch and its random states."""


class Objective(nn.Module, ABC):
    """Abstract. Owns its projections; never moves devices, never sees step or rank."""

    corruption: Corruption
    reads: Literal["picked", "all"] = "picked"
    """Whether the states of a view's picked tokens are read, or also those of the others."""

    @abstractmethod
    def shared(self) -> dict[str, nn.Module]:
        """The parts of `ModelComponents`, by name, that the objective holds beside its own."""

    @abstractmethod
    def count(self, view: View, batch: Batch) -> Tensor:
        """Scalar float64: how many things the loss of a view sums; known before any encoding."""

    @abstractmethod
    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Tensor:
        """Scalar: the sum of the losses of a view whose tokens have the hidden states [T, D]."""

    @abstractmethod
    def accuracy(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Accuracy:
        """How much of what the objective asks is answered rightly; called without gradients."""


class RankingObjective(Objective):
    """Abstract: an objective whose head can also rank all items for a history."""

    head: Head

    @abstractmethod
    def ranking_view(self, histories: Packed, encoder: Backbone) -> View:
        """What the encoder reads of histories of any length; one picked token a sequence."""


def able_to_rank(objectives: Mapping[str, nn.Module]) -> dict[str, RankingObjective]:
    """The objectives that can rank, by key."""
    return {key: part for key, part in objectives.items() if isinstance(part, RankingObjective)}


class ObjectiveConfig(ABC):
    """Abstract; a frozen dataclass beside each objective, with at least a `weight`."""

    weight: float

    @abstractmethod
    def build(self, shared: ModelComponents, seed: int) -> Objective:
        """The objective's module, its start a function of the seed alone."""
