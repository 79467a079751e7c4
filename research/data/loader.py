"""The loader: the order of an epoch, its batches, and each process's share of them.

All are pure functions of (seed, epoch), and the loader keeps no state. `Loader.batches(epoch)`
yields packed batches of clean items, and computes the rows chunk by chunk. A continued run asks for
the same epoch from the place that its last batch reached. Any number of processes gets the same
global batches, and each process its own rows of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch, pack
from research.data.corpus import Corpus
from research.data.splits import Indices
from research.data.windows import Windows, WindowsConfig
from research.errors import InputError
from research.randomness import below, fold, permutation_at, seed_of

# Rows that are computed at once: with far fewer each row costs more, and far more do not fit into
# the processor's cache.
CHUNK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How an epoch is cut into global batches; exactly one of the two sizes is set."""

    sequences_per_batch: int | None = 256
    """Sequences in a step of all processes together; None: `tokens_per_batch` decides."""
    tokens_per_batch: int | None = None
    """Most tokens in a step of all processes together (a longer row is a batch of its own); None:
    `sequences_per_batch` decides."""
    micro_batches: int = 1
    """Micro-batches that a process cuts its share of a step into (gradient accumulation): the same
    gradient, except for dropout's draws, in less memory."""
    replacement: bool = False
    """Whether rows are drawn with replacement, as the original SASRec draws users; an epoch then
    has as many rows as there are windows, but may repeat some and miss others."""

    def __post_init__(self) -> None:
        check_types(self)
        sizes = [self.sequences_per_batch, self.tokens_per_batch]
        set_sizes = [size for size in sizes if size is not None]
        if len(set_sizes) != 1 or set_sizes[0] < 1:
            raise InputError(
                f"batches: sequences_per_batch is {sizes[0]} and tokens_per_batch is {sizes[1]}; "
                "set exactly one of them, to at least 1"
            )
        if self.micro_batches < 1:
            raise InputError(
                f"batches.micro_batches is {self.micro_batches}; it must be at least 1"
            )

    def cuts(self, ends: Indices) -> list[int]:
        """For each batch the number of the row after its last one.

        `ends` has, for each row, the tokens of all rows up to it, itself included. A batch takes as
        many rows as its size allows; the last batch takes what is left.
        """
        size = self.sequences_per_batch
        if size is not None:
            return [*range(size, len(ends), size), len(ends)]
        assert self.tokens_per_batch is not None, "one of the two sizes is set"
        cuts = [0]
        while cuts[-1] < len(ends):
            used = ends[cuts[-1] - 1] if cuts[-1] else 0
            end = np.searchsorted(ends, used + self.tokens_per_batch, side="right")
            cuts.append(max(cuts[-1] + 1, int(end)))
        return cuts[1:]


class Loader:
    """Batches of a stage's windows, each together with one batch of every other window rule.

    Epochs and steps are counted in the stage's own windows. Another rule begins its next epoch
    whenever its own rows are used up.
    """

    def __init__(
        self,
        corpus: Corpus,
        windows: Windows,
        config: BatchConfig,
        *,
        length: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        others: Mapping[WindowsConfig, Loader] = MappingProxyType({}),
        fields: Collection[str] = (),
    ) -> None:
        """A loader for process `rank` of `world` processes.

        `length` is the encoder's, and `fields` names the fields of the corpus (`fields_of`) that
        tokens carry. Raises `InputError` if there is no window.
        """
        if windows.num_rows == 0:
            raise InputError(f"corpus {corpus.name}: no window is left to train on")
        self.corpus = corpus
        self.windows = windows
        self.config = config
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world = world
        self.others = others
        self.fields = fields

    @property
    def num_rows(self) -> int:
        """The number of rows of an epoch."""
        return self.windows.num_rows

    def rows_at(self, epoch: int, places: Tensor) -> Tensor:
        """int64 [P]: the row numbers of the windows at these places [P] of an epoch's order."""
        random_state = seed_of(self.seed, "order", epoch)
        if self.config.replacement:
            return below(fold(random_state, places), self.num_rows)
        return permutation_at(random_state, places, self.num_rows)

    def batches(
        self, epoch: int, place: int = 0, others: Mapping[WindowsConfig, int] = MappingProxyType({})
    ) -> Iterator[Batch]:
        """This process's share of each global batch, from a place to the end of an epoch.

        `place` counts rows of the epoch. `others` says how many rows of each other window rule were
        used before, in all epochs; 0 for a rule that it does not have. Batches are on the CPU.
        """
        streams = {rule: loader.stream(others.get(rule, 0)) for rule, loader in self.others.items()}
        for batch in self._batches_of_windows(epoch, place):
            other_batches = {rule: next(stream) for rule, stream in streams.items()}
            tokens = batch.step_tokens + sum(other.step_tokens for other in other_batches.values())
            yield replace(batch, others=other_batches, step_tokens=tokens)

    def stream(self, rows: int) -> Iterator[Batch]:
        """Endless batches of this loader's own windows, epoch after epoch.

        `rows` is the number of rows that were used before, in all epochs.
        """
        epoch, place = divmod(rows, self.num_rows)
        while True:
            yield from self._batches_of_windows(epoch, place)
            epoch, place = epoch + 1, 0

    def _batches_of_windows(self, epoch: int, place: int) -> Iterator[Batch]:
        """An epoch's batches from a place on, without those of other window rules.

        This process's share is empty where a batch has too few rows for all processes.
        """
        random_state = seed_of(self.seed, "row", epoch)
        chunk = CHUNK
        while place < self.num_rows:
            places = torch.arange(place, min(place + chunk, self.num_rows))
            rows = self.rows_at(epoch, places)
            ranges = self.windows.ranges(rows.numpy())
            ends = np.cumsum(ranges.stops - ranges.starts)
            cuts = self.config.cuts(ends)
            if place + len(places) < self.num_rows:
                # The last batch may continue in the next chunk.
                cuts = cuts[:-1]
                chunk *= 1 if cuts else 2
            for begin, end in itertools.pairwise([0, *cuts]):
                # Rank r takes rows r, r + world, ...
                own_rows = torch.arange(begin + self.rank, max(begin + self.rank, end), self.world)
                own_ranges = ranges.select(own_rows.numpy())
                yield Batch(
                    pack(self.corpus, own_ranges, self.fields),
                    rows[own_rows],
                    torch.from_numpy(own_ranges.users),
                    fold(random_state, places[own_rows]),
                    self.length,
                    rows_done=epoch * self.num_rows + place + end,
                    step_tokens=int(ends[end - 1] - (ends[begin - 1] if begin else 0)),
                )
            place += cuts[-1] if cuts else 0
