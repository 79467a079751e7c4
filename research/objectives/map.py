"""MAP, masked attribute prediction (S3-Rec, Zhou et al. 2020, eq. 6), for masked items.

The same loss as AAP's, at the masked tokens instead of the others, with a separate projection
W_map.
"""

from __future__ import annotations

from dataclasses import dataclass

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.objectives.attribute_head import AttributeHead, AttributePrediction
from research.objectives.base import ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.masking import Masking, MaskItems


@dataclass(frozen=True, kw_only=True)
class MAPConfig(ObjectiveConfig):
    """Masked attribute prediction."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: Masking = MaskItems()
    """Which items are masked; their attributes are predicted."""
    count_bare_items: bool = False
    """Whether items without attributes count, with a false target for every attribute (as
    published)."""
    zero_attribute: bool = False
    """Whether attribute 0, which no item has, is scored as a further class that is always false (as
    published); its embedding is shared with AAP."""

    def build(self, components: ModelComponents, seed: int) -> MAP:
        """The MAP objective's module, with its head's initial weights drawn by `seed`.

        `InputError` when the corpus has no item attributes.
        """
        return MAP(self, components, seed)


class MAP(AttributePrediction):
    """The MAP objective: predicts the attributes of the items at masked tokens.

    Items without attributes are left out, unless `count_bare_items`.
    """

    def __init__(self, config: MAPConfig, components: ModelComponents, seed: int) -> None:
        head = AttributeHead(
            components,
            count_bare_items=config.count_bare_items,
            zero_attribute=config.zero_attribute,
            seed=seed,
            purpose="map head",
        )
        super().__init__(config.corruption, head)

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The attributes of the masked items."""
        return self.head.targets(view, view.picked_P, view.items_P, catalogue)
