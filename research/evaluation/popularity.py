"""Popularity as a ranker: items by counts of their training interactions, for every history alike.

What any trained model must beat; a run's figures stand beside it
(`research/runs/popularity_floor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from research.packed import Packed


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
