"""Popularity as a ranker: it ranks items by their training interactions, whatever the history.

Any trained model must beat it, so a run reports its figures beside its own
(`research/runs/popularity_floor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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
