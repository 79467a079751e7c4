"""AAP, associated attribute prediction (S3-Rec, Zhou et al. 2020, eq. 4), for unmasked items.

At every token that is not masked, score(t, a) = e_a . (W_aap h_t + b) for all attributes a. The
loss is the binary cross-entropy of these scores against the attributes of the item at t. Attention
is bidirectional.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.objectives.attribute_head import AttributeHead, AttributePrediction
from research.objectives.base import ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.masking import Masking, MaskItems


@dataclass(frozen=True, kw_only=True)
class AAPConfig(ObjectiveConfig):
    """Associated attribute prediction."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: Masking = MaskItems()
    """Which items are masked; the attributes of all other items are predicted."""
    count_bare_items: bool = False
    """Whether items without attributes count, with a false target for every attribute (as
    published)."""
    zero_attribute: bool = False
    """Whether attribute 0, which no item has, is scored as a further class that is always false (as
    published); its embedding is shared with MAP."""

    def build(self, components: ModelComponents, seed: int) -> AAP:
        """The AAP objective's module, with its head's initial weights drawn by `seed`.

        `InputError` when the corpus has no item attributes, or `items.attributes` is on.
        """
        return AAP(self, components, seed)


class AAP(AttributePrediction):
    """The AAP objective: predicts the attributes of the items at tokens that are not masked.

    Items without attributes are left out, unless `count_bare_items`. `InputError` when
    `items.attributes` is on, as the inputs would then show the answers.
    """

    def __init__(self, config: AAPConfig, components: ModelComponents, seed: int) -> None:
        if components.items.attributes:
            raise InputError(
                "aap predicts the attributes of unmasked items, but items.attributes adds them to "
                "the input; remove one of the two (map predicts those of masked items)"
            )
        head = AttributeHead(
            components,
            count_bare_items=config.count_bare_items,
            zero_attribute=config.zero_attribute,
            seed=seed,
            purpose="aap head",
        )
        super().__init__(config.corruption, head)
        self.hides_always = config.corruption.hides_always

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The attributes of the items that are not picked."""
        in_sight_T = torch.ones_like(view.packed.items_T, dtype=torch.bool)
        in_sight_T[view.picked_P] = False
        tokens_P = in_sight_T.nonzero()[:, 0]
        return self.head.targets(view, tokens_P, view.packed.items_T[tokens_P], catalogue)

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """A reason where no row has a second item, or no training item an attribute; else None."""
        if longest < 2 and self.hides_always:
            return "in a row of one item that item is masked, and no other is left"
        return super().no_target_reason(longest, catalogue)
