"""ItemKNN: an item's score is the sum of its similarities to the items of the history.

Sarwar et al. 2001 (WWW), with cosines of binary columns and the shrinkage that Ferrari Dacrema et
al. 2019 (RecSys, section 3) tune:

    s_ij = |U_i and U_j| / (sqrt(|U_i| |U_j|) + h),    score of j = sum over the history's i in N(j)

where U_i are the users with item i in training, and N(j) the K items most similar to j. As in the
latter's code (MaurizioFD/RecSys2019_DeepLearning_Evaluation), neighborhoods are of the candidate j,
not of the history's items, and sums are not divided by anything. Left out of what they tune: other
similarities than the cosine, and TF-IDF and BM25 weights.

No published figure was found for Beauty as in S3-Rec's file under full ranking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from baselines.user_items import history_matrix, training_matrix
from research.config import check_types
from research.data.corpus import Corpus
from research.data.splits import Split
from research.errors import InputError
from research.evaluation.best import highest
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from research.runs.config import RunConfig

# Similarities that are in memory at a time: 128 MB in float64.
TILE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class ItemKNNConfig(RankerConfig):
    """Rank items by their similarity to those of the history; defaults are those of RecBole."""

    neighbors: int = 100
    """K, how many most similar items each item keeps; of equal ones the lower numbers are kept."""
    shrinkage: float = 0.0
    """h, added to the denominator of each cosine, so that few common users count for less."""
    newest: int | None = None
    """How many events of a history are read, the newest; None: all, as published."""
    decay: float = 1.0
    """What an item counts for relative to the event after it, above 0 and at most 1; 1, as
    published, is no decay. An item is read once, at its newest place."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("neighbors", "newest"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise InputError(f"ranker.{name} is {value}; it must be at least 1")
        if self.shrinkage < 0.0:
            raise InputError(f"ranker.shrinkage is {self.shrinkage}; it must be 0 or more")
        if not 0.0 < self.decay <= 1.0:
            raise InputError(f"ranker.decay is {self.decay}; it must be above 0 and at most 1")

    def build(self, corpus: Corpus, split: Split) -> ItemKNN:
        """Compute the K most similar items of each item from the training histories."""
        return ItemKNN(self, similarities(training_matrix(corpus, split), self))


def similarities(x_UV: csr_array, config: ItemKNNConfig) -> csr_array:
    """S [V, V], float64: in column j the similarities of j to its K most similar items.

    Items without a common user are never neighbors. Rows of a tile of items are in memory together.
    """
    num_items = x_UV.shape[1]
    x_VU = x_UV.T.tocsr()
    # 1 instead of 0 divides by something where an item has no training user; its cosines are 0.
    counts_V = np.maximum(np.diff(x_VU.indptr), 1).astype(np.float64)
    height = max(1, TILE // num_items)
    values, neighbors, sizes = [], [], []
    for first in range(0, num_items, height):
        common_CV = (x_VU[first : first + height] @ x_UV).toarray()
        rows = np.arange(len(common_CV))
        common_CV[rows, first + rows] = 0.0
        # One root of a product, and so to the last bit the same in both directions.
        common_CV /= np.sqrt(counts_V[first : first + height, None] * counts_V) + config.shrinkage
        # So that items without a common user need no order among themselves.
        common_CV[common_CV == 0.0] = -np.inf
        best_CK, neighbors_CK = highest(torch.from_numpy(common_CV), config.neighbors)
        is_similar_CK = best_CK > 0
        values.append(best_CK[is_similar_CK].numpy())
        neighbors.append(neighbors_CK[is_similar_CK].numpy())
        sizes.append(is_similar_CK.sum(1).numpy())
    starts = np.cumsum(np.concatenate([[0], *sizes]))
    by_candidate = (np.concatenate(values), np.concatenate(neighbors), starts)
    return csr_array(by_candidate, shape=(num_items, num_items)).T.tocsr()


class ItemKNN:
    """The ranker: a sparse matrix of similarities."""

    def __init__(self, config: ItemKNNConfig, similarities: csr_array) -> None:
        self.config = config
        self.similarities = similarities

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedItemKNN:
        """Sum the similarities to the items of each history."""
        config = self.config
        x_SV = history_matrix(
            histories, self.similarities.shape[0], newest=config.newest, decay=config.decay
        )
        # A column sums its entries in the order of the history's items, so columns with equal
        # similarities get equal sums to the last bit.
        scores_SV = (x_SV @ self.similarities).tocsc()
        scores_SV.sort_indices()
        return EncodedItemKNN(scores_SV)


@dataclass(frozen=True, eq=False)
class EncodedItemKNN:
    """The scores of S histories (see `ranker.Encoded`)."""

    scores_SV: csc_array
    """float64 [S, V]: the scores that are not 0, column after column."""

    @property
    def columns(self) -> int:
        """V: only items are scored."""
        return int(self.scores_SV.shape[1])

    @property
    def largest_S(self) -> Tensor:
        """float64 [S]: the highest score, which is 0 or more."""
        return torch.from_numpy(self.scores_SV.max(axis=1).toarray().ravel())

    def scores(self, first: int, last: int) -> Tensor:
        """float64 [S, last - first]: scores of the items from `first` to before `last`."""
        return torch.from_numpy(self.scores_SV[:, first:last].toarray())

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """float64 [S, N]: scores of each history's own items."""
        num_histories, number = items_SN.shape
        if items_SN.numel() == 0:
            return torch.empty(items_SN.shape, dtype=torch.float64)
        rows = np.repeat(np.arange(num_histories), number)
        # A copy, as SciPy cannot index by memory that torch owns.
        scores = self.scores_SV[rows, items_SN.numpy().copy().ravel()]
        return torch.from_numpy(np.asarray(scores)).view(num_histories, number)


def item_knn() -> RunConfig:
    """Rank by cosines to all items of the history, with 100 neighbors an item."""
    return RunConfig(ranker=ItemKNNConfig())
