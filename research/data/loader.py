"""Epoch order, batches and rank shards, all pure functions of (seed, epoch).

`Loader.batches(epoch)` yields packed batches of clean items. No state is kept, so a run continues
by asking for the same epoch again from a later batch, and any number of processes sees the same
global batches, each its own rows of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Ranges, flat_indices
from research.data.windows import WindowsConfig
from research.errors import InputError
from research.packed import Packed
from research.randomness import below, fold, permutation, seed_of


@dataclass(frozen=True, eq=False)
class Batch:
    """Clean windows of a step, before any corruption."""

    packed: Packed
    """The windows' items, up to L + 1 a sequence."""
    rows_S: Tensor
    """int64 [S]: which window of the stage each sequence is."""
    users_S: Tensor
    """int64 [S]: dense user ids."""
    states_S: Tensor
    """int64 [S]: a random state a sequence, from (seed, epoch, place in the epoch)."""
    length: int
    """L: the longest sequence that the encoder reads."""
    others: Mapping[WindowsConfig, Batch] = field(default_factory=dict)
    """The step's rows under other window rules, for objectives that have a rule of their own."""
    offered: Tensor | None = None
    """int64: item ids that the rows of all processes offer as negatives, for objectives that couple
    rows by "items"; None for all others."""

    def under(self, rule: WindowsConfig | None) -> Batch:
        """The step's rows under a rule; None: these."""
        return self if rule is None else self.others[rule]

    @property
    def num_tokens(self) -> int:
        """Tokens of all rules together."""
        return self.packed.num_tokens + sum(each.num_tokens for each in self.others.values())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if self.rows_S.device == device:
            return self
        return Batch(
            self.packed.to(device),
            self.rows_S.to(device, non_blocking=True),
            self.users_S.to(device, non_blocking=True),
            self.states_S.to(device, non_blocking=True),
            self.length,
            {rule: each.to(device) for rule, each in self.others.items()},
        )


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


class Loader:
    """Batches of one stage's windows, and beside each one of every other window rule.

    Epochs and steps are those of the stage's own windows; the others go round at their own pace.
    """

    def __init__(
        self,
        corpus: Corpus,
        windows: Ranges,
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
        if len(windows) == 0:
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

    def order(self, epoch: int) -> Tensor:
        """int64 [rows]: the windows of an epoch in the order of training."""
        state = seed_of(self.seed, "order", epoch)
        if self.config.replacement:
            return below(fold(state, torch.arange(len(self.windows))), len(self.windows))
        return permutation(state, len(self.windows))

    def plan(self, epoch: int) -> list[tuple[int, int]]:
        """The epoch's global batches as (first, past the last) places in its order."""
        size = self.config.sequences_per_batch
        if size is not None:
            total = len(self.windows)
            return [(first, min(first + size, total)) for first in range(0, total, size)]
        assert self.config.tokens_per_batch is not None
        lengths = (self.windows.stops - self.windows.starts)[self.order(epoch).numpy()]
        return budget_cuts(lengths, self.config.tokens_per_batch)

    def num_steps(
        self, epochs: int | None, most: int | None = None, tokens: int | None = None
    ) -> int | None:
        """Global batches until the first of the limits is reached; None: no limit is given.

        The limit of `tokens` is reached by the batch after which so many have been seen.
        """
        limits = [] if most is None else [most]
        if tokens is not None:
            seen = itertools.accumulate(self.sizes())
            # No more steps are counted than the other limit allows.
            reached = itertools.takewhile(lambda total: total < tokens, seen)
            limits.append(1 + sum(1 for _ in itertools.islice(reached, most)))
        if epochs is not None:
            limits.append(self._steps_of(epochs, min(limits, default=None)))
        return min(limits, default=None)

    def _steps_of(self, epochs: int, most: int | None) -> int:
        """Global batches of so many epochs, or `most` if that is fewer."""
        size = self.config.sequences_per_batch
        if size is not None:
            return epochs * -(-len(self.windows) // size)
        total = 0
        for epoch in range(epochs):
            total += len(self.plan(epoch))
            if most is not None and total >= most:
                return most
        return total

    def sizes(self) -> Iterator[int]:
        """Tokens of each global batch, epoch after epoch without end, those beside it included."""
        beside = [other.sizes() for other in self.others.values()]
        lengths = self.windows.stops - self.windows.starts
        for epoch in itertools.count():
            ends = np.cumsum(lengths[self.order(epoch).numpy()])
            for begin, end in self.plan(epoch):
                own = int(ends[end - 1] - (ends[begin - 1] if begin else 0))
                yield own + sum(next(each) for each in beside)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """This rank's share of each global batch from number `first` on, on the CPU.

        Rank r takes rows r, r + world, ...; its share of a small last batch may be empty.
        """
        order = self.order(epoch)
        state = seed_of(self.seed, "row", epoch)
        step = self._steps_of(epoch, None) + first if self.others else 0
        beside = {rule: other.stream(step) for rule, other in self.others.items()}
        for begin, end in self.plan(epoch)[first:]:
            places = torch.arange(begin, end)[self.rank :: self.world]
            batch = self.batch(order[places], fold(state, places))
            yield replace(batch, others={rule: next(each) for rule, each in beside.items()})

    def stream(self, step: int) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, from the one with number `step` over all."""
        epoch = 0
        while step >= (size := len(self.plan(epoch))):
            step -= size
            epoch += 1
        while True:
            yield from self.batches(epoch, step)
            epoch, step = epoch + 1, 0

    def batch(self, rows_S: Tensor, states_S: Tensor) -> Batch:
        """The windows that `rows_S` names, with the random states given."""
        ranges = self.windows.select(rows_S.numpy())
        packed = pack(self.corpus, ranges, self.fields)
        users_S = torch.from_numpy(ranges.users)
        return Batch(packed, rows_S, users_S, states_S, self.length)


def fields_of(corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """By name, what is known of every interaction beside its item: "time" in seconds, if at all."""
    return {} if corpus.timestamps is None else {"time": corpus.timestamps}


def pack(corpus: Corpus, ranges: Ranges, fields: Collection[str] = ()) -> Packed:
    """The items of `ranges` as packed sequences on the CPU, with these fields of the corpus."""
    indices = flat_indices(ranges)
    known = fields_of(corpus)
    values = {name: torch.from_numpy(np.array(known[name][indices])) for name in fields}
    items_T = torch.from_numpy(corpus.items[indices].astype(np.int64))
    lengths = ranges.stops - ranges.starts
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return Packed.of(items_T, offsets, int(lengths.max(initial=0)), values)


def budget_cuts(lengths: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Cut rows, in order, into the fewest runs of at most `budget` tokens each."""
    ends = np.cumsum(lengths)
    cuts = []
    begin = 0
    while begin < len(lengths):
        used = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, used + budget, side="right")))
        cuts.append((begin, end))
        begin = end
    return cuts
