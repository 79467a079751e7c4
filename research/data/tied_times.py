"""Ties: interactions of one user at the same time, whose order the file decides and not the times.

Preparation counts them by the times as the source gives them, and writes the counts into the report
of the corpus. The audit and the profile see whole seconds, and read there if finer times decided.
`OrderAgreement` tells an order that was drawn from one in which the source has its items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.findings import level_of, percent, share_of

Times = NDArray[np.int64] | NDArray[np.float64]


def tie_shares(times: Times, offsets: NDArray[np.int64]) -> dict[str, float]:
    """How often equal times leave the order open, as shares (0 to 1) of interactions and of users.

    `times` [N] are in the order of a corpus with these `offsets` [U + 1].
    """
    same = np.zeros(len(times) + 1, dtype=np.bool_)
    same[1:-1] = times[1:] == times[:-1]
    same[offsets] = False
    tied = same[1:] | same[:-1]
    ends = offsets[1:][np.diff(offsets) > 1] - 1
    return {
        # Interactions that have the same time as another one of the same user.
        "tied_interactions": share_of(int(tied.sum()), len(times)),
        # Users whose last two interactions have the same time.
        "users_with_tied_last_two": share_of(int(same[ends].sum()), len(offsets) - 1),
    }


def num_finer_steps(
    seconds: NDArray[np.int64], exact_times: Times, offsets: NDArray[np.int64]
) -> int:
    """How many interactions are in the second of their user's one before, but at a later time.

    All arrays are in the order of the corpus: `seconds` [N], `exact_times` [N], `offsets` [U + 1].
    """
    is_step = (seconds[1:] == seconds[:-1]) & (exact_times[1:] != exact_times[:-1])
    is_step[offsets[1:-1] - 1] = False
    return int(is_step.sum())


@final
@dataclass(frozen=True, kw_only=True)
class OrderAgreement:
    """How alike the order of two neighboring items is wherever they are neighbors.

    A step is from an interaction to the next one of the same user, between two items. Where the
    order is drawn at random, two steps between the same two items go the same way half of the time
    (less where one user has an item twice); where a source has its items in one order, always.
    """

    pairs: int
    """Pairs of items between which there are two steps or more."""
    share: float
    """Of two steps between the same two items, the share (0 to 1) that go the same way: a mean over
    pairs, so that a few frequent ones do not decide. 0: there is no pair."""
    standard_error: float
    """That of the share if the order were drawn, for pairs independent of each other."""

    @staticmethod
    def of(
        items: NDArray[np.int32], offsets: NDArray[np.int64], times: Times | None = None
    ) -> OrderAgreement:
        """The agreement of steps within one time, or without `times` of all steps.

        `items` and `times` [N] are in the order of a corpus with these `offsets` [U + 1].
        """
        # Whether the interaction at each place is a step's end.
        is_end = np.zeros(len(items) + 1, dtype=np.bool_)
        is_end[1:-1] = items[1:] != items[:-1]
        if times is not None:
            is_end[1:-1] &= times[1:] == times[:-1]
        is_end[offsets] = False
        ends = np.flatnonzero(is_end)
        before, after = items[ends - 1].astype(np.int64), items[ends].astype(np.int64)
        span = int(items.max(initial=0)) + 1
        keys = np.minimum(before, after) * span + np.maximum(before, after)
        _, pair_of_step, steps = np.unique(keys, return_inverse=True, return_counts=True)
        forward = np.bincount(pair_of_step, weights=before < after, minlength=len(steps))
        forward, steps = forward[steps > 1], steps[steps > 1]
        if not len(steps):
            return OrderAgreement(pairs=0, share=0.0, standard_error=0.0)
        back, two_steps = steps - forward, steps * (steps - 1)
        same = (forward * (forward - 1) + back * (back - 1)) / two_steps
        # Any two of a pair's n steps agree as often as not, and independently of any other two.
        variance = float((0.5 / two_steps).sum()) / len(steps) ** 2
        return OrderAgreement(
            pairs=len(steps), share=float(same.mean()), standard_error=variance**0.5
        )

    def exceeds(self, share: float) -> bool:
        """Whether at least `LEAST_PAIRS` pairs agree on more than this share, by more than two
        standard errors."""
        return self.pairs >= LEAST_PAIRS and self.share - 2 * self.standard_error > share

    @property
    def sentence(self) -> str:
        """The share in words."""
        return (
            f"of two steps between the same two items, {percent(self.share)} go the same way "
            f"({self.pairs:,} pairs of items), where half would if the order were drawn"
        )


# Below this many pairs, one history that is there twice may make the most of them.
LEAST_PAIRS = 100
# Steps within one time agree by chance on half. Steps through time may agree on more: items come
# out one after another, or are episodes. Those of Amazon's reviews agree on 61 to 72 %.
FIXED_WITHIN_A_TIME, FIXED_THROUGH_TIME = 0.75, 0.9


def has_fixed_order(agreement: OrderAgreement, tied_share: float) -> bool:
    """Whether ties are in an order that is not drawn, and are not too few to matter.

    `agreement` is that within one time, `tied_share` (0 to 1) the share of tied interactions.
    """
    return level_of(tied_share) != "fine" and agreement.exceeds(FIXED_WITHIN_A_TIME)


@final
@dataclass(frozen=True)
class FinerTimes:
    """Times finer than seconds, which ordered a corpus that does not keep them."""

    tied_share: float
    """Share (0 to 1) of interactions with the very time of another one of the same user."""
    most_doubles: int
    """No more interactions than this have the user, item and very time of an earlier one."""

    @staticmethod
    def of(corpus: Corpus) -> FinerTimes | None:
        """What the corpus's report says of them.

        None: seconds decided the order, or an older version, which did not say, prepared the
        corpus.
        """
        report = corpus.manifest.report
        tied_share, duplicates = report.get("tied_interactions"), report.get("duplicates")
        if report.get("ordered_by_finer_times") is not True or not isinstance(duplicates, Mapping):
            return None
        doubles = duplicates.get("exact_doubles_among_them")
        if not isinstance(tied_share, float) or not isinstance(doubles, int):
            return None
        # Each policy but "keep" removes all exact doubles.
        return FinerTimes(tied_share, doubles if duplicates.get("policy") == "keep" else 0)
