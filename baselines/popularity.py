"""Counting rankers: popularity and recent popularity, which any trained model must beat.

Only the training part is counted (held-out interactions must not decide popularity).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from research.config import check_types
from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices, training_counts
from research.errors import InputError
from research.evaluation.popularity import Popularity, counts_of_last_days
from research.evaluation.ranker import RankerConfig
from research.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PopularityConfig(RankerConfig):
    """Rank items by the number of training interactions."""

    newest_share: float = 1.0
    """Share of the training interactions that count, the newest; below 1 it needs timestamps."""
    newest_days: float | None = None
    """Days before the end of training whose interactions count (Pop-N-days); None: no limit."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.newest_share <= 1.0:
            raise InputError(
                f"ranker.newest_share is {self.newest_share}; it must be above 0 and at most 1"
            )
        if self.newest_days is None:
            return
        if self.newest_days <= 0.0:
            raise InputError(f"ranker.newest_days is {self.newest_days}; it must be above 0")
        if self.newest_share < 1.0:
            raise InputError("ranker has newest_share and newest_days; give one of them")

    def build(self, corpus: Corpus, split: Split) -> Popularity:
        """Count each item's training interactions.

        Raises `InputError` for a corpus without timestamps where they are needed, and for days
        where its times have none or that are less than one unit of them.
        """
        if self.newest_days is not None:
            return Popularity(
                counts_of_last_days(corpus, split.training, self.newest_days, "ranker.newest_days")
            )
        if self.newest_share == 1.0:
            return Popularity(training_counts(corpus, split))
        if corpus.timestamps is None:
            raise InputError(f"corpus {corpus.name} has no timestamps, which recency needs")
        indices = flat_indices(split.training)
        times = corpus.timestamps[indices]
        newest = indices[times >= np.quantile(times, 1.0 - self.newest_share)]
        items = torch.from_numpy(corpus.items[newest].astype(np.int64))
        return Popularity(torch.bincount(items, minlength=corpus.num_items))


def popularity() -> RunConfig:
    """Rank by all training interactions."""
    return RunConfig(ranker=PopularityConfig())


def recent() -> RunConfig:
    """Rank by the newest tenth of the training interactions."""
    return RunConfig(ranker=PopularityConfig(newest_share=0.1))


def pop_7_days() -> RunConfig:
    """Rank by the last seven days of training (Pop-7-days; set others by ranker.newest_days)."""
    return RunConfig(ranker=PopularityConfig(newest_days=7.0))
