"""Which users a run and its stages are trained on: `UserRange` of a stage, `TrainedUsers` of a run.

Users stand in one random order, which the run's seed draws. A run is trained on the first of them,
as many as its `training_share` says, and a stage on those from one share of these to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from research.config import check_types
from research.data.splits import Ranges, Split
from research.errors import InputError
from research.randomness import permutation, seed_of


@dataclass(frozen=True, kw_only=True)
class UserRange:
    """The users from one share to another of the random order of those whom a run is trained on."""

    start: float = 0.0
    """The share of the order before the first of them."""
    stop: float = 1.0
    """The share of the order up to the last of them."""

    def __post_init__(self) -> None:
        check_types(self)
        if not (0.0 <= self.start <= 1.0 and 0.0 <= self.stop <= 1.0):
            raise InputError(
                f"users.start is {self.start:g} and users.stop {self.stop:g}; both are shares, "
                "from 0 to 1"
            )
        if self.start >= self.stop:
            raise InputError(
                f"users.start is {self.start:g} and users.stop {self.stop:g}, so that there is "
                "nobody between; start must be below stop"
            )

    def places(self, number: int) -> slice:
        """The places in an order of so many users; `InputError` if they are none."""
        places = slice(round(self.start * number), round(self.stop * number))
        if number > 0 and places.start == places.stop:
            raise InputError(
                f"users from {self.start:g} to {self.stop:g} of the {number:,} that the run is "
                "trained on are none; set users.start and users.stop farther apart"
            )
        return places


@dataclass(frozen=True)
class TrainedUsers:
    """The users whom a run is trained on."""

    share: float = 1.0
    """The run's `training_share`; at least one user is trained on."""
    ranges: tuple[UserRange, ...] = (UserRange(),)
    """Those of its stages; that of all for a ranker that only counts."""
    seed: int = 0
    """The run's seed, which draws the order."""

    @property
    def are_all(self) -> bool:
        """Whether nobody is left out of any stage."""
        return self.share == 1.0 and set(self.ranges) == {UserRange()}

    def of_stage(self, training: Ranges, users: UserRange) -> Ranges:
        """The rows of a stage among the training rows of all users; `InputError` for none."""
        return training if self.are_all else self._select(training, (users,))

    def split(self, split: Split) -> Split:
        """The split with the training rows of any stage; the questions stay.

        `InputError` for a stage that would be trained on nobody.
        """
        if self.are_all:
            return split
        return replace(split, training=self._select(split.training, self.ranges))

    def _select(self, training: Ranges, ranges: Iterable[UserRange]) -> Ranges:
        number = len(training)
        order = permutation(seed_of("training users", self.seed), number).numpy()
        order = order[: max(1, round(self.share * number))]
        selected: list[NDArray[np.int64]] = [order[users.places(len(order))] for users in ranges]
        return training.select(np.unique(np.concatenate(selected)))
