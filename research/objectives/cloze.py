"""Cloze (BERT4Rec, Sun et al. 2019, eq. 7-8): hidden items are told from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.data.loader import Batch
from research.model.backbone import Backbone
from research.objectives.base import (
    Accuracy,
    ModelComponents,
    ObjectiveConfig,
    RankingObjective,
    View,
)
from research.objectives.head import Head, HeadConfig
from research.objectives.item_losses import FullSoftmax, ItemLoss, ItemLossConfig
from research.objectives.masking import MaskItems
from research.packed import Packed


@dataclass(frozen=True, kw_only=True)
class ClozeConfig(ObjectiveConfig):
    """The bidirectional cloze objective."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: MaskItems = MaskItems()
    """What is hidden."""
    loss: ItemLossConfig = FullSoftmax()
    """How the target is told from other items."""
    head: HeadConfig = HeadConfig()
    """The output head."""

    def build(self, shared: ModelComponents, seed: int) -> Cloze:
        """The module."""
        return Cloze(self, shared, seed)


class Cloze(RankingObjective):
    """The count is the number of picked items."""

    def __init__(self, config: ClozeConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        self.head = Head(config.head, shared.config, shared.catalogue.num_items, seed, "cloze head")
        self.loss = ItemLoss(config.loss, shared.catalogue, "cloze")

    def shared(self) -> dict[str, nn.Module]:
        """Nothing but the encoder."""
        return {}

    def count(self, view: View, batch: Batch) -> Tensor:
        """P."""
        return view.num_picked

    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Tensor:
        """Sum over picked items of the loss."""
        total: Tensor = self.loss(view, hidden_TD, batch, self.head, encoder)
        return total

    def accuracy(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Accuracy:
        """Targets that score highest of all items."""
        return self.loss.top_one(view, hidden_TD, self.head, encoder)

    def ranking_view(self, histories: Packed, encoder: Backbone) -> View:
        """The newest L - 1 items and a mask after them; the oldest falls only when full (T10)."""
        kept = histories.newest(encoder.config.length - 1)
        sequences_S = torch.arange(kept.num_sequences, device=kept.offsets.device)
        offsets = kept.offsets.clone()
        offsets[1:] += sequences_S + 1
        items_T = torch.full(
            (kept.num_tokens + kept.num_sequences,),
            encoder.item_table.mask_id,
            device=kept.items_T.device,
        )
        places_T = torch.arange(kept.num_tokens, device=kept.items_T.device)
        items_T[places_T + kept.owner_T] = kept.items_T
        packed = Packed.of(items_T, offsets, kept.longest + 1)
        return View(packed, False, packed.last_S, items_T[packed.last_S])
