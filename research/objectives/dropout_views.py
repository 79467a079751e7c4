"""Views that dropout alone tells apart, and histories up to the same target (DuoRec).

Qiu et al., WSDM 2022 (arXiv 2110.05730), contrast the states of whole inputs, the items before the
one to predict. The unsupervised positive of an input is itself, encoded a second time under other
dropout. Its supervised positive is another user's training history up to an occurrence of the same
target item. Their full model contrasts an input, encoded once more beside the next-item objective,
with its supervised positive (`contrast="us_x"` in their code, RuihongQiu/DuoRec). The loss is that
of `research/objectives/contrast.py`, their negatives are the step's other views, also those of rows
with the same target. Two copies of an input differ, as each token has a dropout mask of its own;
without dropout they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue, Histories
from research.objectives.base import View
from research.objectives.contrast import PairedViews
from research.packed import Packed
from research.randomness import below, fold, seed_of


@dataclass(frozen=True, kw_only=True)
class DropoutViews(PairedViews):
    """Each row's input, which is all its items but the newest, and a positive of it."""

    fewest_items: ClassVar[int] = 2

    positive: Literal["target", "row"] = "target"
    """The second view: "target" is the items before the row's newest item in the training history
    of another user, drawn anew each epoch from all places where it follows an item, and the row's
    own input where there is none; "row" is the row's own input."""

    def __post_init__(self) -> None:
        check_types(self)

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """A view with two neighbouring sequences for each row that has two items.

        The newest token of each is picked. All tokens of another user's history have the fields
        (such as times) of the newest token of the row's input.
        """
        windows = batch.packed.newest(batch.length + 1)
        rows_R = (windows.lengths_S > 1).nonzero()[:, 0]
        windows = windows.select(rows_R)
        inputs = windows.keep(
            windows.ages_T > 0, windows.lengths_S - 1, max(windows.longest - 1, 0)
        )
        first_R = second_R = torch.arange(len(rows_R), device=rows_R.device)
        if self.positive == "target":
            starts_R, lengths_R = self._drawn_histories(
                catalogue.training,
                windows.items_T[windows.last_S],
                batch.users_S[rows_R],
                fold(batch.random_states_S[rows_R], seed_of("same target")),
                batch.length,
            )
            drawn = histories_at(catalogue.training, starts_R, lengths_R, batch.length, inputs)
            second_R = torch.where(lengths_R > 0, first_R + len(rows_R), first_R)
            inputs = Packed.cat([inputs, drawn])
        joined = inputs.select(torch.stack([first_R, second_R], dim=1).flatten())
        row_S = rows_R.repeat_interleave(2)
        return View(joined, row_S, len(batch.rows_S), joined.last_S, joined.items_T[:0])

    @staticmethod
    def _drawn_histories(
        pool: Histories, targets_R: Tensor, users_R: Tensor, random_states_R: Tensor, length: int
    ) -> tuple[Tensor, Tensor]:
        """int64 [R] each: where in `pool.items_N` a positive begins, and its length.

        It is the newest `length` items, at least one, before a place where another user has the
        target; the length is 0 where no other user has it after an item.
        """
        keys_M, size = pool.target_keys_M, len(pool.items_N)
        first_R = torch.searchsorted(keys_M, targets_R * size)
        last_R = torch.searchsorted(keys_M, (targets_R + 1) * size)
        own_R = torch.searchsorted(keys_M, targets_R * size + pool.offsets_U[users_R])
        own_end_R = torch.searchsorted(keys_M, targets_R * size + pool.offsets_U[users_R + 1])
        numbers_R = last_R - first_R - (own_end_R - own_R)
        drawn_R = first_R + below(random_states_R, numbers_R.clamp(min=1))
        # The places of the row's own user, which stand together, are skipped.
        drawn_R = drawn_R + torch.where(drawn_R >= own_R, own_end_R - own_R, 0)
        places_R = keys_M[torch.where(numbers_R > 0, drawn_R, 0)] % max(size, 1)
        owners_R = torch.searchsorted(pool.offsets_U, places_R, right=True) - 1
        starts_R = torch.maximum(pool.offsets_U[owners_R], places_R - length)
        return starts_R, torch.where(numbers_R > 0, places_R - starts_R, 0)


def histories_at(
    pool: Histories, starts_R: Tensor, lengths_R: Tensor, longest: int, inputs: Packed
) -> Packed:
    """The stretches of `pool.items_N` that begin at `starts_R`, each at most `longest` long.

    Stretch r has in all its tokens the fields of the newest token of sequence r of `inputs`.
    """
    offsets = torch.cat([lengths_R.new_zeros(1), lengths_R.cumsum(0)])
    shifts_T = torch.repeat_interleave(starts_R - offsets[:-1], lengths_R)
    places_T = torch.arange(len(shifts_T), device=shifts_T.device) + shifts_T
    fields = {
        name: torch.repeat_interleave(values_T[inputs.last_S], lengths_R)
        for name, values_T in inputs.fields.items()
    }
    return Packed.of(pool.items_N[places_T], offsets, longest, fields)
