"""MIP, masked item prediction (S3-Rec, Zhou et al. 2020, eq. 5): the hidden item against another.

At every hidden token, -log s(e_i . (W_mip h_t + b) - e_j . (W_mip h_t + b)) against a sampled item
j; attention is bidirectional. What the published code does otherwise is a field of the loss:
`inner_sigmoid`, `negatives.exclude` "window" and `negatives.include_mask`. With `FullSoftmax` the
hidden item is told from all others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from research.data.loader import Batch
from research.model.backbone import Backbone
from research.objectives.base import Accuracy, ModelComponents, Objective, ObjectiveConfig, View
from research.objectives.head import Head, HeadConfig
from research.objectives.item_losses import (
    BayesianPersonalizedRanking,
    FullSoftmax,
    ItemLoss,
    ItemLossConfig,
)
from research.objectives.masking import MaskItems


@dataclass(frozen=True, kw_only=True)
class MIPConfig(ObjectiveConfig):
    """Masked items."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: MaskItems = MaskItems()
    """What is hidden and asked about."""
    loss: ItemLossConfig = BayesianPersonalizedRanking()
    """How the hidden item is told from others."""

    def build(self, shared: ModelComponents, seed: int) -> MIP:
        """The module."""
        return MIP(self, shared, seed)


class MIP(Objective):
    """The count is the number of hidden items."""

    def __init__(self, config: MIPConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        num_items = shared.catalogue.num_items
        self.head = Head(HeadConfig(transform="linear"), shared.config, num_items, seed, "mip head")
        self.loss = ItemLoss(config.loss, shared.catalogue, "mip")

    def shared(self) -> dict[str, nn.Module]:
        """Nothing but the encoder."""
        return {}

    def count(self, view: View, batch: Batch) -> Tensor:
        """P."""
        return view.num_picked

    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Tensor:
        """Sum over hidden items of the loss."""
        total: Tensor = self.loss(view, hidden_TD, batch, self.head, encoder)
        return total

    def accuracy(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Accuracy:
        """Right comparisons with the negatives; under a full softmax, targets that come first."""
        if isinstance(self.loss.config, FullSoftmax):
            return self.loss.top_one(view, hidden_TD, self.head, encoder)
        return self.loss.comparisons(view, hidden_TD, batch, self.head, encoder)
