"""The item table: everything that has a row an item, looked up, scored and compared in one place.

The backbone holds it, so that checkpoints, gradient analysis and several processes count it as
shared. Its rows are the items and then the mask, which is looked up and need not be scored. A head
that does not share it holds a second one, without a mask. Nobody else touches `weight`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.model.attribute_embedding import AttributeTable
from research.model.initialization import initialize
from research.model.kernels.candidate_scores import candidate_scores
from research.model.kernels.cross_entropy import all_scores, softmax_loss, top_one
from research.model.kernels.precision import row_products
from research.model.kernels.scored_rows import ScoredRows


@dataclass(frozen=True, kw_only=True)
class ItemTableConfig:
    """What an item is to the encoder, beside its own embedding."""

    attributes: bool = False
    """Add the sum of an item's attribute embeddings to its own on the input side (SASRec_F)."""


class ItemTable(nn.Module):
    """Embeddings of V items and, in the backbone's, of the mask.

    `rows` says how many of them compete: None, the V items; V + 1, the mask too. `bias_V` has a
    number for each of those rows. `further_ED` are rows that are not the table's and compete as
    well, in columns after its own; they get no gradient.
    """

    def __init__(
        self,
        num_items: int,
        width: int,
        *,
        init_std: float,
        seed: int,
        purpose: str = "encoder",
        masked: bool = True,
        attributes: AttributeTable | None = None,
    ) -> None:
        """`purpose` keys the initial weights; `attributes` are added where items are looked up."""
        super().__init__()
        self.num_items = num_items
        self.masked = masked
        self.weight = nn.Parameter(torch.empty(num_items + masked, width))
        initialize(self, init_std, seed, purpose, names={"weight": "item_table.weight"})
        # After the initial weights: these come with their own.
        self.attributes = attributes

    @property
    def device(self) -> torch.device:
        """Where it lies, and so the states that it is asked about."""
        return self.weight.device

    def lookup(self, ids: Tensor) -> Tensor:
        """Embeddings [..., D] of items (or the mask) of any shape, with those of attributes."""
        embedded = F.embedding(ids, self.weight)
        if self.attributes is not None:
            embedded = embedded + self.attributes.sums(ids.flatten()).view_as(embedded)
        return embedded

    def scores(
        self,
        states_PD: Tensor,
        ids: Tensor | None = None,
        *,
        rows: int | None = None,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
    ) -> Tensor:
        """Inner products: [P, N] with `ids` [P, N] of each state, or [N] of all states alike, which
        may be the mask's; else [P, rows] with every row that competes, or [P, rows + E]."""
        if ids is not None:
            assert (rows, further_ED) == (None, None), "ids say themselves what is scored"
            if ids.dim() == 1:
                scores_PN = row_products(states_PD, F.embedding(ids, self.weight))
            else:
                scores_PN = candidate_scores(states_PD, self.weight, ids)
            return scores_PN if bias_V is None else scores_PN + bias_V[ids]
        rows = self._competing(rows)
        return all_scores(states_PD, self.weight, bias_V, rows=rows, further_ED=further_ED)

    def softmax_loss(
        self,
        states_PD: Tensor,
        targets_P: Tensor,
        *,
        rows: int | None = None,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
    ) -> Tensor:
        """Scalar: the sum over P of -log softmax(scores)[target]; 0 for P = 0."""
        return softmax_loss(
            states_PD,
            self.weight,
            bias_V,
            targets_P,
            rows=self._competing(rows),
            further_ED=further_ED,
        )

    def top_one(
        self,
        states_PD: Tensor,
        targets_P: Tensor,
        *,
        rows: int | None = None,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
    ) -> Tensor:
        """int64 scalar: how many targets score above all else that competes; a tie is none."""
        return top_one(
            states_PD,
            self.weight,
            bias_V,
            targets_P,
            rows=self._competing(rows),
            further_ED=further_ED,
        )

    def competing(
        self, rows: int, bias_V: Tensor | None = None, further_ED: Tensor | None = None
    ) -> ScoredRows:
        """The first `rows` rows, and further ones, as ranking scores them; without a graph."""
        table_RD = self.weight.detach()[: self._competing(rows)]
        return ScoredRows(table_RD, bias_V, further_ED)

    def _competing(self, rows: int | None) -> int:
        rows = self.num_items if rows is None else rows
        assert self.num_items <= rows <= len(self.weight), "the items compete, and the mask may"
        return rows
