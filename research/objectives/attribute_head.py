"""What AAP and MAP share: a head that predicts, from a token's state, its item's attributes.

`AttributeHead` has the scores and the loss. `AttributePrediction` is an objective with such a head;
the two differ in the tokens at which they ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.model.kernels.multilabel import multilabel_loss, precision_at_num_labels
from research.objectives.base import (
    OFFSETS_OF_READS,
    Accuracy,
    Corruption,
    Objective,
    Targets,
    View,
    ragged,
)
from research.objectives.components import ModelComponents


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributeTargets(Targets):
    """For each read token, the attributes of its item."""

    label_offsets: Tensor = field(metadata=OFFSETS_OF_READS)
    """int64 [P + 1]: where each item's attributes begin; the last entry is M."""
    labels_M: Tensor = field(metadata=ragged("label_offsets"))
    """int64 [M]: attribute ids."""

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The true (token, attribute) pairs.

        int64 [M] indices into the read tokens, 0..P-1, and int64 [M] attribute ids.
        """
        places_P = torch.arange(len(self.read_P), device=self.read_P.device)
        rows_M = torch.repeat_interleave(
            places_P, self.label_offsets.diff(), output_size=len(self.labels_M)
        )
        return rows_M, self.labels_M


class AttributeHead(nn.Module):
    """score(t, a) = e_a . (W h_t + b); its loss sums binary cross-entropies over tokens and labels.

    The labels are the A attributes and, with `zero_attribute`, attribute 0, which no item has.
    """

    def __init__(
        self,
        components: ModelComponents,
        *,
        count_bare_items: bool,
        zero_attribute: bool,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.count_bare_items = count_bare_items
        self.dense = nn.Linear(components.config.width, components.config.width)
        initialize(self.dense, components.config.init_std, seed, purpose)
        self.attributes = components.attributes
        self.zero_attribute = components.zero_attribute if zero_attribute else None

    def shared_modules(self) -> dict[str, nn.Module]:
        """The attribute table, and the embedding of attribute 0 where that is scored."""
        parts: dict[str, nn.Module] = {"attributes": self.attributes}
        return parts if self.zero_attribute is None else {**parts, "zero": self.zero_attribute}

    def targets(
        self, view: View, tokens_P: Tensor, items_P: Tensor, catalogue: Catalogue
    ) -> AttributeTargets:
        """The attributes of `items_P` [P], the items at `tokens_P` [P] (ascending).

        Without `count_bare_items`, tokens whose item has no attribute are left out.
        """
        if not self.count_bare_items:
            bare_V = catalogue.attribute_offsets.diff() == 0
            counted_P = ~bare_V[items_P]
            tokens_P, items_P = tokens_P[counted_P], items_P[counted_P]
        label_offsets, labels_M = catalogue.attributes_of(items_P)
        offsets_R = view.row_offsets(tokens_P)
        return AttributeTargets(
            read_P=tokens_P,
            offsets_R=offsets_R,
            target_counts_R=offsets_R.diff().double(),
            label_offsets=label_offsets,
            labels_M=labels_M,
        )

    def loss(self, targets: Targets, states_PD: Tensor) -> Tensor:
        """Scalar: the sum of the binary cross-entropies over read tokens and all attributes."""
        assert isinstance(targets, AttributeTargets)
        table_AD = self.attributes.attribute_table.weight
        if self.zero_attribute is not None:
            # As the last row: no true pair names it, so its target is false at every token.
            table_AD = torch.cat([table_AD, self.zero_attribute.row])
        return multilabel_loss(self.dense(states_PD), table_AD, *targets.pairs())

    def accuracy(self, targets: Targets, states_PD: Tensor) -> Accuracy:
        """Precision at k, where k is the item's number of attributes; items with none are left out.

        Attribute 0 does not compete here.
        """
        assert isinstance(targets, AttributeTargets)
        table_AD = self.attributes.attribute_table.weight
        correct = precision_at_num_labels(self.dense(states_PD), table_AD, *targets.pairs())
        return Accuracy(correct, (targets.label_offsets.diff() > 0).sum().double())

    def no_target_reason(self, catalogue: Catalogue) -> str | None:
        """A reason where no training item has an attribute, so that no token counts; else None.

        With `count_bare_items` it is always None.
        """
        if self.count_bare_items or catalogue.coverage.never_seen < catalogue.num_attributes:
            return None
        return "no item of the training part has an attribute"


class AttributePrediction(Objective):
    """An objective with an `AttributeHead`; its total sums over read tokens and attributes."""

    def __init__(self, corruption: Corruption, head: AttributeHead) -> None:
        super().__init__()
        self.corruption = corruption
        self.head = head

    def shared_modules(self) -> dict[str, nn.Module]:
        """The embeddings of the attributes."""
        return self.head.shared_modules()

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum of the binary cross-entropies over read tokens and attributes.

        `items` is not used.
        """
        return self.head.loss(targets, states_PD)

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """Precision at k, where k is the item's number of attributes."""
        return self.head.accuracy(targets, states_PD)

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """A reason where no training item has an attribute; else None."""
        return self.head.no_target_reason(catalogue)
