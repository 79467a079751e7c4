"""SP, segment prediction (S3-Rec, Zhou et al. 2020, eq. 7): does a segment belong to its context?

A segment of m = 1..n/2 items is cut out of a row of n and replaced by masks; what is left is its
context. With c, p and q the last states of the context, of the true segment and of a foreign
segment, the loss is -log s(c' . p - c' . q), where c' = W_sp c + b and s is the sigmoid. Attention
is bidirectional. Contexts and segments are simply further sequences of the packed batch, so one
call of the encoder serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from research.data.batch import Batch
from research.data.catalogue import Catalogue, Histories
from research.errors import InputError
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.objectives.base import Accuracy, Corruption, Objective, ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.packed import Packed
from research.randomness import below, fold, seed_of


@dataclass(frozen=True, kw_only=True)
class CutSegment(Corruption):
    """Cut a context, a true segment and a foreign segment from each row of two items or more.

    The view has these three sequences, in this order, for each such row, and picks the last token
    of each. Shorter rows, whose true and foreign segments would be equal, are left out unless
    `short_rows` is set (docs/pitfalls.md, "rows of one item").
    """

    placement: Literal["among_masks", "alone"] = "among_masks"
    """Where segments are: "among_masks", at their places in a sequence as long as the row whose
    other tokens are masks (as published); or "alone", as sequences of their m items."""
    foreign: Literal["training", "everything"] = "training"
    """Where foreign segments come from. "training": one other user's training items; the user is
    drawn first, among those who have at least m (m is at most the longest such history).
    "everything": all users' items laid end to end (as published); these segments leak held-out
    items, cross from one user to the next, and may be the user's own."""
    short_rows: bool = False
    """Whether rows of one item take part, with the row itself as context and as both segments (as
    published). Apart from dropout, their comparison is a tie and teaches nothing."""

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """A view with context, true and foreign segment of each row that takes part.

        Each of these three sequences has its last token picked.
        """
        min_items = 1 if self.short_rows else 2
        windows = batch.packed.newest(batch.length)
        rows_R = (windows.lengths_S >= min_items).nonzero()[:, 0]
        packed = windows.select(rows_R)
        lengths_R, owner_T, places_T = packed.lengths_S, packed.owner_T, packed.positions_T
        users_R = batch.users_S[rows_R]
        random_states_R = fold(batch.random_states_S[rows_R], seed_of("segment"))
        max_sizes_R = lengths_R // 2
        if self.foreign == "training":
            max_sizes_R = torch.minimum(
                max_sizes_R, catalogue.training.longest_of_others_U[users_R]
            )
        # In a row of one item the segment has length 0, and all three sequences keep the item.
        sizes_R = torch.where(
            max_sizes_R > 0, 1 + below(fold(random_states_R, 0), max_sizes_R.clamp(min=1)), 0
        )
        starts_R = below(fold(random_states_R, 1), lengths_R - sizes_R + 1)
        places_T = places_T - starts_R[owner_T]
        in_segment_T = (places_T >= 0) & (places_T < sizes_R[owner_T])
        items_T, mask_T = packed.items_T, torch.full_like(packed.items_T, catalogue.num_items)
        context = packed.with_items(torch.where(in_segment_T, mask_T, items_T))
        pool = catalogue.training if self.foreign == "training" else catalogue.full_histories
        foreign_starts_R = self._foreign_starts(pool, users_R, sizes_R, random_states_R)
        picked_T = (foreign_starts_R[owner_T] + places_T).clamp(0, len(pool.items_N) - 1)
        foreign_T = torch.where(in_segment_T, pool.items_N[picked_T], items_T)
        is_segment_T = in_segment_T | (sizes_R == 0)[owner_T]
        # A foreign segment gets the fields (such as times) of the true segment that it replaces.
        true, foreign = packed.with_items(items_T), packed.with_items(foreign_T)
        if self.placement == "among_masks":
            true = packed.with_items(torch.where(is_segment_T, items_T, mask_T))
            foreign = packed.with_items(torch.where(is_segment_T, foreign_T, mask_T))
        else:
            kept_tokens = is_segment_T, sizes_R.clamp(min=1), max(1, packed.longest // 2)
            true, foreign = true.keep(*kept_tokens), foreign.keep(*kept_tokens)
        order_RK = torch.arange(3 * len(rows_R), device=rows_R.device).view(3, -1).T
        joined = Packed.cat([context, true, foreign]).select(order_RK.flatten())
        row_S = rows_R.repeat_interleave(3)
        return View(joined, row_S, len(windows.lengths_S), joined.last_S, joined.items_T[:0])

    def _foreign_starts(
        self, pool: Histories, users_R: Tensor, sizes_R: Tensor, random_states_R: Tensor
    ) -> Tensor:
        """int64 [R]: the index in `pool.items_N` at which each row's foreign segment begins."""
        if self.foreign == "everything":
            # As published (docs/pitfalls.md, "segments from everybody's items").
            return below(fold(random_states_R, 2), len(pool.items_N) - sizes_R + 1)
        order_U, places_U = pool.longest_first_U, pool.places_U
        # Users with at least m items come first; the row's own user, if among them, is skipped.
        num_eligible_R = torch.searchsorted(-pool.lengths_U[order_U], -sizes_R, right=True)
        is_eligible_R = (places_U[users_R] < num_eligible_R).long()
        drawn_R = below(fold(random_states_R, 2), num_eligible_R - is_eligible_R)
        drawn_R = drawn_R + (drawn_R >= places_U[users_R])
        others_R = order_U[drawn_R]
        spare_R = pool.lengths_U[others_R] - sizes_R + 1
        return pool.offsets_U[others_R] + below(fold(random_states_R, 3), spare_R)


@dataclass(frozen=True, kw_only=True)
class SPConfig(ObjectiveConfig):
    """Segment prediction."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: CutSegment = CutSegment()
    """How segments are cut, placed and drawn."""
    inner_sigmoid: bool = False
    """Whether each score goes through a sigmoid before the difference, as in S3-Rec's code; this
    double sigmoid caps the loss and weakens its gradient."""

    def build(self, components: ModelComponents, seed: int) -> SP:
        """The module; `InputError` when no other user has items for foreign segments."""
        return SP(self, components, seed)


class SP(Objective):
    """The SP objective; its loss is counted for each row that takes part."""

    def __init__(self, config: SPConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        others = len(components.catalogue.training.ranges) - 1
        if others < 1 and config.corruption.foreign == "training":
            raise InputError(
                "sp takes foreign segments from other users' training items, but the stage is "
                "trained on only one user; train on more, or leave sp out"
            )
        self.corruption: CutSegment = config.corruption
        self.inner_sigmoid = config.inner_sigmoid
        self.dense = nn.Linear(components.config.width, components.config.width)
        initialize(self, components.config.init_std, seed, "sp head")

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The last tokens of the three sequences of each row that takes part; nothing else."""
        offsets_R = view.row_offsets(view.picked_P)
        return Targets(
            read_P=view.picked_P,
            offsets_R=offsets_R,
            target_counts_R=offsets_R.diff().double() / 3,
        )

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum over the rows that take part."""
        true_R, foreign_R = self._scores(states_PD)
        if self.inner_sigmoid:
            true_R, foreign_R = true_R.sigmoid(), foreign_R.sigmoid()
        return F.softplus(foreign_R - true_R).sum()

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy:
        """The share of rows whose true segment scores above the foreign one; a tie is half."""
        true_R, foreign_R = self._scores(states_PD)
        # Equal segments are a tie, even if rounding makes their scores differ.
        gaps_R = (true_R - foreign_R).masked_fill(true_R.isclose(foreign_R), 0.0)
        correct = (gaps_R.sign().double() + 1).sum() / 2
        return Accuracy(correct, torch.full_like(correct, len(true_R)))

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """A reason where no row has the two items that a segment takes, unless `short_rows`."""
        if longest >= 2 or self.corruption.short_rows:
            return None
        return "no row has the two items that cutting out a segment needs"

    def _scores(self, states_PD: Tensor) -> tuple[Tensor, Tensor]:
        """[R] each: the scores of the true and of the foreign segments, c' . p and c' . q."""
        contexts_RD, true_RD, foreign_RD = rearrange(states_PD, "(R three) D -> three R D", three=3)
        contexts_RD = self.dense(contexts_RD)
        return (contexts_RD * true_RD).sum(1), (contexts_RD * foreign_RD).sum(1)
