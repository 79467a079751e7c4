"""Popularity as a ranker: it ranks items by their training interactions, whatever the history.

Any trained model must beat it, so a run reports its figures beside its own
(`research/runs/popularity_floor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.data.held_out import Ranges, flat_indices
from research.data.time_cuts import times_of, units_of_days
from research.packed import Packed


class Popularity:
    """A ranker that gives every history the same scores: the training counts of the items, [V]."""

    def __init__(self, counts_V: Tensor) -> None:
        self.counts_V = counts_V.double()

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedPopularity:
        """Return scores that depend on nothing but the number of histories."""
        return EncodedPopularity(self.counts_V, histories.num_sequences)


@dataclass(frozen=True, eq=False)
class EncodedPopularity:
    """The popularity scores of S histories (see `ranker.Encoded`)."""

    counts_V: Tensor
    """float64 [V]: training interactions of each item."""
    histories: int
    """S, the number of histories."""

    @property
    def columns(self) -> int:
        """V: only items are scored."""
        return len(self.counts_V)

    @property
    def largest_S(self) -> Tensor:
        """float64 [S]: the highest count, the same for each history."""
        return self.counts_V.amax().repeat(self.histories)

    def scores(self, first: int, last: int) -> Tensor:
        """float64 [S, last - first]: the counts of items `first` to before `last`."""
        return self.counts_V[first:last].repeat(self.histories, 1)

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """float64 [S, N]: the counts of the given items."""
        return self.counts_V[items_SN]


def counts_of_last_days(
    corpus: Corpus, training: Ranges, days: float, field: str = "days"
) -> Tensor:
    """int64 [V]: the interactions with each item in the last days of training.

    Training ends with its newest interaction, and what is `days` days older or more does not count:
    seven days count where times are whole days and `days` is 7. `InputError`, which names the
    config field `field`, if the corpus has no times or they have no days, and for days that are not
    finite or less than one unit of the times.
    """
    span = units_of_days(corpus, days, field)
    places = flat_indices(training)
    times = times_of(corpus)[places]
    recent = places[times > int(times.max()) - span]
    return torch.bincount(
        torch.from_numpy(corpus.items[recent].astype(np.int64)), minlength=corpus.num_items
    )
