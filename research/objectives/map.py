"""MAP, masked attribute prediction (S3-Rec, Zhou et al. 2020, eq. 6): of the items that are hidden.

As AAP, with a projection W_map of its own, at the tokens that are hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.model.item_table import ItemTable
from research.objectives.attribute_head import AttributeHead
from research.objectives.base import Accuracy, Objective, ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.masking import MaskItems


@dataclass(frozen=True, kw_only=True)
class MAPConfig(ObjectiveConfig):
    """Masked attributes."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: MaskItems = MaskItems()
    """What is hidden and asked about."""
    count_bare_items: bool = False
    """Whether items without attributes count, all their targets being false (as published)."""
    zero_attribute: bool = False
    """Whether attribute 0, which no item has, is scored as a further class that is always false (as
    published); its embedding is shared with AAP."""

    def build(self, shared: ModelComponents, seed: int) -> MAP:
        """The module."""
        return MAP(self, shared, seed)


class MAP(Objective):
    """The count is the number of hidden tokens; the total sums over attributes."""

    def __init__(self, config: MAPConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        self.head = AttributeHead(
            shared,
            count_bare_items=config.count_bare_items,
            zero_attribute=config.zero_attribute,
            seed=seed,
            purpose="map head",
        )

    def shared(self) -> dict[str, nn.Module]:
        """The attributes' embeddings."""
        return self.head.shared()

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The attributes of the hidden items."""
        return self.head.targets(view, view.picked_P, view.items_P, catalogue)

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Sum over hidden tokens."""
        return self.head.loss(targets, states_PD)

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """Precision at each item's number of attributes."""
        return self.head.accuracy(targets, states_PD)

    def emptiness(self, longest: int, catalogue: Catalogue) -> str | None:
        """No attribute can be seen in training."""
        return self.head.emptiness(catalogue)
