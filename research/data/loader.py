"""Epoch order, batches and rank shards, all pure functions of (seed, epoch).

`Loader.batches(epoch)` yields packed batches of clean items. Rows are looked up a chunk at a time
as the epoch is walked, and no state is kept: a run continues by asking for the same epoch from the
place that its last batch reached, and any number of processes sees the same global batches, each
its own rows of them.
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
from research.randomness import below, fold, permuted, seed_of

# Rows that are looked up at once: much fewer cost more each, many more no longer fit the cache.
CHUNK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How an epoch is cut into global batches; exactly one of the two sizes is set."""

    sequences_per_batch: int | None = 256
    """Sequences a step over all processes; None: by tokens."""
    tokens_per_batch: int | None = None
    """Tokens a step over all processes, at most (a longer single row goes alone); None: by
    sequences."""
    micro_batches: int = 1
    """Pieces into which a process cuts its share of a step, one after another: the same gradient
    (but for dropout's draws) in less memory."""
    replacement: bool = False
    """Draw rows with replacement, as the original SASRec draws users; an epoch then has as many
    rows as there are windows, but not each once."""

    def __post_init__(self) -> None:
        check_types(self)
        sizes = [self.sequences_per_batch, self.tokens_per_batch]
        given = [size for size in sizes if size is not None]
        if len(given) != 1 or given[0] < 1:
            raise InputError(
                f"batches: sequences_per_batch is {sizes[0]} and tokens_per_batch is {sizes[1]}; "
                "set exactly one of them, to at least 1"
            )
        if self.micro_batches < 1:
            raise InputError(
                f"batches.micro_batches is {self.micro_batches}; it must be at least 1"
            )

    def cuts(self, ends: Indices) -> list[int]:
        """Past the last row of each batch, for rows whose tokens, added up, are `ends`.

        A batch has as many rows as the size allows; the last one has what is left.
        """
        size = self.sequences_per_batch
        if size is not None:
            return [*range(size, len(ends), size), len(ends)]
        assert self.tokens_per_batch is not None, "one of the two sizes is set"
        cuts = [0]
        while cuts[-1] < len(ends):
            used = ends[cuts[-1] - 1] if cuts[-1] else 0
            fitting = np.searchsorted(ends, used + self.tokens_per_batch, side="right")
            cuts.append(max(cuts[-1] + 1, int(fitting)))
        return cuts[1:]


class Loader:
    """Batches of one stage's windows, and beside each one of every other window rule.

    Epochs and steps are those of the stage's own windows; the others go round at their own pace.
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
        """`fields` are those of the corpus that every token is given."""
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
        """Rows of an epoch."""
        return self.windows.num_rows

    def rows_at(self, epoch: int, places: Tensor) -> Tensor:
        """int64: the windows that stand at these places of an epoch's order."""
        state = seed_of(self.seed, "order", epoch)
        if self.config.replacement:
            return below(fold(state, places), self.num_rows)
        return permuted(state, places, self.num_rows)

    def batches(
        self, epoch: int, place: int = 0, others: Mapping[WindowsConfig, int] = MappingProxyType({})
    ) -> Iterator[Batch]:
        """This rank's share of each global batch from a place of an epoch to its end, on the CPU.

        Each other rule goes on after as many rows in all as `others` says, 0 where it does not.
        """
        streams = {rule: each.stream(others.get(rule, 0)) for rule, each in self.others.items()}
        for batch in self._alone(epoch, place):
            beside = {rule: next(stream) for rule, stream in streams.items()}
            tokens = batch.step_tokens + sum(each.step_tokens for each in beside.values())
            yield replace(batch, others=beside, step_tokens=tokens)

    def stream(self, rows: int) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, after so many rows in all."""
        epoch, place = divmod(rows, self.num_rows)
        while True:
            yield from self._alone(epoch, place)
            epoch, place = epoch + 1, 0

    def _alone(self, epoch: int, place: int) -> Iterator[Batch]:
        """An epoch's batches without those of other rules; a share of a last one may be empty."""
        state = seed_of(self.seed, "row", epoch)
        chunk = CHUNK
        while place < self.num_rows:
            places = torch.arange(place, min(place + chunk, self.num_rows))
            rows = self.rows_at(epoch, places)
            ranges = self.windows.ranges(rows.numpy())
            ends = np.cumsum(ranges.stops - ranges.starts)
            cuts = self.config.cuts(ends)
            if place + len(places) < self.num_rows:
                # The last one might go on beyond the chunk.
                cuts = cuts[:-1]
                chunk *= 1 if cuts else 2
            for begin, end in itertools.pairwise([0, *cuts]):
                # Rank r takes rows r, r + world, ...
                share = torch.arange(begin + self.rank, max(begin + self.rank, end), self.world)
                dealt = ranges.select(share.numpy())
                yield Batch(
                    pack(self.corpus, dealt, self.fields),
                    rows[share],
                    torch.from_numpy(dealt.users),
                    fold(state, places[share]),
                    self.length,
                    rows_done=epoch * self.num_rows + place + end,
                    step_tokens=int(ends[end - 1] - (ends[begin - 1] if begin else 0)),
                )
            place += cuts[-1] if cuts else 0
