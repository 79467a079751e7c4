"""`UserRange`: some of the users that a split trains on, by their places in a random order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.config import check_types
from research.data.splits import Ranges
from research.errors import InputError
from research.randomness import permutation, seed_of


@dataclass(frozen=True, kw_only=True)
class UserRange:
    """The users from one share to another of a random order, which a seed draws."""

    start: float = 0.0
    """The share of the users who come before them, from 0; the first of them follows."""
    stop: float = 1.0
    """The share of the users up to the last of them, at most 1."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.start < self.stop <= 1.0:
            raise InputError(
                f"users from {self.start:g} to {self.stop:g} of the order are none; start must be "
                "at least 0 and below stop, which is at most 1"
            )

    def of(self, training: Ranges, seed: int) -> Ranges:
        """Those of N training rows, one a user, that are in the range; in the order of the rows.

        The order is drawn by `seed`, and is the same for all ranges: where one stops and another
        starts, no row is in both or in neither. A range too narrow for a row has the one at its
        place.
        """
        if self == UserRange():
            return training
        order = permutation(seed_of("training users", seed), len(training)).numpy()
        first, stop = (round(share * len(order)) for share in (self.start, self.stop))
        first = min(first, len(order) - 1)
        return training.select(np.sort(order[first : max(stop, first + 1)]))
