"""Held-out users: what a model makes of the histories of people whom it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.config import check_types
from research.data.corpus import Corpus
from research.data.held_out import HeldOut, Indices, Ranges, Split
from research.errors import InputError
from research.randomness import permutation, seed_of


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
