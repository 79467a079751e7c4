"""Next item (SASRec, Kang and McAuley 2018, eq. 4-6): states predict the items that follow them.

Every item of a window but the newest is an input. Either every state predicts the item after it, so
that every item but the oldest is a target and attention is causal; or the newest state alone
predicts the newest item (FMLP-Rec, DuoRec, BSARec, on every prefix of a history: `windows` is
`EveryPrefix`). Then the target is not in the input, and the encoder may read both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.backbone import Direction
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
        packed, inputs = inputs_of(batch)
        every_T = inputs.positions_T.new_ones(inputs.num_tokens).cumsum(0) - 1
        return View.of_rows(inputs, every_T, packed.items_T[packed.positions_T > 0])


@dataclass(frozen=True, kw_only=True)
class LastItem(Corruption):
    """Inputs are all items but the newest, which is the only target; at most L inputs, causally."""

    causal: ClassVar[bool] = True

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The newest L + 1 items of each row without the last, which the newest token predicts."""
        return last_item_view(batch)


@dataclass(frozen=True, kw_only=True)
class LastItemBothWays(Corruption):
    """As `LastItem`, but read bidirectionally, as the target is not among the inputs.

    It serves encoders without a causal form, such as filters over the whole row, whose `directions`
    are "bidirectional" alone: they are trained on next items by it, and rank by it.
    """

    causal: ClassVar[bool] = False
    hides_newest: ClassVar[bool] = True

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The newest L + 1 items of each row without the last, which the newest token predicts."""
        return last_item_view(batch)


def inputs_of(batch: Batch) -> tuple[Packed, Packed]:
    """(windows, inputs): the newest L + 1 items of each row, and the same without the last one."""
    packed = batch.packed.newest(batch.length + 1)
    lengths_S = (packed.lengths_S - 1).clamp(min=0)
    return packed, packed.keep(packed.ages_T > 0, lengths_S, max(packed.longest - 1, 0))


def last_item_view(batch: Batch) -> View:
    """The inputs of each row, whose newest token is picked; its item is the one that follows it.

    A row with one item or none becomes an empty sequence without a picked token.
    """
    packed, inputs = inputs_of(batch)
    is_target_T = (packed.ages_T == 0) & (packed.positions_T > 0)
    picked_P = inputs.last_S[inputs.lengths_S > 0]
    return View.of_rows(inputs, picked_P, packed.items_T[is_target_T])


@dataclass(frozen=True, kw_only=True)
class NextItemConfig(ObjectiveConfig):
    """The next-item objective."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    loss: ItemLossConfig = FullSoftmax()
    """The loss of a target item against other items."""
    head: HeadConfig = HeadConfig()
    """The output head."""
    predict: Literal["all", "last"] = "all"
    """Which items of a window are targets: each but the oldest, or the newest alone. With "last",
    windows of all prefixes (`EveryPrefix`) make each item a target once."""
    direction: Direction = "causal"
    """How the encoder reads a row, in training and in ranking. "bidirectional" needs predict
    "last": with "all", a state would see the item that it has to predict."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predict == "all" and self.direction == "bidirectional":
            raise InputError(
                "predict is 'all' and direction is 'bidirectional': each state would see the item "
                "that it has to predict, as that is the next input; set predict to 'last', or "
                "direction to 'causal'"
            )

    @property
    def corruption(self) -> Corruption:
        """What the encoder sees, and how it reads that."""
        if self.predict == "all":
            return NextItemShift()
        return LastItem() if self.direction == "causal" else LastItemBothWays()

    def build(self, components: ModelComponents, seed: int) -> NextItem:
        """The next-item objective's module, with its head's initial weights drawn by `seed`."""
        return NextItem(self, components, seed)


class NextItem(ItemObjective, RankingObjective):
    """The next-item objective; its loss is counted for each target item."""

    def __init__(self, config: NextItemConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
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
