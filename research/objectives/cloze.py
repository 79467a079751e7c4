"""Cloze (BERT4Rec, Sun et al. 2019, eq. 7-8): masked items are predicted from both sides."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from research.model.item_table import ItemTable
from research.objectives.base import Accuracy, ObjectiveConfig, RankingObjective, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.head import Head, HeadConfig
from research.objectives.losses import FullSoftmax, ItemLossConfig, ItemObjective
from research.objectives.masking import Masking, MaskItems
from research.packed import Packed


@dataclass(frozen=True, kw_only=True)
class ClozeConfig(ObjectiveConfig):
    """The bidirectional cloze objective."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: Masking = MaskItems()
    """Which items are masked."""
    loss: ItemLossConfig = FullSoftmax()
    """The loss of a target item against other items."""
    head: HeadConfig = HeadConfig()
    """The output head."""

    def build(self, components: ModelComponents, seed: int) -> Cloze:
        """The cloze objective's module, with its head's initial weights drawn by `seed`."""
        return Cloze(self, components, seed)


class Cloze(ItemObjective, RankingObjective):
    """The cloze objective; its loss is counted for each picked item."""

    def __init__(self, config: ClozeConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        self.head = Head(
            config.head, components.config, components.catalogue.num_items, seed, "cloze head"
        )
        self.item_loss = config.loss.build(components.catalogue, "cloze")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """The share of targets that score above all other items."""
        return self.item_loss.top_one(targets, states_PD, self.head, items)

    def ranking_view(self, histories: Packed, length: int, num_items: int) -> View:
        """The newest L - 1 items and a mask after them, whose state ranks.

        An item is dropped only from a history of L items or more (docs/pitfalls.md, "ranking shift
        drops the oldest item").
        """
        packed = histories.newest(length - 1).append(num_items)
        return View.of_rows(packed, packed.last_S, packed.items_T[packed.last_S])
