"""First-order transitions: how often each item directly followed the newest one in training.

Ties, and items never seen to follow, are ordered by popularity.
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
from research.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class TransitionsConfig(RankerConfig):
    """Rank items by how often they followed the newest item."""

    def build(self, corpus: Corpus, split: Split) -> Transitions:
        """Count pairs of neighbours within each training history."""
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
    """Counts of pairs in a sorted list; popularity, scaled below one, breaks ties."""

    def __init__(self, pairs: Tensor, counts: Tensor, popularity_V: Tensor) -> None:
        self.num_items = len(popularity_V)
        self.pairs = pairs
        self.counts = counts.double()
        self.popularity_V = popularity_V.double() / (popularity_V.max() + 1)
        items = torch.arange(self.num_items + 1)
        self.begins = torch.searchsorted(pairs, items * self.num_items)

    def scores(self, histories: Packed, users_S: Tensor) -> Tensor:
        """[S, V]."""
        scores_SV = self.popularity_V.repeat(histories.num_sequences, 1)
        newest_S = histories.items_T[histories.last_S]
        begins_S, ends_S = self.begins[newest_S], self.begins[newest_S + 1]
        rows = torch.repeat_interleave(torch.arange(len(newest_S)), ends_S - begins_S)
        found = Packed.of(
            rows, torch.cat([torch.zeros(1).long(), (ends_S - begins_S).cumsum(0)]), 0
        )
        places = begins_S[rows] + found.positions_T
        scores_SV[rows, self.pairs[places] % self.num_items] += self.counts[places]
        return scores_SV

    def candidate_scores(self, histories: Packed, users_S: Tensor, items_SN: Tensor) -> Tensor:
        """[S, N]."""
        return self.scores(histories, users_S).gather(1, items_SN)


def transitions() -> RunConfig:
    """Counts of direct successors."""
    return RunConfig(ranker=TransitionsConfig())
