"""What ranks: a trained model or a table of counts alike.

A ranker reads histories once and then answers for tiles of the catalogue, so that nobody ever holds
the scores of all items for many users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split
from research.packed import Packed


class Encoded(Protocol):
    """Histories that a ranker has read, ready to be scored; fp32 or float64, without a graph."""

    @property
    def columns(self) -> int:
        """V, or more: columns after V are no items; they compete in full ranking alone."""

    @property
    def largest_S(self) -> Tensor:
        """[S]: a bound on the magnitude of a history's scores; NaN or infinite where it has none.

        Its device is the scores' device.
        """

    def scores(self, first: int, last: int) -> Tensor:
        """[S, last - first] scores of the columns from `first` to before `last`.

        A tensor of the caller's own, who may write into it. Equal items get equal scores, wherever
        they stand in tiles of one width.
        """

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """[S, N] scores of each history's own items; equal items of a row get equal scores.

        They may differ from those of `scores` by rounding.
        """


class Ranker(Protocol):
    """Anything that scores items for histories."""

    def encode(self, histories: Packed, users_S: Tensor) -> Encoded:
        """Read whole histories (clean, on the host, any length) of the users with these ids."""


class RankerConfig(ABC):
    """Abstract; a frozen dataclass for each ranker that counts instead of training."""

    @abstractmethod
    def build(self, corpus: Corpus, split: Split) -> Ranker:
        """Count what the ranker needs, in the training part alone."""
