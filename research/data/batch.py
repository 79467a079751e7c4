"""A batch: the windows of some rows, packed, and what draws are keyed by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Ranges, flat_indices
from research.data.windows import WindowsConfig
from research.packed import Packed


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
    rows_done: int = 0
    """Rows of its rule that all processes have been given once the step is done, in all epochs."""
    step_tokens: int = 0
    """Tokens of the whole step: of all processes and, but for a batch in `others`, all rules."""

    def under(self, rule: WindowsConfig | None) -> Batch:
        """The step's rows under a rule; None: these."""
        return self if rule is None else self.others[rule]

    @property
    def num_tokens(self) -> int:
        """Tokens of all rules together, on this process."""
        return self.packed.num_tokens + sum(each.num_tokens for each in self.others.values())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if self.rows_S.device == device:
            return self
        return replace(
            self,
            packed=self.packed.to(device),
            rows_S=self.rows_S.to(device, non_blocking=True),
            users_S=self.users_S.to(device, non_blocking=True),
            states_S=self.states_S.to(device, non_blocking=True),
            others={rule: each.to(device) for rule, each in self.others.items()},
        )


def pack(corpus: Corpus, ranges: Ranges, fields: Collection[str] = ()) -> Packed:
    """The items of `ranges` as packed sequences on the CPU, with these fields of the corpus."""
    indices = flat_indices(ranges)
    known = fields_of(corpus)
    values = {name: torch.from_numpy(np.array(known[name][indices])) for name in fields}
    items_T = torch.from_numpy(corpus.items[indices].astype(np.int64))
    lengths = ranges.stops - ranges.starts
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return Packed.of(items_T, offsets, int(lengths.max(initial=0)), values)


def fields_of(corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """By name, what is known of every interaction beside its item: "time" in seconds, if at all."""
    return {} if corpus.timestamps is None else {"time": corpus.timestamps}
