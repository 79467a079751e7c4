"""`MaskItems`: the corruption of cloze (BERT4Rec, section 3.6) and of S3-Rec's AAP, MIP and MAP.

It picks items of each row, replaces them (by the mask, unless configured otherwise), and hands the
true items on as targets. Objectives with an equal `MaskItems` share one encoding. Another way of
picking is another `Masking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.objectives.base import Corruption, View
from research.packed import Packed
from research.randomness import below, fold, seed_of, uniform


class Masking(Corruption):
    """Abstract: picks items of each row, hides them, and gives the true items as `View.items_P`.

    The view has one sequence for each row. A subclass is a frozen dataclass.
    """

    @property
    def hides_always(self) -> bool:
        """Whether every row that has an item has a hidden one; the default is True."""
        return True


@dataclass(frozen=True, kw_only=True)
class MaskItems(Masking):
    """Pick and replace items of each row's newest L.

    Every non-empty row has at least one picked item, unless `at_least_one` is False
    (docs/pitfalls.md, "rows without a target").
    """

    rate: float = 0.2
    """Probability (or share, see `count`) of an item being picked."""
    count: Literal["bernoulli", "rounded"] = "bernoulli"
    """Pick each item independently (see `at_least_one`), or exactly max(1, round(rate n)) of a
    row's n items (BERT4Rec's original code)."""
    at_least_one: bool = True
    """With `bernoulli`, pick one item at random in a row in which none was picked; False: such a
    row has no target and teaches nothing (the common ports: (1 - rate)^n of the rows with n
    items)."""
    max_picked: int | None = None
    """With `rounded`, never pick more than this in a row; None: no bound."""
    random_share: float = 0.0
    """Share of picked items that are replaced by a random item instead of the mask."""
    keep_share: float = 0.0
    """Share of picked items that stay as they are."""
    mask_last_share: float = 0.0
    """Share of rows in which the newest item is always picked, beside the others (1: S3-Rec)."""
    last_only_share: float = 0.0
    """Share of rows in which only the newest item is picked (BERT4Rec's original: 1 of 11)."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.rate < 1.0:
            raise InputError(f"corruption.rate is {self.rate}; it must be between 0 and 1")
        for name in ("random_share", "keep_share", "mask_last_share", "last_only_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"corruption.{name} is {getattr(self, name)}; allowed: 0 to 1")
        if self.random_share + self.keep_share > 1.0:
            raise InputError(
                f"corruption: random_share {self.random_share} and keep_share {self.keep_share} "
                "are shares of the picked items; together at most 1"
            )
        if not self.at_least_one and self.count == "rounded":
            raise InputError(
                "corruption.at_least_one is False with count 'rounded', which picks at least one"
            )
        if self.max_picked is not None and (self.count != "rounded" or self.max_picked < 1):
            raise InputError(
                f"corruption.max_picked is {self.max_picked} with count {self.count!r}; it needs "
                "count 'rounded' and at least 1"
            )

    @property
    def hides_always(self) -> bool:
        """As `at_least_one` says; also where the last item of every row is masked."""
        return self.at_least_one or 1.0 in (self.mask_last_share, self.last_only_share)

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """A view with one sequence for each row, in which the picked tokens are replaced."""
        # A row is cut before its masks are counted, and has draws of its own (docs/pitfalls.md,
        # "mask count from the uncut length", "one mask for the whole batch").
        packed = batch.packed.newest(batch.length)
        random_states_S = fold(batch.random_states_S, seed_of("mask"))
        random_states_T = fold(random_states_S[packed.owner_T], packed.ages_T)
        draws_T = uniform(fold(random_states_T, 0))
        is_last_T = packed.ages_T == 0
        row_draws_S = uniform(fold(random_states_S, seed_of("row")))
        picked_T = (
            self._pick_rounded(packed, draws_T) if self.count == "rounded" else draws_T < self.rate
        )
        if self.mask_last_share:
            picked_T |= is_last_T & (row_draws_S < self.mask_last_share)[packed.owner_T]
        if self.count == "bernoulli" and self.at_least_one:
            picked_T |= fallback_pick(packed, draws_T, picked_T)
        if self.last_only_share:
            # `mask_last_share` takes the lower end of this draw and `last_only_share` the upper
            # one, so that a row falls under both only where the shares add up to more than 1.
            last_only_T = (row_draws_S >= 1.0 - self.last_only_share)[packed.owner_T]
            picked_T = torch.where(last_only_T, is_last_T, picked_T)
        picked_P = picked_T.nonzero()[:, 0]
        targets_P = packed.items_T[picked_P]
        items_T = packed.items_T.clone()
        items_T[picked_P] = self._replacements(targets_P, random_states_T[picked_P], catalogue)
        return View.of_rows(packed.with_items(items_T), picked_P, targets_P)

    def _pick_rounded(self, packed: Packed, draws_T: Tensor) -> Tensor:
        """bool [T]: in each row the max(1, round(rate n)) tokens with the smallest draws."""
        # In float64: float32 rounds 190 * 0.15 the other way.
        count_S = (packed.lengths_S.double() * self.rate).round().long()
        count_S = count_S.clamp(min=1, max=self.max_picked)
        return packed.ranks_within(draws_T) < count_S[packed.owner_T]

    def _replacements(
        self, targets_P: Tensor, random_states_P: Tensor, catalogue: Catalogue
    ) -> Tensor:
        replaced_P = torch.full_like(targets_P, catalogue.num_items)
        if self.random_share or self.keep_share:
            draws_P = uniform(fold(random_states_P, 1))
            random_P = below(fold(random_states_P, 2), catalogue.num_items)
            replaced_P = torch.where(draws_P < self.random_share, random_P, replaced_P)
            replaced_P = torch.where(draws_P >= 1.0 - self.keep_share, targets_P, replaced_P)
        return replaced_P


def fallback_pick(packed: Packed, draws_T: Tensor, picked_T: Tensor) -> Tensor:
    """bool [T]: the token with the smallest draw, in every row in which nothing is picked yet."""
    owner_T = packed.owner_T
    # A picked token's key is below every draw, so that no draw equals its row's minimum.
    keys_T = draws_T.masked_fill(picked_T, -1.0)
    minimum_S = keys_T.new_full((packed.num_sequences,), 2.0)
    minimum_S = minimum_S.scatter_reduce(0, owner_T, keys_T, "amin")
    return draws_T == minimum_S[owner_T]
