"""What a ranker is, whether a trained model or a table of counts.

A ranker encodes a chunk of histories once. Its result then gives scores for one tile of the
catalogue at a time, so that the scores of all items for many users are never in memory together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split
from research.packed import Packed


class Encoded(Protocol):
    """S histories that a ranker has encoded; its scores are fp32 or float64, without gradients."""

    @property
    def columns(self) -> int:
        """How many columns can be scored: V or more.

        Those from V on are no items (special tokens, for example) and compete in full ranking only.
        """

    @property
    def largest_S(self) -> Tensor:
        """A bound on the magnitude of each history's scores, [S], on the device of the scores.

        It is NaN or infinite where a history has scores that are not finite.
        """

    def scores(self, first: int, last: int) -> Tensor:
        """The scores of columns `first` to before `last`: [S, last - first].

        The caller may write into the tensor. Items with equal weights get scores that are equal to
        the last bit, wherever they are in tiles of the same width.
        """

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """The scores of N items for each history: [S, N].

        Items with equal weights in one row get equal scores. The scores may differ from those of
        `scores` by rounding.
        """


class Ranker(Protocol):
    """Anything that scores items for histories."""

    def encode(self, histories: Packed, users_S: Tensor) -> Encoded:
        """Encode S whole histories; `users_S`, int64 [S], are their users' ids.

        The id is -1 for a user whom the corpus does not have.
        Histories are on the host, not corrupted, and of any length.
        """


class RankerConfig(ABC):
    """Abstract config of a ranker that counts instead of training; each is a frozen dataclass."""

    @abstractmethod
    def build(self, corpus: Corpus, split: Split) -> Ranker:
        """Build the ranker from counts of the training part only."""
