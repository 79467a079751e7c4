"""AAP, associated attribute prediction (S3-Rec, Zhou et al. 2020, eq. 4): of the items in sight.

At every token that is not hidden, score(t, a) = e_a . (W_aap h_t + b) for all attributes a, against
the attributes of the item at t by binary cross-entropy. Attention is bidirectional.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.item_table import ItemTable
from research.objectives.attribute_head import AttributeHead
from research.objectives.base import Accuracy, Objective, ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.masking import MaskItems


@dataclass(frozen=True, kw_only=True)
class AAPConfig(ObjectiveConfig):
    """Associated attributes."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: MaskItems = MaskItems()
    """What is hidden; the rest is asked about."""
    count_bare_items: bool = False
    """Whether items without attributes count, all their targets being false (as published)."""
    zero_attribute: bool = False
    """Whether attribute 0, which no item has, is scored as a further class that is always false (as
    published); its embedding is shared with MAP."""

    def build(self, shared: ModelComponents, seed: int) -> AAP:
        """The module."""
        return AAP(self, shared, seed)


class AAP(Objective):
    """The count is the number of tokens in sight; the total sums over attributes."""

    def __init__(self, config: AAPConfig, shared: ModelComponents, seed: int) -> None:
        super().__init__()
        if shared.items.attributes:
            raise InputError(
                "aap asks for the attributes of items in sight, and items.attributes shows "
                "them; take one of the two out (map asks for those of hidden items)"
            )
        self.corruption = config.corruption
        self.head = AttributeHead(
            shared,
            count_bare_items=config.count_bare_items,
            zero_attribute=config.zero_attribute,
            seed=seed,
            purpose="aap head",
        )

    def shared(self) -> dict[str, nn.Module]:
        """The attributes' embeddings."""
        return self.head.shared()

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The attributes of the items in sight."""
        in_sight_T = torch.ones_like(view.packed.items_T, dtype=torch.bool)
        in_sight_T[view.picked_P] = False
        tokens_P = in_sight_T.nonzero()[:, 0]
        return self.head.targets(view, tokens_P, view.packed.items_T[tokens_P], catalogue)

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Sum over tokens in sight."""
        return self.head.loss(targets, states_PD)

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """Precision at each item's number of attributes."""
        return self.head.accuracy(targets, states_PD)

    def emptiness(self, longest: int, catalogue: Catalogue) -> str | None:
        """Nothing is in sight, or no attribute can be seen in training."""
        if longest < 2:
            return "of a row of one item that one is hidden, and none is in sight"
        return self.head.emptiness(catalogue)
