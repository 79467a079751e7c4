"""Next item (SASRec, Kang and McAuley 2018, eq. 4-6): each state predicts the item that follows.

Causal attention; every token but a window's newest is an input, every one but its oldest a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.model.backbone import Backbone
from research.objectives.base import (
    Accuracy,
    Corruption,
    ModelComponents,
    ObjectiveConfig,
    RankingObjective,
    View,
)
from research.objectives.head import Head, HeadConfig
from research.objectives.item_losses import FullSoftmax, ItemLoss, ItemLossConfig
from research.packed import Packed


@dataclass(frozen=True, kw_only=True)
class NextItemShift(Corruption):
    """Inputs are all items but the last, targets all but the first; at most L of each."""

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """One picked token an input; sequences of one item become empty."""
        packed = batch.packed.newest(batch.length + 1)
        inputs_T = packed.ages_T > 0
        lengths_S = (packed.lengths_S - 1).clamp(min=0)
        offsets = torch.cat([packed.offsets[:1], lengths_S.cumsum(0)])
        inputs = Packed.of(packed.items_T[inputs_T], offsets, max(packed.longest - 1, 0))
        picked_P = torch.arange(inputs.num_tokens, device=inputs.items_T.device)
        return View(inputs, True, picked_P, packed.items_T[packed.positions_T > 0])


@dataclass(frozen=True, kw_only=True)
class NextItemConfig(ObjectiveConfig):
    """The causal next-item objective."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    loss: ItemLossConfig = FullSoftmax()
    """How the target is told from other items."""
    head: HeadConfig = HeadConfig()
    """The output head."""

    def build(self, shared: ModelComponents, seed: int) -> NextItem:
        """The module."""
        return NextItem(self, shared, seed)


class NextItem(RankingObjective):
    """The count is the number of predicted items."""

    def __init__(self, config: NextItemConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = NextItemShift()
        self.head = Head(config.head, shared.config, shared.catalogue.num_items, seed, "next head")
        self.loss = ItemLoss(config.loss, shared.catalogue, "next")

    def shared(self) -> dict[str, nn.Module]:
        """Nothing but the encoder."""
        return {}

    def count(self, view: View, batch: Batch) -> Tensor:
        """P."""
        return view.num_picked

    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Tensor:
        """Sum over inputs of the loss against the following item."""
        total: Tensor = self.loss(view, hidden_TD, batch, self.head, encoder)
        return total

    def accuracy(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Accuracy:
        """Targets that score highest of all items."""
        return self.loss.top_one(view, hidden_TD, self.head, encoder)

    def ranking_view(self, histories: Packed, encoder: Backbone) -> View:
        """The newest L items; the newest state ranks."""
        packed = histories.newest(encoder.config.length)
        return View(packed, True, packed.last_S, packed.items_T[packed.last_S])
