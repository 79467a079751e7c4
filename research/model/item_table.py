"""The item table: item embeddings, with all lookups, scores and losses that read them.

The backbone holds it, so that checkpoints, gradient analysis and several processes treat it as
shared by all objectives. Its rows are the V items and then the mask, which is looked up and usually
not scored. A head that is not tied to it holds a second table, without a mask. No other code reads
`weight` for scores or lookups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.model.attribute_embedding import AttributeTable
from research.model.initialization import initialize
from research.model.kernels.candidate_scores import candidate_scores
from research.model.kernels.cosine import inverse_norms, tangent
from research.model.kernels.cross_entropy import Smoothing, all_scores, softmax_loss, top_one
from research.model.kernels.precision import row_products
from research.model.kernels.scored_rows import ScoredRows


@dataclass(frozen=True, kw_only=True)
class ItemTableConfig:
    """What the encoder's input for an item has beside the item's own embedding."""

    attributes: bool = False
    """Whether the sum of an item's attribute embeddings is added to its own embedding, on the input
    side only (SASRec_F)."""


class ItemTable(nn.Module):
    """Embeddings [V, D] of the items; the encoder's own table has one more row, the mask's.

    Arguments that methods share: `rows` is how many of the table's first rows are scored (None: the
    V items; V + 1: the mask too); `bias_V` [rows] is added to their scores; `further_ED` [E, D] are
    rows of no table that are scored too, in the last E columns. They are never targets, and
    `softmax_loss` gives them no gradient. With `cosine` each row of the table is taken as the unit
    vector in its direction, so that the score of a unit state, less the bias, is their cosine.
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
        """`purpose` keys the initial weights; `masked` adds the mask's row.

        `attributes`, if given, are added where items are looked up.
        """
        super().__init__()
        self.num_items = num_items
        self.masked = masked
        self.weight = nn.Parameter(torch.empty(num_items + masked, width))
        initialize(self, init_std, seed, purpose, names={"weight": "item_table.weight"})
        self.touched_rows = False
        """`build_optimizer` sets it; with it the gradient is a sparse tensor of the rows looked up
        or scored by id."""
        # After `initialize`, as this table has drawn its own initial weights.
        self.attributes = attributes

    @property
    def device(self) -> torch.device:
        """The device of the table, on which the states to be scored are too."""
        return self.weight.device

    def lookup(self, ids: Tensor) -> Tensor:
        """[..., D]: embeddings of `ids` (items or the mask, int64 of any shape).

        They include the sum of the items' attribute embeddings if the table has `attributes`.
        """
        embedded = self._rows(ids)
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
        cosine: bool = False,
    ) -> Tensor:
        """Inner products of states with rows, plus biases.

        With `ids`, int64 [P, N] for each state or [N] for all states, which may include the mask:
        [P, N]. Without: [P, rows + E], with every row that competes.
        """
        if ids is not None:
            assert (rows, further_ED) == (None, None), "ids say themselves what is scored"
            table_RD = tangent(self.weight) if cosine else self.weight
            if ids.dim() == 1:
                rows_ND = F.embedding(ids, table_RD, sparse=self.touched_rows)
                scores_PN = row_products(states_PD, rows_ND)
                scale = inverse_norms(rows_ND) if cosine else None
            else:
                scores_PN = candidate_scores(
                    states_PD, table_RD, ids, touched_rows=self.touched_rows
                )
                scale = inverse_norms(self.weight)[ids] if cosine else None
            if scale is not None:
                scores_PN *= scale
            return scores_PN if bias_V is None else scores_PN + bias_V[ids]
        table_RD, scale_R = self._scored(cosine)
        return all_scores(
            states_PD,
            table_RD,
            bias_V,
            rows=self._competing(rows),
            further_ED=further_ED,
            scale_R=scale_R,
        )

    def softmax_loss(
        self,
        states_PD: Tensor,
        targets_P: Tensor,
        *,
        rows: int | None = None,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
        bf16: bool = False,
        label_smoothing: float = 0.0,
        cosine: bool = False,
    ) -> Tensor:
        """Scalar: the sum over P of -log softmax(scores)[target]; 0 if P = 0.

        With `bf16` the factors of the products are rounded to bf16. `label_smoothing` is the share
        of a target's probability that is spread over the V items alike.
        """
        table_RD, scale_R = self._scored(cosine)
        return softmax_loss(
            states_PD,
            table_RD,
            bias_V,
            targets_P,
            rows=self._competing(rows),
            further_ED=further_ED,
            bf16=bf16,
            scale_R=scale_R,
            smoothing=Smoothing(label_smoothing, self.num_items),
        )

    def top_one(
        self,
        states_PD: Tensor,
        targets_P: Tensor,
        *,
        rows: int | None = None,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
        cosine: bool = False,
    ) -> Tensor:
        """int64 scalar: how many targets score above every other row; a tie does not count."""
        return top_one(
            states_PD,
            self.weight,
            bias_V,
            targets_P,
            rows=self._competing(rows),
            further_ED=further_ED,
            scale_R=inverse_norms(self.weight) if cosine else None,
        )

    def scored_rows(
        self,
        rows: int,
        bias_V: Tensor | None = None,
        further_ED: Tensor | None = None,
        *,
        cosine: bool = False,
    ) -> ScoredRows:
        """The first `rows` rows and the further ones, for ranking; without a graph.

        With `cosine` they are a copy, of unit vectors.
        """
        table_RD = self.weight.detach()[: self._competing(rows)]
        if cosine:
            table_RD = table_RD * inverse_norms(table_RD)[:, None]
        return ScoredRows(table_RD, bias_V, further_ED)

    def _rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight, sparse=self.touched_rows)

    def _scored(self, cosine: bool) -> tuple[Tensor, Tensor | None]:
        """The whole table, and [R] what products with its rows are multiplied by, if anything."""
        if not cosine:
            return self.weight, None
        return tangent(self.weight), inverse_norms(self.weight)

    def _competing(self, rows: int | None) -> int:
        """The number of the table's rows that compete: `rows`, or V for None."""
        rows = self.num_items if rows is None else rows
        assert self.num_items <= rows <= len(self.weight), "the items compete, and the mask may"
        return rows
