"""`Batch`: the packed windows of some rows, with the random states that draws are keyed by.

The loader makes batches; corruptions and objectives read them.
"""

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
    """One process's clean windows of a step, before any corruption."""

    packed: Packed
    """The items of the windows, at most L + 1 in each sequence."""
    rows_S: Tensor
    """int64 [S]: the row number of each sequence among the windows of its rule."""
    users_S: Tensor
    """int64 [S]: the dense user id of each sequence."""
    random_states_S: Tensor
    """int64 [S]: a random state for each sequence, from (seed, epoch, place in the epoch)."""
    length: int
    """L: the most items of a sequence that the encoder reads."""
    others: Mapping[WindowsConfig, Batch] = field(default_factory=dict)
    """The step's rows under other window rules, for objectives that have their own rule."""
    offered_items: Tensor | None = None
    """int64: item ids that the rows of all processes offer as negatives, for objectives that couple
    rows by "items"; None for all others."""
    rows_done: int = 0
    """Rows of this batch's window rule that all processes together have used, in all epochs, once
    this step is done."""
    step_tokens: int = 0
    """Tokens of the step on all processes: under all window rules, or for a batch in `others` under
    its own rule."""

    def for_windows(self, rule: WindowsConfig | None) -> Batch:
        """The step's batch under another window rule; None: this batch."""
        return self if rule is None else self.others[rule]

    @property
    def num_tokens(self) -> int:
        """The number of tokens on this process, under all window rules together."""
        return self.packed.num_tokens + sum(batch.num_tokens for batch in self.others.values())

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        if self.rows_S.device == device:
            return self
        return replace(
            self,
            packed=self.packed.to(device),
            rows_S=self.rows_S.to(device, non_blocking=True),
            users_S=self.users_S.to(device, non_blocking=True),
            random_states_S=self.random_states_S.to(device, non_blocking=True),
            others={rule: batch.to(device) for rule, batch in self.others.items()},
        )


def pack(corpus: Corpus, ranges: Ranges, fields: Collection[str] = ()) -> Packed:
    """The items of `ranges` as packed sequences on the CPU, with the named fields of the corpus."""
    available = fields_of(corpus)
    return pack_items(corpus.items, ranges, {name: available[name] for name in fields})


def pack_items(
    items: NDArray[np.int32] | NDArray[np.int64],
    ranges: Ranges,
    fields: Mapping[str, NDArray[np.int64]],
) -> Packed:
    """The `ranges` of an array of items as packed sequences on the CPU.

    `fields` are arrays as long as that of the items.
    """
    indices = flat_indices(ranges)
    values = {name: torch.from_numpy(np.array(of[indices])) for name, of in fields.items()}
    items_T = torch.from_numpy(items[indices].astype(np.int64))
    lengths = ranges.stops - ranges.starts
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return Packed.of(items_T, offsets, int(lengths.max(initial=0)), values)


def fields_of(corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """int64 [interactions] by name: what the corpus knows of an interaction beside its item.

    That is "time", where the corpus has timestamps, in the unit of the source; models take it for
    seconds.
    """
    return {} if corpus.timestamps is None else {"time": corpus.timestamps}
