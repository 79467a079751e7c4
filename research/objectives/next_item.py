"""Next item (SASRec, Kang and McAuley 2018, eq. 4-6): each state predicts the item that follows.

Causal attention; every token but a window's newest is an input, every one but its oldest a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.model.encoder import Encoder, EncoderConfig
from research.objectives.base import Corruption, LossSum, ObjectiveConfig, RankingObjective, View
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

    def build(self, encoder: EncoderConfig, catalogue: Catalogue, seed: int) -> NextItem:
        """The module."""
        return NextItem(self, encoder, catalogue, seed)


class NextItem(RankingObjective):
    """The count is the number of predicted items."""

    def __init__(
        self, config: NextItemConfig, encoder: EncoderConfig, catalogue: Catalogue, seed: int
    ) -> None:
        super().__init__()
        self.corruption = NextItemShift()
        self.head = Head(config.head, encoder, catalogue.num_items, seed, "next head")
        self.loss = ItemLoss(config.loss, catalogue, "next")

    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Encoder) -> LossSum:
        """Sum over inputs of the loss against the following item."""
        result: LossSum = self.loss(view, hidden_TD, batch, self.head, encoder)
        return result

    def ranking_view(self, histories: Packed, encoder: Encoder) -> View:
        """The newest L items; the newest state ranks."""
        packed = histories.newest(encoder.config.length)
        return View(packed, True, packed.last_S, packed.items_T[packed.last_S])

    def scores(self, hidden_SD: Tensor, encoder: Encoder) -> Tensor:
        """[S, V]."""
        return self.head.scores(hidden_SD, encoder)

    def candidate_scores(self, hidden_SD: Tensor, items_SN: Tensor, encoder: Encoder) -> Tensor:
        """[S, N]."""
        return self.head.candidate_scores(hidden_SD, items_SN, encoder)
