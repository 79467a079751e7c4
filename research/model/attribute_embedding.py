"""Attribute embeddings, with the catalogue's item -> attribute CSR on the model's device.

One table serves AAP, MAP and an encoder that reads attributes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.model.initialization import initialize


class AttributeTable(nn.Module):
    """Embeddings [A, D] of the attributes, and which attributes each item has.

    No row is padding, so that all can learn (docs/pitfalls.md, "first attribute frozen").
    """

    offsets: Tensor
    """int64 [V + 2]: where each item's attributes, and the mask's, begin in `ids`."""
    ids: Tensor
    """int64: attribute ids, item by item."""

    def __init__(
        self,
        num_attributes: int,
        width: int,
        offsets: Tensor,
        ids: Tensor,
        init_std: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.attribute_table = nn.Embedding(num_attributes, width)
        # The mask, item id V, has no attributes.
        self.register_buffer("offsets", torch.cat([offsets, offsets[-1:]]), persistent=False)
        self.register_buffer("ids", ids, persistent=False)
        initialize(self, init_std, seed, "attributes")

    def number(self, items_P: Tensor) -> Tensor:
        """int64 [P]: how many attributes each item (or the mask) has."""
        return self.offsets[items_P + 1] - self.offsets[items_P]

    def pairs(self, items_P: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [M] indices into `items_P`, and int64 [M] attribute ids: all pairs that hold."""
        number_P = self.number(items_P)
        places_P = torch.arange(len(items_P), device=items_P.device)
        rows_M = torch.repeat_interleave(places_P, number_P)
        starts_P = self.offsets[items_P] - (number_P.cumsum(0) - number_P)
        indices_M = torch.arange(len(rows_M), device=items_P.device) + starts_P[rows_M]
        return rows_M, self.ids[indices_M]

    def sums(self, items_T: Tensor) -> Tensor:
        """[T, D]: the sum of the embeddings of each item's attributes; 0 if it has none."""
        _, ids_M = self.pairs(items_T)
        number_T = self.number(items_T)
        starts_T = number_T.cumsum(0) - number_T
        table_AD = self.attribute_table.weight
        return F.embedding_bag(ids_M, table_AD, starts_T, mode="sum")
