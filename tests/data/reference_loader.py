"""The slow twin of windows, epoch order and batches: everything is listed, one row at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.splits import Ranges
from research.data.windows import EveryPrefix, LastItems, Sliding, WindowsConfig
from research.randomness import seed_of
from tests.support.reference import WORD, random_below, random_bits


def windows_of(rule: WindowsConfig, training: Ranges, length: int) -> list[tuple[int, int, int]]:
    """(user, start, stop) of every row that a rule makes."""
    rows = []
    for user, start, stop in zip(training.users, training.starts, training.stops, strict=True):
        history = list(range(start, stop))
        if isinstance(rule, LastItems):
            kept = [history[-(length + 1) :]]
        elif isinstance(rule, EveryPrefix):
            newest = history[-length:]
            kept = [newest[:size] for size in range(1, len(newest) + 1)]
        else:
            assert isinstance(rule, Sliding)
            stride = max(1, length // 2) if rule.stride is None else rule.stride
            ends = range(len(history), length, -stride)
            kept = [history[max(0, end - (length + 1)) : end] for end in ends]
            kept.append(history[:length])
        rows += [(int(user), window[0], window[-1] + 1) for window in kept]
    return rows


def order_of(state: int, size: int) -> list[int]:
    """The random order of 0..size-1 that a state names."""
    if size <= 4096:
        # Signed, as the fast code compares them.
        bits = [(random_bits(state, row) + WORD // 2) % WORD for row in range(size)]
        return sorted(range(size), key=lambda row: bits[row])
    return [row_at(state, place, size) for place in range(size)]


def row_at(state: int, place: int, size: int) -> int:
    """What stands at a place of an order of more than 4,096 rows."""
    lefts = 2 * math.ceil(math.sqrt(size) / 2)
    rights = -(-size // lefts)
    while True:
        left, right = divmod(place, rights)
        for number in range(7):
            key = random_bits(state, number)
            if number in (0, 2, 4, 6):
                left = (left + random_below(random_bits(key, right), lefts)) % lefts
            else:
                right = (right + random_below(random_bits(key, left), rights)) % rights
        place = left * rights + right
        if place < size:
            return place


class Row(NamedTuple):
    """A row of a batch."""

    number: int
    user: int
    items: list[int]
    state: int


class Step(NamedTuple):
    """A global batch, and where it ends."""

    rows: list[Row]
    rows_done: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class SlowLoader:
    """What a loader gives, as lists."""

    corpus: Corpus
    windows: list[tuple[int, int, int]]
    config: BatchConfig
    seed: int

    def epoch(self, number: int) -> list[Step]:
        """The global batches of an epoch."""
        state, draws = seed_of(self.seed, "order", number), seed_of(self.seed, "row", number)
        size = len(self.windows)
        order = order_of(state, size)
        if self.config.replacement:
            order = [random_below(random_bits(state, place), size) for place in range(size)]
        rows = []
        for place, row in enumerate(order):
            user, start, stop = self.windows[row]
            rows.append(
                Row(row, user, self.corpus.items[start:stop].tolist(), random_bits(draws, place))
            )
        steps: list[Step] = []
        while rows:
            taken = [rows.pop(0)]
            while rows and self._has_room(taken, rows[0]):
                taken.append(rows.pop(0))
            done = (number + 1) * size - len(rows)
            steps.append(Step(taken, done, sum(len(row.items) for row in taken)))
        return steps

    def _has_room(self, taken: list[Row], further: Row) -> bool:
        if self.config.sequences_per_batch is not None:
            return len(taken) < self.config.sequences_per_batch
        assert self.config.tokens_per_batch is not None
        tokens = sum(len(row.items) for row in [*taken, further])
        return tokens <= self.config.tokens_per_batch
