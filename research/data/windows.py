"""Window rules: which pieces of the training histories are the rows of an epoch.

A rule is a function of a split's training ranges; it copies nothing. L is the encoder's length: a
window of L + 1 items serves a causal view (L inputs, L targets) and, by its newest L, a
bidirectional one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.data.splits import Indices, Ranges
from research.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LastItems:
    """One row a user: the newest L + 1 training items (SASRec, S3-Rec's fine-tuning)."""

    def windows(self, training: Ranges, length: int) -> Ranges:
        """[R] rows for an encoder of `length` items."""
        starts = np.maximum(training.starts, training.stops - (length + 1))
        return Ranges(training.users, starts, training.stops)


@dataclass(frozen=True, kw_only=True)
class EveryPrefix:
    """Every prefix of each user's newest L training items (S3-Rec's pretraining rows)."""

    def windows(self, training: Ranges, length: int) -> Ranges:
        """[R] rows for an encoder of `length` items, a user's shortest prefix first."""
        starts = np.maximum(training.starts, training.stops - length)
        counts = training.stops - starts
        rows = np.repeat(np.arange(len(training)), counts)
        sizes = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        return Ranges(training.users[rows], starts[rows], starts[rows] + sizes)


@dataclass(frozen=True, kw_only=True)
class Sliding:
    """Windows of L + 1 items, a stride apart, counted back from the newest (BERT4Rec).

    A window ends at the newest item and others end a stride apart before it; the oldest holds the
    first L items, so that a bidirectional view, which reads the newest L of a window, misses none.
    """

    stride: int | None = None
    """Items between the ends of neighbouring windows, at most L, else items would be skipped; None:
    half of L."""

    def windows(self, training: Ranges, length: int) -> Ranges:
        """[R] rows for an encoder of `length` items, a user's newest window first."""
        stride = max(1, length // 2) if self.stride is None else self.stride
        if not 1 <= stride <= length:
            raise InputError(
                f"windows.stride is {self.stride}; it must be from 1 to encoder.length ({length})"
            )
        sizes = training.stops - training.starts
        counts = 1 + np.maximum(0, -(-(sizes - length) // stride))
        rows = np.repeat(np.arange(len(training)), counts)
        steps = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        first_stops = np.minimum(training.starts + length, training.stops)
        stops: Indices = np.maximum(training.stops[rows] - steps * stride, first_stops[rows])
        starts = np.maximum(training.starts[rows], stops - (length + 1))
        return Ranges(training.users[rows], starts, stops)


WindowsConfig = LastItems | EveryPrefix | Sliding
