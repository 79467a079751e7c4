"""A counting ranker by first-order transitions: how often an item directly followed the newest one.

Only training histories are counted. Items with equal counts, and those that never followed, are
ordered by popularity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices, training_counts
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from research.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class TransitionsConfig(RankerConfig):
    """Rank items by how often they followed the newest item."""

    def build(self, corpus: Corpus, split: Split) -> Transitions:
        """Count the pairs of neighbouring items in all training histories."""
        training = split.training
        lengths = training.stops - training.starts
        items = corpus.items[flat_indices(training)].astype(np.int64)
        newest = np.cumsum(lengths) - 1
        follows = np.ones(len(items), dtype=bool)
        follows[newest] = False
        before = np.flatnonzero(follows)
        pairs = items[before] * corpus.num_items + items[before + 1]
        unique, counts = np.unique(pairs, return_counts=True)
        return Transitions(
            torch.from_numpy(unique), torch.from_numpy(counts), training_counts(corpus, split)
        )


class Transitions:
    """The ranker: counts of item pairs in a sorted list; popularity scaled below 1 breaks ties."""

    def __init__(self, pairs: Tensor, counts: Tensor, popularity_V: Tensor) -> None:
        self.num_items = len(popularity_V)
        self.pairs = pairs
        self.counts = counts.double()
        self.popularity_V = popularity_V.double() / (popularity_V.max() + 1)

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedTransitions:
        """Read histories, of which only the newest item is used."""
        return EncodedTransitions(self, histories.items_T[histories.last_S])


@dataclass(frozen=True, eq=False)
class EncodedTransitions:
    """Histories, each represented by its newest item, ready to be scored."""

    ranker: Transitions
    """The ranker with its counts."""
    newest_S: Tensor
    """int64 [S]: the newest item of each history."""

    @property
    def columns(self) -> int:
        """V, the number of items."""
        return self.ranker.num_items

    @property
    def largest_S(self) -> Tensor:
        """float64 [S]: a bound on scores, one more than the highest count."""
        highest = self.ranker.counts.amax() if len(self.ranker.counts) else 0.0
        return torch.ones(len(self.newest_S), dtype=torch.float64) + highest

    def scores(self, first: int, last: int) -> Tensor:
        """float64 [S, last - first]: scores of the items from `first` to before `last`."""
        scores_SC = self.ranker.popularity_V[first:last].repeat(len(self.newest_S), 1)
        # A pair is stored as before * V + after, so those of a newest item with these columns are
        # neighbours in the sorted list; these are where they begin and end.
        ends = self.newest_S[:, None] * self.ranker.num_items + torch.tensor([first, last])
        bounds_S2 = torch.searchsorted(self.ranker.pairs, ends)
        sizes_S = bounds_S2.diff()[:, 0]
        rows = torch.repeat_interleave(torch.arange(len(sizes_S)), sizes_S)
        starts_S = bounds_S2[:, 0] - (sizes_S.cumsum(0) - sizes_S)
        places = torch.arange(len(rows)) + starts_S[rows]
        columns = self.ranker.pairs[places] % self.ranker.num_items - first
        scores_SC[rows, columns] += self.ranker.counts[places]
        return scores_SC

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """float64 [S, N]: scores of each history's own items."""
        scores_SN = self.ranker.popularity_V[items_SN]
        if len(self.ranker.pairs) == 0:
            return scores_SN
        keys = self.newest_S[:, None] * self.ranker.num_items + items_SN
        places = torch.searchsorted(self.ranker.pairs, keys).clamp(max=len(self.ranker.pairs) - 1)
        follows = self.ranker.pairs[places] == keys
        return scores_SN + self.ranker.counts[places] * follows


def transitions() -> RunConfig:
    """Rank by counts of direct successors."""
    return RunConfig(ranker=TransitionsConfig())
