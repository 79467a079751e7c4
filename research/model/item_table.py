"""The item table: item embeddings, with all lookups, scores and losses that read them.

The backbone holds it, so that checkpoints, gradient analysis and several processes treat it as
shared by all objectives. Its rows are the V items and then the mask, which is looked up and usually
not scored. A head that is not tied to it holds a second table, without a mask. No other code reads
`weight` for scores or lookups. With content vectors, a row is the projection of the item's vector,
beside or in place of its own embedding, in lookups and in scores alike. Dropout of the table, too,
is of rows as they are looked up and scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.attribute_embedding import AttributeTable
from research.model.initialization import initialize
from research.model.item_vectors import VectorProjection
from research.model.kernels.candidate_scores import candidate_scores
from research.model.kernels.cosine import inverse_norms, tangent
from research.model.kernels.cross_entropy import Smoothing, all_scores, softmax_loss, top_one
from research.model.kernels.dropout import dropout
from research.model.kernels.precision import row_products, true_fp32
from research.model.kernels.scored_rows import ScoredRows

# No hidden layer in a config may be larger, so that an untrusted one cannot ask for endless memory.
MAX_HIDDEN = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ItemTableConfig:
    """What an item's row in the table is made of, beside or in place of its own embedding."""

    attributes: bool = False
    """Whether the sum of an item's attribute embeddings is added to its own embedding, on the input
    side only (SASRec_F)."""
    vectors: Literal["none", "beside", "alone"] = "none"
    """Whether an item's row has the projection of its content vector (`prepare --item-vectors`), in
    input and scores: not at all, added to its own embedding, or in place of it, so that an item
    without interactions has a row that means something."""
    projection_width: int | None = None
    """Width of the hidden layer of the vectors' projection; None: the projection is linear."""
    dropout: float = 0.0
    """Probability that a number of the encoder's table is 0 in training, drawn once for each
    micro-batch of a process, alike where rows are looked up and where they are scored (as in
    RecTools 0.13). What attributes add to a row, and a head's own table, have none."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"items.dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.projection_width is None:
            return
        if self.vectors == "none":
            raise InputError(
                f"items.projection_width is {self.projection_width}, but items.vectors is none; "
                "set vectors to beside or alone, or leave the width out"
            )
        if not 1 <= self.projection_width <= MAX_HIDDEN:
            raise InputError(
                f"items.projection_width is {self.projection_width}; allowed: 1 to {MAX_HIDDEN}"
            )

    @property
    def decisive(self) -> Mapping[str, object]:
        """The fields that decide what given weights compute, with their values: not dropout."""
        return {name: value for name, value in vars(self).items() if name != "dropout"}

    def num_embeddings(self, num_items: int) -> int:
        """How many of `num_items` items have an embedding of their own: all, or none."""
        return 0 if self.vectors == "alone" else num_items


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
        projection: VectorProjection | None = None,
        has_ids: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """`purpose` keys the initial weights; `masked` adds the mask's row.

        `attributes`, if given, are added where items are looked up. With a `projection` an item's
        row has its projected vector, beside its own embedding, or alone where not `has_ids`.
        `dropout` is the probability that a number of the table is 0 in a training step.
        """
        super().__init__()
        assert has_ids or (projection is not None and masked), "a row needs something to be of"
        self.num_items = num_items
        self.masked = masked
        self.weight: nn.Parameter | None = None
        """[V + masked, D]: the embeddings of ids; None: items have none, and there is a
        `mask_row`."""
        self.mask_row: nn.Parameter | None = None
        """[1, D]: the mask's embedding where items have none of their own; None: it is in
        `weight`."""
        if has_ids:
            self.weight = nn.Parameter(torch.empty(num_items + masked, width))
        else:
            self.mask_row = nn.Parameter(torch.empty(1, width))
        names = {"weight": "item_table.weight", "mask_row": "item_table.mask_row"}
        initialize(self, init_std, seed, purpose, names=names)
        self.touched_rows = False
        """`build_optimizer` sets it; with it the gradient is a sparse tensor of the rows looked up
        or scored by id."""
        # After `initialize`, as these have drawn their own initial weights.
        self.attributes = attributes
        self.projection = projection
        self.dropout = dropout
        self._keeps = False
        self._kept: Tensor | None = None
        self._ranked: tuple[list[tuple[int, int]], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """The device of the table, on which the states to be scored are too."""
        return next(self.parameters()).device

    @property
    def num_embeddings(self) -> int:
        """How many items have an embedding of their own: V, or 0."""
        return 0 if self.weight is None else self.num_items

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """A context of one forward pass of training, in which `rows` are computed at most once.

        Dropout of the table is drawn once, too, for all lookups and scores with gradients.

        What is computed without gradients in it, such as an accuracy, is not kept for ranking: an
        update follows, and fused optimizers change parameters unnoticed by `_version`.
        """
        self._keeps, self._ranked = True, None
        try:
            yield
        finally:
            self._keeps, self._kept = False, None

    def rows(self) -> Tensor:
        """[V + masked, D]: all rows as they are looked up and scored, with their graph.

        In training they have the table's dropout, drawn at each call, but once within `one_step`.
        With a projection they are computed at each call, but once within `one_step`. For ranking,
        without gradients and outside of it, they are computed in true fp32, and kept until
        parameters are filled, or the next step or lookup with gradients.
        """
        if self._kept is not None:
            return self._kept
        if self.projection is None:
            assert self.weight is not None, "rows are embeddings, projected vectors, or both"
            rows_RD: Tensor = self.weight
            if not self._drops():
                return rows_RD
        elif torch.is_grad_enabled() or self._keeps:
            rows_RD = self._computed_rows(self.projection)
        else:
            return self._rows_for_ranking(self.projection)
        if self._drops():
            rows_RD = dropout(rows_RD, self.dropout, training=True)
        if self._keeps and torch.is_grad_enabled():
            self._kept = rows_RD
        return rows_RD

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
            if ids.dim() == 1:
                rows_ND = self._rows(ids)
                scale = inverse_norms(rows_ND) if cosine else None
                scores_PN = row_products(states_PD, tangent(rows_ND) if cosine else rows_ND)
            else:
                table_RD, places_PN = self._candidates(ids)
                scores_PN = candidate_scores(
                    states_PD,
                    tangent(table_RD) if cosine else table_RD,
                    places_PN,
                    touched_rows=self.touched_rows,
                )
                scale = inverse_norms(table_RD)[places_PN] if cosine else None
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
        table_RD = self.rows()
        return top_one(
            states_PD,
            table_RD,
            bias_V,
            targets_P,
            rows=self._competing(rows),
            further_ED=further_ED,
            scale_R=inverse_norms(table_RD) if cosine else None,
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
        with torch.no_grad():
            table_RD = self.rows().detach()[: self._competing(rows)]
        if cosine:
            table_RD = table_RD * inverse_norms(table_RD)[:, None]
        return ScoredRows(table_RD, bias_V, further_ED)

    def _rows(self, ids: Tensor) -> Tensor:
        """[..., D]: the rows of `ids`, int64 of any shape."""
        if torch.is_grad_enabled():
            self._ranked = None
        if self.projection is None:
            return F.embedding(ids, self.rows(), sparse=self.touched_rows)
        if self._needs_all(ids):
            return F.embedding(ids, self.rows())
        return self._projected(self.projection, ids)

    def _candidates(self, ids_PN: Tensor) -> tuple[Tensor, Tensor]:
        """[R, D] rows, and int64 [P, N]: which of them are those of `ids_PN`."""
        if self.projection is None or self._needs_all(ids_PN):
            return self.rows(), ids_PN
        places_PN = torch.arange(ids_PN.numel(), device=ids_PN.device).view_as(ids_PN)
        # A table has a row, so that the projection takes part where nothing is scored.
        rows = ids_PN.flatten() if ids_PN.numel() else ids_PN.new_zeros(1)
        return self._projected(self.projection, rows), places_PN

    def _needs_all(self, ids: Tensor) -> bool:
        """Whether all rows are there already, or are no more than those of `ids`.

        For ranking all are computed, once: a state then does not depend on which others are encoded
        with it. Dropout is drawn for all.
        """
        if self._drops():
            return True
        has_all = self._kept is not None or not (torch.is_grad_enabled() or self._keeps)
        return has_all or ids.numel() > self.num_items

    def _drops(self) -> bool:
        """Whether rows have dropout now: in training, where there are gradients."""
        return self.dropout > 0.0 and self.training and torch.is_grad_enabled()

    def _projected(self, projection: VectorProjection, ids: Tensor) -> Tensor:
        """[..., D]: the rows of `ids`, by the projection of their vectors alone."""
        is_mask = (ids >= self.num_items)[..., None]
        vectors: Tensor = projection(ids.clamp(max=self.num_items - 1))
        if self.weight is None:
            assert self.mask_row is not None, "the mask has a row"
            return torch.where(is_mask, self.mask_row[0], vectors.to(self.mask_row.dtype))
        own = F.embedding(ids, self.weight)
        return own + vectors.to(own.dtype).masked_fill(is_mask, 0.0)

    def _computed_rows(self, projection: VectorProjection) -> Tensor:
        """[V + masked, D]: all rows, with their graph."""
        vectors_VD = projection()
        if self.weight is None:
            assert self.mask_row is not None, "the mask has a row"
            return torch.cat([vectors_VD.to(self.mask_row.dtype), self.mask_row])
        # The mask has no vector.
        return self.weight + F.pad(vectors_VD.to(self.weight.dtype), (0, 0, 0, self.masked))

    def _rows_for_ranking(self, projection: VectorProjection) -> Tensor:
        key = [(part._version, part.data_ptr()) for part in self.parameters()]
        if self._ranked is None or self._ranked[0] != key:
            with true_fp32(self.device):
                self._ranked = key, self._computed_rows(projection)
        return self._ranked[1]

    def _scored(self, cosine: bool) -> tuple[Tensor, Tensor | None]:
        """The whole table, and [R] what products with its rows are multiplied by, if anything."""
        table_RD = self.rows()
        if not cosine:
            return table_RD, None
        return tangent(table_RD), inverse_norms(table_RD)

    def _competing(self, rows: int | None) -> int:
        """The number of the table's rows that compete: `rows`, or V for None."""
        rows = self.num_items if rows is None else rows
        most = self.num_items + self.masked
        assert self.num_items <= rows <= most, "the items compete, and the mask may"
        return rows
