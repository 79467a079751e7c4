"""MIP, masked item prediction (S3-Rec, Zhou et al. 2020, eq. 5): the masked item against another.

At every masked token, -log s(e_i . (W_mip h_t + b) - e_j . (W_mip h_t + b)) for its item i and a
sampled item j, with s the sigmoid. Attention is bidirectional. Where the published code differs, a
field of the loss says so: `inner_sigmoid`, `negatives.exclude` "window" and
`negatives.include_mask`. With `FullSoftmax` the masked item competes with all others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from research.model.item_table import ItemTable
from research.objectives.base import Accuracy, ObjectiveConfig, Targets
from research.objectives.components import ModelComponents
from research.objectives.head import Head, HeadConfig
from research.objectives.losses import BayesianPersonalizedRanking, ItemLossConfig, ItemObjective
from research.objectives.masking import Masking, MaskItems


@dataclass(frozen=True, kw_only=True)
class MIPConfig(ObjectiveConfig):
    """Masked item prediction."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: Masking = MaskItems()
    """Which items are masked and predicted."""
    loss: ItemLossConfig = BayesianPersonalizedRanking()
    """The loss of the masked item against other items."""

    def build(self, components: ModelComponents, seed: int) -> MIP:
        """The MIP objective's module, with its projection's initial weights drawn by `seed`."""
        return MIP(self, components, seed)


class MIP(ItemObjective):
    """The MIP objective; its loss is counted for each masked item."""

    def __init__(self, config: MIPConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        num_items = components.catalogue.num_items
        self.head = Head(
            HeadConfig(transform="linear"), components.config, num_items, seed, "mip head"
        )
        self.item_loss = config.loss.build(components.catalogue, "mip")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """The accuracy on the loss's question: under BPR, the share of negatives scored lower."""
        return self.item_loss.accuracy(targets, states_PD, self.head, items)
