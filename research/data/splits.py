"""Splits: which interactions are trained on and which are held out for validation and test.

There are leave-one-out, held-out users and points in time. Held-out items are removed here, before
any window rule runs, so whether they leak depends on one function alone. A split consists of ranges
of `Corpus.items`; nothing is copied.
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
    """int64 [R]: dense user id of each row."""
    starts: Indices
    """int64 [R]: index into `corpus.items` of each row's oldest interaction."""
    stops: Indices
    """int64 [R]: index after each row's newest interaction."""

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: NDArray[np.bool_] | Indices) -> Ranges:
        """The rows where a mask (bool [R]) is true, or those with the given numbers."""
        return Ranges(self.users[rows], self.starts[rows], self.stops[rows])

    def runs(self) -> Indices:
        """int64 [R]: for each row the number, from 0, of its run of equal neighbouring rows."""
        is_new = np.zeros(len(self), dtype=bool)
        for values in (self.users, self.starts, self.stops):
            is_new[1:] |= values[1:] != values[:-1]
        return np.cumsum(is_new)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Questions of an evaluation: given a history, what is the rank of the held-out item?"""

    histories: Ranges
    """[Q] rows: the history that the ranker sees; in a test of leave-one-out or of points in time
    it includes the user's validation items. Questions about one history are neighbours in the
    splits here, and are ranked together at the cost of one."""
    targets: Indices
    """int64 [Q]: index into `corpus.items` of each question's held-out interaction."""

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, questions: NDArray[np.bool_] | Indices) -> HeldOut:
        """The questions where a mask (bool [Q]) is true, or those with the given numbers."""
        return HeldOut(self.histories.select(questions), self.targets[questions])


@dataclass(frozen=True, eq=False)
class Split:
    """The training histories, and the questions of validation and of test."""

    training: Ranges
    """One row for each user who has at least one training interaction."""
    validation: HeldOut
    """The questions that select the best checkpoint."""
    test: HeldOut
    """The questions of the final evaluation."""
    not_evaluated: int
    """Number of users that cannot be evaluated: their history is too short or, with points in time,
    they have no interaction on one side of the test cut."""


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Each user's last item is for test, the one before it for validation, the rest for training.

    Users with fewer than three interactions are trained on and not evaluated.
    """

    validation_in_training: bool = False
    """Whether the validation item is in the training rows too, as in the original BERT4Rec code;
    validation figures then say nothing, and only those of the test are honest."""

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus; `InputError` if no user has three interactions."""
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
    """Whole users are held out; a user's last item is the target, all items before it the history.

    Held-out users with fewer than two interactions are not evaluated.
    """

    validation_share: float = 0.1
    """Share of users that are held out for validation."""
    test_share: float = 0.1
    """Share of users that are held out for test."""
    seed: int = 0
    """Seed of the choice of users, apart from the run's seed, so that runs of all seeds share one
    split."""

    def __post_init__(self) -> None:
        check_types(self)
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise InputError(
                f"split: shares {shares} of validation and test users must be 0 or more and "
                "leave some users to train"
            )

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus; `InputError` if nobody remains to train on or to test."""
        starts = np.asarray(corpus.offsets[:-1])
        stops = np.asarray(corpus.offsets[1:])
        order = permutation(seed_of("user holdout", self.seed), corpus.num_users).numpy()
        num_validation = round(self.validation_share * corpus.num_users)
        num_test = round(self.test_share * corpus.num_users)
        test, validation, training = (
            np.sort(part) for part in np.split(order, [num_test, num_test + num_validation])
        )
        users = np.arange(corpus.num_users, dtype=np.int64)
        histories = Ranges(users, starts, stops)

        def held_out_for(users_chosen: Indices) -> HeldOut:
            rows = histories.select(users_chosen[stops[users_chosen] - starts[users_chosen] >= 2])
            return HeldOut(Ranges(rows.users, rows.starts, rows.stops - 1), rows.stops - 1)

        split = Split(
            training=histories.select(training[stops[training] > starts[training]]),
            validation=held_out_for(validation),
            test=held_out_for(test),
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
    """Two points in time cut all histories into training, validation and test, in this order.

    Each pair of a user and a held-out item is one question; its history is all of the user's
    interactions before the start of the part that the item is in. A user without interactions
    before that start, or without any in the part, has no question there. Leave-one-out trains on
    what came after many test moments (docs/pitfalls.md, "leave-one-out leaks the future").
    """

    validation_share: float = 0.1
    """Share of all interactions that are for validation, those just before the test part."""
    test_share: float = 0.1
    """Share of all interactions that are for test, the newest ones."""

    def __post_init__(self) -> None:
        check_types(self)
        shares = (self.validation_share, self.test_share)
        if min(shares) <= 0 or sum(shares) >= 1:
            raise InputError(
                f"split: shares {shares} of validation and test interactions must be above 0 and "
                "leave some to train"
            )

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus; interactions at the very time of a cut fall after it.

        Raises `InputError` if the corpus has no timestamps, or if nobody remains to train on or to
        test.
        """
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

        def held_out_between(part_starts: Indices, part_stops: Indices) -> HeldOut:
            counts = np.where(part_starts > starts, part_stops - part_starts, 0)
            rows = np.repeat(users, counts)
            targets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            targets += part_starts[rows]
            # An item that a user takes several times in a part is one question, at its first place.
            pairs = rows * corpus.num_items + corpus.items[targets]
            first = np.sort(np.unique(pairs, return_index=True)[1])
            rows, targets = rows[first], targets[first]
            return HeldOut(Ranges(rows, starts[rows], part_starts[rows]), targets)

        histories = Ranges(users, starts, validation_starts)
        test = held_out_between(test_starts, np.asarray(corpus.offsets[1:]))
        split = Split(
            training=histories.select(validation_starts > starts),
            validation=held_out_between(validation_starts, test_starts),
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
    """int64 [V]: the number of interactions with each item in the training part."""
    items = torch.from_numpy(corpus.items[flat_indices(split.training)].astype(np.int64))
    return torch.bincount(items, minlength=corpus.num_items)


def flat_indices(ranges: Ranges) -> Indices:
    """int64: indices into `corpus.items` of the interactions of all rows, row after row."""
    lengths = ranges.stops - ranges.starts
    ends = np.cumsum(lengths)
    flat = np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
    flat += np.repeat(ranges.starts - (ends - lengths), lengths)
    return flat
