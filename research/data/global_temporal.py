"""Two points in time that cut all histories: everything after each is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.config import check_types
from research.data.corpus import Corpus
from research.data.held_out import HeldOut, Indices, Ranges, Split, first_of_each_item
from research.data.time_cuts import nobody_left, stops_through, times_of
from research.errors import InputError


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
        times = times_of(corpus)
        ordered = np.sort(times)
        test_from, validate_from = (
            # 1 - .05 - .05 is a little less than .9 in floating point.
            ordered[min(int(len(times) * (1 - share) + 1e-6), len(times) - 1)]
            for share in (self.test_share, self.test_share + self.validation_share)
        )
        starts = np.asarray(corpus.offsets[:-1])
        users = np.arange(corpus.num_users, dtype=np.int64)

        # An interaction at the very time of a cut falls after it.
        validation_starts = stops_through(corpus, times, int(validate_from) - 1)
        test_starts = stops_through(corpus, times, int(test_from) - 1)

        def held_out_between(part_starts: Indices, part_stops: Indices) -> HeldOut:
            counts = np.where(part_starts > starts, part_stops - part_starts, 0)
            rows = np.repeat(users, counts)
            targets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            targets += part_starts[rows]
            # An item that a user takes several times in a part is one question, at its first place.
            first = first_of_each_item(corpus, rows, targets)
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
            raise nobody_left(
                corpus,
                int(test_from),
                "with interactions on both sides of it",
                "Choose other shares, or another split.",
                cut_is_before=False,
            )
        return split
