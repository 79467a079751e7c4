"""Which interactions train and which are held out: leave-one-out, held-out users, points in time.

Held-out items are removed here, before any window rule runs, so that leakage is a property of one
function. A split speaks of ranges of `Corpus.items`; nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from research.config import check_types
from research.data.corpus import Corpus
from research.errors import InputError
from research.randomness import permutation, seed_of

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranges:
    """Pieces of users' histories: row r is `corpus.items[starts[r]:stops[r]]` of `users[r]`."""

    users: Indices
    """[R]: dense user ids."""
    starts: Indices
    """[R]: index of the oldest interaction."""
    stops: Indices
    """[R]: index after the newest interaction."""

    def __len__(self) -> int:
        return len(self.users)

    def select(self, kept: NDArray[np.bool_] | Indices) -> Ranges:
        """The rows that a mask or an index names."""
        return Ranges(self.users[kept], self.starts[kept], self.stops[kept])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Questions for an evaluation: given a history, at which rank stands the held-out item?"""

    histories: Ranges
    """[Q]: what the ranker is shown; for the test split it contains the validation items."""
    targets: Indices
    """[Q]: index into `corpus.items` of each held-out interaction."""

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, kept: NDArray[np.bool_] | Indices) -> HeldOut:
        """The rows that a mask or an index names."""
        return HeldOut(self.histories.select(kept), self.targets[kept])


@dataclass(frozen=True, eq=False)
class Split:
    """What trains, what selects, what tests."""

    training: Ranges
    """One row a user with at least one training interaction."""
    validation: HeldOut
    test: HeldOut
    not_evaluated: int
    """Users who should test but cannot: too short a history, or nothing on one side of the cut."""


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Each user's last item tests, the one before validates, the rest trains."""

    validation_in_training: bool = False
    """Whether the validation item stands in the training rows too, as in the original BERT4Rec
    code; its validation figures then say nothing, and only the test split is honest."""

    def split(self, corpus: Corpus) -> Split:
        """Users with fewer than three interactions train and are not evaluated."""
        starts = np.asarray(corpus.offsets[:-1])
        stops = np.asarray(corpus.offsets[1:])
        users = np.arange(corpus.num_users, dtype=np.int64)
        evaluated = np.flatnonzero(stops - starts >= 3)
        if len(evaluated) == 0:
            raise InputError(
                f"corpus {corpus.name}: no user has the 3 interactions that leave-one-out needs "
                f"(the longest history has {int((stops - starts).max(initial=0))}); prepare it "
                "with weaker filters or choose another split"
            )
        training_stops = stops.copy()
        training_stops[evaluated] -= 1 if self.validation_in_training else 2
        everyone = Ranges(users, starts, training_stops)
        histories = Ranges(users, starts, stops).select(evaluated)
        return Split(
            training=everyone.select(training_stops > starts),
            validation=HeldOut(
                Ranges(histories.users, histories.starts, histories.stops - 2),
                histories.stops - 2,
            ),
            test=HeldOut(
                Ranges(histories.users, histories.starts, histories.stops - 1),
                histories.stops - 1,
            ),
            not_evaluated=corpus.num_users - len(evaluated),
        )


@dataclass(frozen=True, kw_only=True)
class UserHoldout:
    """Whole users are held out; of each, the last item is the target, all before it the history."""

    validation_share: float = 0.1
    """Share of users that validate."""
    test_share: float = 0.1
    """Share of users that test."""
    seed: int = 0
    """Which users; kept apart from the run's seed so that seeds share one split."""

    def __post_init__(self) -> None:
        check_types(self)
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise InputError(
                f"split: shares {shares} of validation and test users must be 0 or more and "
                "leave some users to train"
            )

    def split(self, corpus: Corpus) -> Split:
        """Held-out users with fewer than two interactions are not evaluated."""
        starts = np.asarray(corpus.offsets[:-1])
        stops = np.asarray(corpus.offsets[1:])
        order = permutation(seed_of("user holdout", self.seed), corpus.num_users).numpy()
        num_validation = round(self.validation_share * corpus.num_users)
        num_test = round(self.test_share * corpus.num_users)
        test, validation, training = (
            np.sort(part) for part in np.split(order, [num_test, num_test + num_validation])
        )
        users = np.arange(corpus.num_users, dtype=np.int64)
        everyone = Ranges(users, starts, stops)

        def ask(chosen: Indices) -> HeldOut:
            rows = everyone.select(chosen[stops[chosen] - starts[chosen] >= 2])
            return HeldOut(Ranges(rows.users, rows.starts, rows.stops - 1), rows.stops - 1)

        split = Split(
            training=everyone.select(training[stops[training] > starts[training]]),
            validation=ask(validation),
            test=ask(test),
            not_evaluated=int((stops - starts < 2)[np.r_[validation, test]].sum()),
        )
        if len(split.test) == 0 or len(split.training) == 0:
            raise InputError(
                f"corpus {corpus.name}: {corpus.num_users} users do not suffice to train on some "
                f"and hold out {self.test_share:.0%} with two interactions each"
            )
        return split


@dataclass(frozen=True, kw_only=True)
class GlobalTemporal:
    """Two points in time cut all histories: before both trains, between validates, after tests.

    Each held-out (user, item) is one question; its history is all of the user's interactions before
    the cut that precedes it. Users without one, or with nothing after it, are not evaluated.
    """

    validation_share: float = 0.1
    """Share of all interactions, the ones just before the test part."""
    test_share: float = 0.1
    """Share of all interactions, the newest."""

    def __post_init__(self) -> None:
        check_types(self)
        shares = (self.validation_share, self.test_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            raise InputError(
                f"split: shares {shares} of validation and test interactions must be above 0 and "
                "leave some to train"
            )

    def split(self, corpus: Corpus) -> Split:
        """Interactions at the very second of a cut fall after it."""
        if corpus.timestamps is None:
            raise InputError(
                f"corpus {corpus.name} has no timestamps, which a split at points in time needs; "
                "choose leave-one-out or held-out users"
            )
        times = np.asarray(corpus.timestamps)
        ordered = np.sort(times)
        test_from = ordered[int(len(times) * (1 - self.test_share))]
        validate_from = ordered[int(len(times) * (1 - self.test_share - self.validation_share))]
        starts = np.asarray(corpus.offsets[:-1])
        users = np.arange(corpus.num_users, dtype=np.int64)

        # Histories are in time order, so the interactions before a cut are a prefix of each.
        def stops_before(cut: np.int64) -> Indices:
            before = np.concatenate([[0], np.cumsum(times < cut)])
            stops: Indices = starts + before[corpus.offsets[1:]] - before[starts]
            return stops

        validation_starts = stops_before(validate_from)
        test_starts = stops_before(test_from)

        def ask(froms: Indices, tos: Indices) -> HeldOut:
            counts = np.where(froms > starts, tos - froms, 0)
            rows = np.repeat(users, counts)
            targets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            targets += froms[rows]
            # An item that returns is one question: its first place after the cut.
            pairs = rows * corpus.num_items + corpus.items[targets]
            first = np.sort(np.unique(pairs, return_index=True)[1])
            rows, targets = rows[first], targets[first]
            return HeldOut(Ranges(rows, starts[rows], froms[rows]), targets)

        everyone = Ranges(users, starts, validation_starts)
        test = ask(test_starts, np.asarray(corpus.offsets[1:]))
        split = Split(
            training=everyone.select(validation_starts > starts),
            validation=ask(validation_starts, test_starts),
            test=test,
            not_evaluated=corpus.num_users - len(np.unique(test.histories.users)),
        )
        if len(split.test) == 0 or len(split.training) == 0:
            raise InputError(
                f"corpus {corpus.name}: no user has interactions on both sides of the cut at "
                f"timestamp {int(test_from)}; choose other shares or another split"
            )
        return split


SplitConfig = LeaveOneOut | UserHoldout | GlobalTemporal


def training_counts(corpus: Corpus, split: Split) -> torch.Tensor:
    """int64 [V]: how often each item stands in the training part."""
    items = torch.from_numpy(corpus.items[flat_indices(split.training)].astype(np.int64))
    return torch.bincount(items, minlength=corpus.num_items)


def flat_indices(ranges: Ranges) -> Indices:
    """Indices into `corpus.items` of all rows' interactions, row after row."""
    lengths = ranges.stops - ranges.starts
    ends = np.cumsum(lengths)
    flat = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
    flat += np.repeat(ranges.starts - (ends - lengths), lengths)
    return flat
