"""MIP, masked item prediction (S3-Rec, Zhou et al. 2020, eq. 5): the hidden item against another.

At every hidden token, -log s(e_i . (W_mip h_t + b) - e_j . (W_mip h_t + b)) against a sampled item
j; attention is bidirectional. What the published code does otherwise is a field of the loss:
`inner_sigmoid`, `negatives.exclude` "window" and `negatives.include_mask`. With `FullSoftmax` the
hidden item is told from all others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from research.model.item_table import ItemTable
from research.objectives.base import Accuracy, ObjectiveConfig, Targets
from research.objectives.components import ModelComponents
from research.objectives.head import Head, HeadConfig
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    ItemLossConfig,
    ItemObjective,
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


class MIP(ItemObjective):
    """The count is the number of hidden items."""

    def __init__(self, config: MIPConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        num_items = shared.catalogue.num_items
        self.head = Head(HeadConfig(transform="linear"), shared.config, num_items, seed, "mip head")
        self.item_loss = config.loss.build(shared.catalogue, "mip")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """How often the loss's own question is answered rightly."""
        return self.item_loss.answered(targets, states_PD, self.head, items)
