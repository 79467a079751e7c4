"""What a split is: ranges of `Corpus.items` to train on, and questions about held-out interactions.

`splits.py` names the protocols that make one. Nothing of the corpus is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from research.data.corpus import Corpus

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


def first_of_each_item(corpus: Corpus, users: Indices, targets: Indices) -> Indices:
    """int64 [Q']: which questions stay where an item that a user takes several times is asked once.

    It is asked at its first place. `users` and `targets` [Q] are the user of each question and its
    index into `corpus.items`, in the order of time within a user.
    """
    pairs = users * corpus.num_items + corpus.items[targets]
    firsts: Indices = np.sort(np.unique(pairs, return_index=True)[1])
    return firsts
