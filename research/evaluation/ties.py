"""Tied candidates as groups that share places, and expectations over all orders within a group.

`metrics.py` computes every metric from these groups. Candidates of equal scores have no order, so a
metric is its mean over all their orders, each equally likely (McSherry and Najork 2008, ECIR,
"Computing information retrieval performance measures efficiently in the presence of tied scores").
In a user's ranked list a group of N tied candidates takes N places in a row. The n held-out items
in the group are at any n of those places with equal chance, independently of other groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from research.evaluation.rank_table import RankTable, group_starts

TiePolicy = Literal["expected", "mean"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Sums over places up to here are added term by term; beyond, the midpoint rule is exact to
# rounding.
_ADDED_DIRECTLY = 4096
# Most numbers in memory at a time in `hit_and_reciprocal`.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class TieGroups:
    """The G groups of tied candidates that contain held-out items.

    They are sorted by owner, then from the best places down. An owner is a user, or one of the
    rankings of a user who is asked after several histories. An item with infinite rank (a miss) is
    in no group.
    """

    owner: Integers
    """[G] number of the owner, from 0."""
    first: Floats
    """[G] the group's first place in the ranked list, 1-based."""
    size: Floats
    """[G] N, the number of candidates in the group."""
    number: Floats
    """[G] n, how many of them are held-out items of the user: 1 to N."""
    before: Floats
    """[G] how many held-out items of the user are in better groups."""

    @staticmethod
    def of(table: RankTable, owner: Integers, ties: TiePolicy) -> TieGroups:
        """The groups of a table in which row r belongs to the owner `owner[r]`.

        Under "expected" a group is a set of tied candidates; under "mean" each held-out item is a
        group of its own, at its mean rank.
        """
        is_ranked = np.isfinite(table.rank)
        owner, rank = owner[is_ranked], table.rank[is_ranked]
        others = table.ties[is_ranked].astype(np.float64)
        if ties == "mean":
            rank, others = separate_ties(rank, owner), np.zeros(len(rank))
        first = rank - others / 2
        order = np.lexsort((first, owner))
        owner, first, others = owner[order], first[order], others[order]
        starts = group_starts(owner, first)
        number = np.diff(np.r_[starts, len(order)])
        # A user's scores from two batches may differ in their last bit. Then several held-out items
        # can have the same place although no tie was counted for it.
        size = np.maximum(np.maximum.reduceat(others, starts) + 1.0, number)
        before = starts - np.searchsorted(owner, owner[starts])
        return TieGroups(
            owner[starts], first[starts], size, number.astype(float), before.astype(float)
        )

    def within(self, k: float) -> Floats:
        """How many places of each group are among the first k: float64 [G]."""
        within: Floats = np.clip(np.floor(k - self.first) + 1.0, 0.0, self.size)
        return within

    def best_groups(self) -> TieGroups:
        """Each user's best group; in every order it contains the user's best held-out item."""
        is_best = self.before == 0
        return TieGroups(**{name: column[is_best] for name, column in vars(self).items()})


def separate_ties(rank: Floats, owner: Integers) -> Floats:
    """Mean ranks, with a user's held-out items that tie with each other set one place apart.

    `rank` and `owner` (the user) are by held-out item, as is the result, float64. Such items have
    the same mean rank, but they cannot share a place: if all of them were within k, there would be
    more hits than places. They are set around that mean; their order does not matter.
    """
    order = np.lexsort((rank, owner))
    ranks, owners = rank[order], owner[order]
    starts = group_starts(owners, ranks)
    sizes = np.diff(np.r_[starts, len(order)])
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    separated = np.empty(len(order))
    separated[order] = ranks + (place - (np.repeat(sizes, sizes) - 1) / 2)
    assert np.all(separated >= 1.0), "a user's held-out item is in the table twice"
    return separated


def hit_and_reciprocal(groups: TieGroups, k: float) -> tuple[Floats, Floats]:
    """For the best held-out item of each group: (chance of a hit, expected reciprocal), [G] each.

    The first is the chance that the item is within the first k, the second the expectation of
    1 / place, where a place beyond k counts as 0. A single held-out item is uniform over the
    group's places. The best of n among N, if it is not before the i-th place, is at it with chance
    n / (N - i + 1): the places are tried in turn, once for all groups with the same numbers.
    """
    within = groups.within(k)
    hit = within / groups.size
    reciprocal = reciprocals(groups.first, within) / groups.size
    groups_with_several = np.flatnonzero((groups.number > 1) & (within > 0))
    if len(groups_with_several) == 0:
        return hit, reciprocal
    kinds = np.stack([groups.first, groups.size, groups.number, within], axis=1)[
        groups_with_several
    ]
    kinds, kind = np.unique(kinds, axis=0, return_inverse=True)
    first, size, number, tried = (column[:, None] for column in kinds.T)
    miss_probability: Floats = np.ones((len(kinds), 1))
    expected_reciprocal: Floats = np.zeros(len(kinds))
    width = min(max(1, _BLOCK // len(kinds)), int(tried.max()))
    for begin in range(0, int(tried.max()), width):
        steps = np.arange(begin, begin + width)
        hit_probability = np.where(steps < tried, number / np.maximum(size - steps, number), 0.0)
        still_missing: Floats = np.multiply.accumulate(
            np.hstack([miss_probability, 1.0 - hit_probability]), axis=1
        )
        expected_reciprocal += (still_missing[:, :-1] * hit_probability / (first + steps)).sum(1)
        miss_probability = still_missing[:, -1:]
    hit[groups_with_several] = (1.0 - miss_probability[:, 0])[kind.ravel()]
    reciprocal[groups_with_several] = expected_reciprocal[kind.ravel()]
    return hit, reciprocal


def reciprocals(first: Floats, number: Floats) -> Floats:
    """The sum of 1 / place over `number` places from `first` on: float64 [G]."""
    return _sum_over_places(first, number, lambda place: 1.0 / place, _integral_of_reciprocal)


def discounts(first: Floats, number: Floats) -> Floats:
    """The sum of DCG's discount, 1 / log2(place + 1), over `number` places from `first`: [G]."""
    return _sum_over_places(
        first, number, lambda place: 1.0 / np.log2(place + 1.0), _integral_of_discount
    )


def _sum_over_places(
    first: Floats,
    number: Floats,
    value: Callable[[Floats], Floats],
    integral: Callable[[Floats, Floats], Floats],
) -> Floats:
    """The sum of `value` over `number` places from `first` on: float64 [G].

    `integral` gives its integral between two places. The sum over one place is exactly its value.
    """
    sums = np.where(number > 0, value(first), 0.0)
    several = np.flatnonzero(number > 1)
    low, high = first[several], first[several] + number[several] - 1.0
    added = np.r_[0.0, np.cumsum(value(np.arange(1.0, _ADDED_DIRECTLY + 1.0)))]
    ends = [np.minimum(place, _ADDED_DIRECTLY).astype(np.int64) for place in (low - 1.0, high)]
    sums[several] = added[ends[1]] - added[ends[0]]
    far = high > _ADDED_DIRECTLY
    low, high = np.maximum(low[far], _ADDED_DIRECTLY + 1.0) - 0.5, high[far] + 0.5
    slopes = [value(place + 0.5) - value(place - 0.5) for place in (low, high)]
    sums[several[far]] += integral(low, high) - (slopes[1] - slopes[0]) / 24.0
    return sums


def _integral_of_reciprocal(low: Floats, high: Floats) -> Floats:
    return np.log1p((high - low) / low)


def _integral_of_discount(low: Floats, high: Floats) -> Floats:
    """The integral of ln 2 / ln(x + 1), float64 [G].

    With u = ln(x + 1) it is ln 2 times that of e^u / u, computed by Gauss-Legendre quadrature.
    """
    begin, length = np.log(low + 1.0), np.log1p((high - low) / (low + 1.0))
    total: Floats = np.zeros(len(low))
    for node, weight in zip(*np.polynomial.legendre.leggauss(32)):
        points = begin + length * (node + 1.0) / 2.0
        total += np.log(2.0) * length * weight / 2.0 * np.exp(points) / points
    return total
