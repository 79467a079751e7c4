"""AAP, associated attribute prediction (S3-Rec, Zhou et al. 2020, eq. 4): of the items in sight.

At every token that is not hidden, score(t, a) = e_a . (W_aap h_t + b) for all attributes a, against
the attributes of the item at t by binary cross-entropy. Attention is bidirectional.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.data.loader import Batch
from research.errors import InputError
from research.model.backbone import Backbone
from research.objectives.attribute_head import AttributeHead
from research.objectives.base import Accuracy, ModelComponents, Objective, ObjectiveConfig, View
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
        self.reads = "all"
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

    def count(self, view: View, batch: Batch) -> Tensor:
        """Of so many tokens the attributes are asked."""
        return self.head.count(view.packed.items_T[in_sight(view)])

    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Tensor:
        """Sum over tokens in sight."""
        kept_P = in_sight(view)
        return self.head.loss(hidden_TD.index_select(0, kept_P), view.packed.items_T[kept_P])

    def accuracy(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Backbone) -> Accuracy:
        """Precision at each item's number of attributes."""
        kept_P = in_sight(view)
        return self.head.accuracy(hidden_TD.index_select(0, kept_P), view.packed.items_T[kept_P])


def in_sight(view: View) -> Tensor:
    """int64: the tokens of a view that were not picked."""
    kept_T = torch.ones_like(view.packed.items_T, dtype=torch.bool)
    kept_T[view.picked_P] = False
    return kept_T.nonzero()[:, 0]
