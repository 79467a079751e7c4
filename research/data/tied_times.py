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
from research.data.findings import percent, share_of

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
@dataclass(frozen=True)
class OrderAgreement:
    """How alike the order of two neighboring items is wherever they are neighbors.

    A step is from an interaction to the next one of the same user, between two items. Where the
    order is drawn at random, two steps between the same two items go the same way half of the time;
    where a source has its items in one order, always.
    """

    pairs: int
    """Pairs of items between which there are two steps or more."""
    share: float
    """Of two steps between the same two items, the share (0 to 1) that go the same way, in the mean
    over pairs; 0: there is no pair."""

    @staticmethod
    def of(
        items: NDArray[np.int32], offsets: NDArray[np.int64], times: Times | None = None
    ) -> OrderAgreement:
        """The agreement of steps within one time, or without `times` of all steps.

        `items` and `times` [N] are in the order of a corpus with these `offsets` [U + 1].
        """
        is_step = items[1:] != items[:-1]
        is_step[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(items))] - 1] = False
        if times is not None:
            is_step &= times[1:] == times[:-1]
        before, after = items[:-1][is_step].astype(np.int64), items[1:][is_step].astype(np.int64)
        span = int(items.max(initial=0)) + 1
        keys = np.minimum(before, after) * span + np.maximum(before, after)
        _, pair_of_step, steps = np.unique(keys, return_inverse=True, return_counts=True)
        forward = np.bincount(pair_of_step, weights=before < after, minlength=len(steps))
        forward, steps = forward[steps > 1], steps[steps > 1]
        back = steps - forward
        same = (forward * (forward - 1) + back * (back - 1)) / (steps * (steps - 1))
        return OrderAgreement(len(steps), float(same.mean()) if len(steps) else 0.0)

    def exceeds(self, share: float) -> bool:
        """Whether it agrees on more than this share by more than chance would give.

        That is two standard errors of a mean over pairs, each of which has .5 at most.
        """
        return self.pairs > 0 and self.share - self.pairs**-0.5 > share

    @property
    def sentence(self) -> str:
        """The share in words."""
        return (
            f"of two steps between the same two items, {percent(self.share)} go the same way "
            f"({self.pairs:,} pairs of items), where half would if the order were drawn"
        )


# Steps within one time agree by chance on half. Steps through time may agree on more: items come
# out one after another, or are episodes. Those of Amazon's reviews agree on 61 to 72 %.
FIXED_WITHIN_A_TIME, FIXED_THROUGH_TIME = 0.75, 0.9


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
