"""Counting rankers: popularity and recent popularity.

Counts come from the training part alone (T39). They are what any trained model must beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices, training_counts
from research.errors import InputError
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from research.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class PopularityConfig(RankerConfig):
    """Rank items by the number of training interactions."""

    newest_share: float = 1.0
    """Count only this newest share of the training interactions; needs timestamps below 1."""

    def build(self, corpus: Corpus, split: Split) -> Popularity:
        """Count."""
        if not 0.0 < self.newest_share <= 1.0:
            raise InputError(
                f"ranker.newest_share is {self.newest_share}; it must be above 0 and at most 1"
            )
        if self.newest_share == 1.0:
            return Popularity(training_counts(corpus, split))
        if corpus.timestamps is None:
            raise InputError(f"corpus {corpus.name} has no timestamps, which recency needs")
        places = flat_indices(split.training)
        times = corpus.timestamps[places]
        kept = places[times >= np.quantile(times, 1.0 - self.newest_share)]
        items = torch.from_numpy(corpus.items[kept].astype(np.int64))
        return Popularity(torch.bincount(items, minlength=corpus.num_items))


class Popularity:
    """The same scores for every history."""

    def __init__(self, counts_V: Tensor) -> None:
        self.counts_V = counts_V.double()

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedPopularity:
        """Nothing of the histories matters but their number."""
        return EncodedPopularity(self.counts_V, histories.num_sequences)


@dataclass(frozen=True, eq=False)
class EncodedPopularity:
    """Counts for so many histories."""

    counts_V: Tensor
    """float64 [V]."""
    histories: int
    """S."""

    @property
    def columns(self) -> int:
        """V."""
        return len(self.counts_V)

    @property
    def largest_S(self) -> Tensor:
        """[S] the highest count."""
        return self.counts_V.amax().repeat(self.histories)

    def scores(self, first: int, last: int) -> Tensor:
        """[S, last - first]."""
        return self.counts_V[first:last].repeat(self.histories, 1)

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """[S, N]."""
        return self.counts_V[items_SN]


def popularity() -> RunConfig:
    """Training interactions of all time."""
    return RunConfig(ranker=PopularityConfig())


def recent() -> RunConfig:
    """The newest tenth of the training interactions."""
    return RunConfig(ranker=PopularityConfig(newest_share=0.1))
