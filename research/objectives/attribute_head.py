"""The part that AAP and MAP share: from states to the attributes of the items that belong there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from research.model.initial import initialize
from research.model.multilabel import multilabel_loss, precision_at_own_number
from research.objectives.base import Accuracy, ModelComponents


class AttributeHead(nn.Module):
    """score(t, a) = e_a . (W h_t + b) and its binary cross-entropy over all A attributes."""

    def __init__(
        self,
        shared: ModelComponents,
        *,
        count_bare_items: bool,
        zero_attribute: bool,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.count_bare_items = count_bare_items
        self.dense = nn.Linear(shared.config.width, shared.config.width)
        initialize(self.dense, shared.config.init_std, seed, purpose)
        self.attributes = shared.attributes
        self.zero_attribute = shared.zero_attribute if zero_attribute else None

    def shared(self) -> dict[str, nn.Module]:
        """The attribute table, and attribute 0 where it is scored."""
        parts: dict[str, nn.Module] = {"attributes": self.attributes}
        return parts if self.zero_attribute is None else {**parts, "zero": self.zero_attribute}

    def count(self, items_P: Tensor) -> Tensor:
        """Scalar float64: of so many items the attributes are asked."""
        counted_P = self._counted(items_P)
        return torch.tensor(len(counted_P), dtype=torch.float64, device=items_P.device)

    def loss(self, hidden_PD: Tensor, items_P: Tensor) -> Tensor:
        """Scalar: sum over tokens that count and attributes."""
        counted_P = self._counted(items_P)
        hidden_PD, items_P = hidden_PD.index_select(0, counted_P), items_P[counted_P]
        table_AD = self.attributes.attribute_table.weight
        if self.zero_attribute is not None:
            # The last row, which no pair names: false everywhere.
            table_AD = torch.cat([table_AD, self.zero_attribute.row])
        rows_M, labels_M = self.attributes.pairs(items_P)
        return multilabel_loss(self.dense(hidden_PD), table_AD, rows_M, labels_M)

    def accuracy(self, hidden_PD: Tensor, items_P: Tensor) -> Accuracy:
        """Precision at k of an item's k attributes; items without one do not count."""
        rows_M, labels_M = self.attributes.pairs(items_P)
        table_AD = self.attributes.attribute_table.weight
        correct = precision_at_own_number(self.dense(hidden_PD), table_AD, rows_M, labels_M)
        return Accuracy(correct, (self.attributes.number(items_P) > 0).sum().double())

    def _counted(self, items_P: Tensor) -> Tensor:
        """int64: places of the items that count."""
        if self.count_bare_items:
            return torch.arange(len(items_P), device=items_P.device)
        return (self.attributes.number(items_P) > 0).nonzero()[:, 0]
