"""Counting rankers: popularity and recent popularity, which any trained model must beat.

Only the training part is counted (held-out interactions must not decide popularity).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices, training_counts
from research.errors import InputError
from research.evaluation.popularity import Popularity
from research.evaluation.ranker import RankerConfig
from research.runs.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PopularityConfig(RankerConfig):
    """Rank items by the number of training interactions."""

    newest_share: float = 1.0
    """Share of the training interactions that count, the newest; below 1 it needs timestamps."""

    def build(self, corpus: Corpus, split: Split) -> Popularity:
        """Count each item's training interactions.

        Raises `InputError` for a share that is not above 0 and at most 1, and for a corpus without
        timestamps where the share needs them.
        """
        if not 0.0 < self.newest_share <= 1.0:
            raise InputError(
                f"ranker.newest_share is {self.newest_share}; it must be above 0 and at most 1"
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
