"""Next item (SASRec, Kang and McAuley 2018, eq. 4-6): each state predicts the item that follows.

Attention is causal. Every item of a window but the newest is an input, every one but the oldest is
a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.model.item_table import ItemTable
from research.objectives.base import (
    Accuracy,
    Corruption,
    ObjectiveConfig,
    RankingObjective,
    Targets,
    View,
)
from research.objectives.components import ModelComponents
from research.objectives.head import Head, HeadConfig
from research.objectives.losses import FullSoftmax, ItemLossConfig, ItemObjective
from research.packed import Packed


@dataclass(frozen=True, kw_only=True)
class NextItemShift(Corruption):
    """Inputs are all items but the newest, targets all but the oldest; at most L of each.

    It says itself that it is causal, as its targets stand in the input (docs/pitfalls.md,
    "bidirectional attention under a causal objective").
    """

    causal: ClassVar[bool] = True

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The newest L + 1 items of each row without the last; a token's target is its next item.

        Every token is picked. A row with one item or none becomes an empty sequence.
        """
        packed = batch.packed.newest(batch.length + 1)
        lengths_S = (packed.lengths_S - 1).clamp(min=0)
        inputs = packed.keep(packed.ages_T > 0, lengths_S, max(packed.longest - 1, 0))
        every_T = inputs.positions_T.new_ones(inputs.num_tokens).cumsum(0) - 1
        return View.of_rows(inputs, every_T, packed.items_T[packed.positions_T > 0])


@dataclass(frozen=True, kw_only=True)
class NextItemConfig(ObjectiveConfig):
    """The causal next-item objective."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    loss: ItemLossConfig = FullSoftmax()
    """The loss of a target item against other items."""
    head: HeadConfig = HeadConfig()
    """The output head."""

    def build(self, components: ModelComponents, seed: int) -> NextItem:
        """The next-item objective's module, with its head's initial weights drawn by `seed`."""
        return NextItem(self, components, seed)


class NextItem(ItemObjective, RankingObjective):
    """The next-item objective; its loss is counted for each target item."""

    def __init__(self, config: NextItemConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = NextItemShift()
        self.head = Head(
            config.head, components.config, components.catalogue.num_items, seed, "next head"
        )
        self.item_loss = config.loss.build(components.catalogue, "next")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """The share of targets that score above all other items."""
        return self.item_loss.top_one(targets, states_PD, self.head, items)

    def ranking_view(self, histories: Packed, length: int, num_items: int) -> View:
        """The newest L items; the newest one's state ranks."""
        packed = histories.newest(length)
        return View.of_rows(packed, packed.last_S, packed.items_T[packed.last_S])

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """A reason where no row has two items, so that nothing follows any item; else None."""
        if longest >= 2:
            return None
        return "no row has a second item, so no item can be predicted"
