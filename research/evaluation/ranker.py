"""What ranks: a trained pair or a table of counts alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split
from research.packed import Packed


class Ranker(Protocol):
    """Anything that scores items for histories: a trained pair or a table of counts alike."""

    def scores(self, histories: Packed, users_S: Tensor) -> Tensor:
        """[S, V] scores of every item for whole histories (clean, any length).

        A tensor of the caller's own, who may write into it. Columns after V are no items; they
        compete in full ranking and nowhere else.
        """

    def candidate_scores(self, histories: Packed, users_S: Tensor, items_SN: Tensor) -> Tensor:
        """[S, N] scores of the given items."""


class RankerConfig(ABC):
    """Abstract; a frozen dataclass for each ranker that counts instead of training."""

    @abstractmethod
    def build(self, corpus: Corpus, split: Split) -> Ranker:
        """Count what the ranker needs, in the training part alone."""
