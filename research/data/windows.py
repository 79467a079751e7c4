"""Window rules: which pieces of the training histories are the rows of an epoch.

A rule says how many windows a history has and where its n-th one stands; `Windows` finds a row of
all of them when it is asked for, and nothing holds them all. L is the encoder's length: a window of
L + 1 items serves a causal view (L inputs, L targets) and, by its newest L, a bidirectional one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from research.data.splits import Indices, Ranges
from research.errors import InputError

Place = Callable[[Ranges, Indices], Ranges]


class Windows:
    """The rows of an epoch: user after user, each user's windows in the order of the rule."""

    def __init__(self, training: Ranges, counts: Indices | None, place: Place) -> None:
        """`place(histories, numbers)` gives window `numbers[r]` of history r, for each r.

        `counts` [U] says how many windows each history of `training` has; None: one.
        """
        self._training = training
        self._place = place
        self._firsts: Indices | None = None
        if counts is not None:
            self._firsts = np.zeros(len(counts) + 1, dtype=np.int64)
            np.cumsum(counts, out=self._firsts[1:])

    @property
    def num_rows(self) -> int:
        """Windows of all users together."""
        return len(self._training) if self._firsts is None else int(self._firsts[-1])

    def ranges(self, rows: Indices) -> Ranges:
        """[R]: where the windows with these numbers, each below `num_rows`, stand."""
        if self._firsts is None:
            return self._place(self._training.select(rows), np.zeros_like(rows))
        histories = np.searchsorted(self._firsts, rows, side="right") - 1
        return self._place(self._training.select(histories), rows - self._firsts[histories])


class WindowsConfig(ABC):
    """A window rule; one of your own is a subclass, a frozen dataclass like those below."""

    @abstractmethod
    def windows(self, training: Ranges, length: int) -> Windows:
        """The rows for an encoder of `length` items."""


@dataclass(frozen=True, kw_only=True)
class LastItems(WindowsConfig):
    """One row a user: the newest L + 1 training items (SASRec, S3-Rec's fine-tuning)."""

    def windows(self, training: Ranges, length: int) -> Windows:
        """A row a history."""

        def place(histories: Ranges, numbers: Indices) -> Ranges:
            starts = np.maximum(histories.starts, histories.stops - (length + 1))
            return Ranges(histories.users, starts, histories.stops)

        return Windows(training, None, place)


@dataclass(frozen=True, kw_only=True)
class EveryPrefix(WindowsConfig):
    """Every prefix of each user's newest L training items (S3-Rec's pretraining rows)."""

    def windows(self, training: Ranges, length: int) -> Windows:
        """A user's shortest prefix first."""

        def place(histories: Ranges, numbers: Indices) -> Ranges:
            starts = np.maximum(histories.starts, histories.stops - length)
            return Ranges(histories.users, starts, starts + numbers + 1)

        return Windows(training, np.minimum(training.stops - training.starts, length), place)


@dataclass(frozen=True, kw_only=True)
class Sliding(WindowsConfig):
    """Windows of L + 1 items, a stride apart, counted back from the newest (BERT4Rec).

    A window ends at the newest item and others end a stride apart before it; the oldest holds the
    first L items, so that a bidirectional view, which reads the newest L of a window, misses none.
    """

    stride: int | None = None
    """Items between the ends of neighbouring windows, at most L, else items would be skipped; None:
    half of L."""

    def windows(self, training: Ranges, length: int) -> Windows:
        """A user's newest window first; `InputError` for a stride that would skip items."""
        stride = max(1, length // 2) if self.stride is None else self.stride
        if not 1 <= stride <= length:
            raise InputError(
                f"windows.stride is {self.stride}; it must be from 1 to encoder.length ({length})"
            )

        def place(histories: Ranges, numbers: Indices) -> Ranges:
            first_stops = np.minimum(histories.starts + length, histories.stops)
            stops: Indices = np.maximum(histories.stops - numbers * stride, first_stops)
            starts = np.maximum(histories.starts, stops - (length + 1))
            return Ranges(histories.users, starts, stops)

        sizes = training.stops - training.starts
        return Windows(training, 1 + np.maximum(0, -(-(sizes - length) // stride)), place)
