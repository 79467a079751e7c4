"""Contrast of two views of each history (CL4SRec, Xie et al. 2022, eq. 2-6).

The encoder reads two views of each row. In CL4SRec each is changed by an operator drawn for it: it
is cropped to neighbouring items, has some items masked, or has a stretch of items reordered; the
views of DuoRec are in `research/objectives/dropout_views.py`. With z the state of a view's newest
token, z' that of the row's other view, and N the states of all views of the step's other rows, over
all processes, the loss is InfoNCE,

    -log( exp(sim(z, z') / t) / (exp(sim(z, z') / t) + sum over z" in N of exp(sim(z, z") / t)) )

summed over both views of every row. In the paper sim is the inner product (t = 1), and the encoder
is causal, as SASRec's is. ICLRec's code for CL4SRec (salesforce/ICLRec, Chen et al. 2022)
compares the states of all tokens instead, one after the other in one vector (`states="all"`); there
padded places take part too, here they add nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.item_table import ItemTable
from research.model.kernels.precision import row_products
from research.objectives.base import (
    OFFSETS_OF_READS,
    PER_READ,
    Corruption,
    Objective,
    ObjectiveConfig,
    Targets,
    View,
    ragged,
)
from research.objectives.components import ModelComponents
from research.packed import Packed
from research.randomness import below, fold, seed_of

Operator = Literal["crop", "mask", "reorder"]


class PairedViews(Corruption):
    """Abstract: two sequences, neighbours, for each row with enough items; the newest tokens are
    picked. Subclasses are frozen dataclasses."""

    causal: ClassVar[bool] = True
    fewest_items: ClassVar[int] = 1
    """The items that a row must have at least."""


@dataclass(frozen=True, kw_only=True)
class TwoViews(PairedViews):
    """Two views of each row that has an item, each changed by an operator drawn for it.

    They are of all items of the row, as in the paper. Later code, which trains the last item of
    each row as the only target, leaves that item out of them, as `DropoutViews` does.
    """

    operators: tuple[Operator, ...] = ("crop", "mask", "reorder")
    """The operators to draw from, with equal probabilities."""
    crop_share: float = 0.6
    """eta: the share of a row's items that a crop keeps, rounded down but at least one item."""
    mask_share: float = 0.3
    """gamma: the share of a row's items that are masked, rounded down."""
    reorder_share: float = 0.6
    """beta: the share of a row's items in the stretch that is reordered, rounded down."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.operators:
            raise InputError("corruption.operators is (); give one or more of crop, mask, reorder")
        for name in ("crop_share", "mask_share", "reorder_share"):
            if not 0.0 < vars(self)[name] <= 1.0:
                raise InputError(
                    f"corruption.{name} is {vars(self)[name]}; it must be above 0 and at most 1"
                )

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """A view with two neighbouring sequences for each row that has an item.

        The newest token of each is picked.
        """
        rows = batch.packed.newest(batch.length)
        rows_R = (rows.lengths_S > 0).nonzero()[:, 0]
        row_S = rows_R.repeat_interleave(2)
        packed = rows.select(row_S)
        second_S = torch.arange(len(row_S), device=row_S.device) % 2
        random_states_S = fold(fold(batch.random_states_S[row_S], seed_of("contrast")), second_S)
        drawn_S = below(fold(random_states_S, 0), len(self.operators))
        for index, operator in enumerate(self.operators):
            changed_S = drawn_S == index
            packed = self._apply_operator(
                packed, operator, changed_S, random_states_S, catalogue.num_items
            )
        return View(packed, row_S, len(batch.rows_S), packed.last_S, packed.items_T[:0])

    def _apply_operator(
        self,
        packed: Packed,
        operator: Operator,
        changed_S: Tensor,
        random_states_S: Tensor,
        mask: int,
    ) -> Packed:
        """All sequences, with `operator` applied to those where `changed_S` (bool [S]) is True.

        `mask` is the id of the mask.
        """
        lengths_S, owner_T, places_T = packed.lengths_S, packed.owner_T, packed.positions_T
        keys_T = fold(fold(random_states_S, 2)[owner_T], places_T)
        if operator == "mask":
            sizes_S = torch.where(changed_S, self._size(lengths_S, self.mask_share), 0)
            hidden_T = packed.ranks_within(keys_T) < sizes_S[owner_T]
            return packed.with_items(packed.items_T.masked_fill(hidden_T, mask))
        share = self.crop_share if operator == "crop" else self.reorder_share
        sizes_S = self._size(lengths_S, share).clamp(min=1)
        starts_S = below(fold(random_states_S, 1), lengths_S - sizes_S + 1)
        offsets_T = places_T - starts_S[owner_T]
        inside_T = (offsets_T >= 0) & (offsets_T < sizes_S[owner_T])
        if operator == "crop":
            kept_S = torch.where(changed_S, sizes_S, lengths_S)
            return packed.keep(inside_T | ~changed_S[owner_T], kept_S, packed.longest)
        # Tokens of the stretch are sorted by their draws; all others keep their places.
        moved_T = inside_T & changed_S[owner_T]
        moved_P = moved_T.nonzero()[:, 0]
        order_P = torch.argsort(keys_T[moved_P], stable=True)
        order_P = order_P[torch.argsort(owner_T[moved_P][order_P], stable=True)]
        items_T = packed.items_T.index_copy(0, moved_P, packed.items_T[moved_P][order_P])
        return packed.with_items(items_T)

    def _size(self, lengths_S: Tensor, share: float) -> Tensor:
        # Without the 1e-9, 29 % of 100 would be 28: 0.29 * 100 is a little below 29.
        return (lengths_S.double() * share + 1e-9).floor().long()


@dataclass(frozen=True, eq=False, kw_only=True)
class WholeTargets(Targets):
    """Targets that read all tokens of their view; each sequence is one."""

    age_P: Tensor = field(metadata=PER_READ)
    """int64 [P]: how many newer tokens each token's sequence has."""
    ended_P: Tensor = field(metadata=OFFSETS_OF_READS)
    """int64 [P + 1]: how many sequences end before each token; the last entry is S."""
    lengths_S: Tensor = field(metadata=ragged("ended_P"))
    """int64 [S]: the tokens of each sequence, at least one. How many entries it has says how many
    sequences there are, also in a part of the batch."""

    @staticmethod
    def of(view: View) -> WholeTargets:
        """All tokens of a view whose sequences have a token each at least."""
        packed = view.packed
        read_P = torch.arange(packed.num_tokens, device=packed.offsets.device)
        sequence_offsets_R = view.row_offsets(packed.last_S)
        return WholeTargets(
            read_P=read_P,
            offsets_R=view.row_offsets(read_P),
            target_counts_R=sequence_offsets_R.diff().double(),
            age_P=packed.ages_T,
            ended_P=F.pad(packed.owner_T, (0, 1), value=packed.num_sequences),
            lengths_S=packed.lengths_S,
        )


@dataclass(frozen=True, kw_only=True)
class ContrastConfig(ObjectiveConfig):
    """The contrastive objective of CL4SRec, and by its corruption that of DuoRec."""

    weight: float = 0.1
    """Weight among the stage's objectives (lambda; the paper finds 0.1 good beside SASRec's)."""
    corruption: PairedViews = TwoViews()
    """How the two views are made."""
    similarity: Literal["dot", "cosine"] = "dot"
    """How two states are compared: by their inner product, or by that of the normalized states."""
    temperature: float = 1.0
    """t: the number that similarities are divided by."""
    states: Literal["newest", "all"] = "newest"
    """What two views are compared by: the states of their newest tokens, or those of all tokens,
    each with the token of the same age; a token without one adds nothing. A step holds length
    times width numbers for each view then."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.temperature <= 0.0:
            raise InputError(f"contrast: temperature is {self.temperature}; it must be above 0")

    def build(self, components: ModelComponents, seed: int) -> Contrast:
        """The module, which has no parameters of its own."""
        return Contrast(self, components.config.length)


class Contrast(Objective):
    """The contrastive objective; its loss is counted for each view, two for each row in the view.

    It has no accuracy, as that would depend on the batch size: the more rows in the step, the more
    views compete with a view's partner.
    """

    def __init__(self, config: ContrastConfig, length: int) -> None:
        super().__init__()
        self.corruption: PairedViews = config.corruption
        self.states = config.states
        self.length = length
        self.similarity = config.similarity
        self.temperature = config.temperature

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By states: a row's negatives are the states of all other rows of the step."""
        return "states"

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The newest token, or all tokens, of each sequence, two for each row that takes part."""
        return Targets.of_picked(view) if self.states == "newest" else WholeTargets.of(view)

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum over views, with the other rows of this process as negatives."""
        compared_NE = self.compared_states(targets, states_PD)
        return self.loss_with_other_rows(targets, compared_NE, items, compared_NE[:0])

    def compared_states(self, targets: Targets, states_PD: Tensor) -> Tensor:
        """[N, E]: a vector for each view, the newest token's state or all states by age.

        In the latter case E is L times the width, with zeros where a view has no token of an age.
        """
        if not isinstance(targets, WholeTargets):
            return states_PD
        num_views, width = len(targets.lengths_S), states_PD.shape[1]
        states_NLD = states_PD.new_zeros(num_views, self.length, width)
        places = (targets.ended_P[:-1], targets.age_P)
        return states_NLD.index_put(places, states_PD).flatten(1)

    def loss_with_other_rows(
        self, targets: Targets, compared_NE: Tensor, items: ItemTable, others_QE: Tensor
    ) -> Tensor:
        """Scalar: the sum over this process's views, with all processes' rows as negatives."""
        scores_NQ = self._scores(compared_NE, others_QE)
        return F.cross_entropy(scores_NQ, self._partners(compared_NE), reduction="sum")

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """A reason where no row has as many items as its views take; else None."""
        if longest >= self.corruption.fewest_items:
            return None
        return f"no row has the {self.corruption.fewest_items} items that its views take"

    def _scores(self, views_NE: Tensor, others_QE: Tensor) -> Tensor:
        """[N, N + Q]: each view's similarity with all views, over t; minus infinity with itself.

        The N views of this process come first, then the Q of the others.
        """
        # Under autocast states may be in low precision, which is too coarse for norms and softmax.
        dtype = torch.promote_types(views_NE.dtype, torch.float32)
        views_NE, others_QE = views_NE.to(dtype), others_QE.to(dtype)
        others_QE = torch.cat([views_NE, others_QE])
        if self.similarity == "cosine":
            views_NE, others_QE = F.normalize(views_NE, dim=1), F.normalize(others_QE, dim=1)
        scores_NQ = row_products(views_NE, others_QE)
        places_Q = torch.arange(len(others_QE), device=others_QE.device)
        is_self_NQ = places_Q[: len(views_NE), None] == places_Q
        return (scores_NQ / self.temperature).masked_fill(is_self_NQ, -torch.inf)

    @staticmethod
    def _partners(views_NE: Tensor) -> Tensor:
        """int64 [N]: the index of each view's partner; a row's two views are neighbours."""
        return torch.arange(len(views_NE), device=views_NE.device) ^ 1
