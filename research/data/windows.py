"""Window rules: which pieces of the training histories are the rows of an epoch.

A rule says how many windows each history has and where the n-th of them begins and ends. `Windows`
computes the rows that the loader asks for, so no array holds all of them. L is the encoder's
length: a window of L + 1 items serves a causal view (L inputs, L targets), and its newest L items
serve a bidirectional view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from research.data.splits import Indices, Ranges
from research.errors import InputError

# From histories [R] and a window's number within each (int64 [R]) to the windows [R].
WindowOf = Callable[[Ranges, Indices], Ranges]


class Windows:
    """The rows of an epoch, numbered user by user, each user's windows in the order of the rule."""

    def __init__(self, training: Ranges, counts: Indices | None, window_of: WindowOf) -> None:
        """`window_of(histories, numbers)` returns window `numbers[r]` of history r, for each r.

        `counts` has the number of windows of each history in `training`; None: one of each.
        """
        self._training = training
        self._window_of = window_of
        self._firsts: Indices | None = None
        if counts is not None:
            self._firsts = np.zeros(len(counts) + 1, dtype=np.int64)
            np.cumsum(counts, out=self._firsts[1:])

    @property
    def num_rows(self) -> int:
        """The number of windows of all users together, which are the rows of an epoch."""
        return len(self._training) if self._firsts is None else int(self._firsts[-1])

    def ranges(self, rows: Indices) -> Ranges:
        """The ranges [R] of the windows with these row numbers (int64 [R], below `num_rows`)."""
        if self._firsts is None:
            return self._window_of(self._training.select(rows), np.zeros_like(rows))
        histories = np.searchsorted(self._firsts, rows, side="right") - 1
        return self._window_of(self._training.select(histories), rows - self._firsts[histories])


class WindowsConfig(ABC):
    """A window rule; a new rule is a subclass, written as a frozen dataclass like those below."""

    @abstractmethod
    def windows(self, training: Ranges, length: int) -> Windows:
        """The windows of the training histories for an encoder of length `length`."""


@dataclass(frozen=True, kw_only=True)
class LastItems(WindowsConfig):
    """One window per user: the newest L + 1 training items (SASRec, S3-Rec's fine-tuning)."""

    def windows(self, training: Ranges, length: int) -> Windows:
        """One window of each history."""

        def window_of(histories: Ranges, numbers: Indices) -> Ranges:
            starts = np.maximum(histories.starts, histories.stops - (length + 1))
            return Ranges(histories.users, starts, histories.stops)

        return Windows(training, None, window_of)


@dataclass(frozen=True, kw_only=True)
class EveryPrefix(WindowsConfig):
    """Every prefix of each user's newest L training items (S3-Rec's pretraining rows).

    Early items are in most rows (docs/pitfalls.md, "prefixes over-weight early items").
    """

    def windows(self, training: Ranges, length: int) -> Windows:
        """The prefixes of each history, the shortest first."""

        def window_of(histories: Ranges, numbers: Indices) -> Ranges:
            starts = np.maximum(histories.starts, histories.stops - length)
            return Ranges(histories.users, starts, starts + numbers + 1)

        return Windows(training, np.minimum(training.stops - training.starts, length), window_of)


@dataclass(frozen=True, kw_only=True)
class Sliding(WindowsConfig):
    """Windows of L + 1 items at a fixed stride, counted back from the newest item (BERT4Rec).

    The newest window ends at the newest item, and each further one ends a stride before the last.
    The oldest window is the first L items, so that a bidirectional view, which reads the newest L
    items of a window, misses none.
    """

    stride: int | None = None
    """Items between the ends of neighbouring windows; at most L, as a larger stride would skip
    items. None: half of L."""

    def windows(self, training: Ranges, length: int) -> Windows:
        """The windows of each history, the newest first; `InputError` if the stride is not 1..L."""
        stride = max(1, length // 2) if self.stride is None else self.stride
        if not 1 <= stride <= length:
            raise InputError(
                f"windows.stride is {self.stride}; it must be from 1 to encoder.length ({length})"
            )

        def window_of(histories: Ranges, numbers: Indices) -> Ranges:
            first_stops = np.minimum(histories.starts + length, histories.stops)
            stops: Indices = np.maximum(histories.stops - numbers * stride, first_stops)
            starts = np.maximum(histories.starts, stops - (length + 1))
            return Ranges(histories.users, starts, stops)

        sizes = training.stops - training.starts
        return Windows(training, 1 + np.maximum(0, -(-(sizes - length) // stride)), window_of)
