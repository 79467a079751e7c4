"""EASE: a linear model from each item to each other item, in closed form (Steck 2019, WWW).

From the binary matrix X of training users and items, eq. 8 of the paper gives the weights

    B = I - P diag(1 / diag(P)),    P = (X^T X + lambda I)^-1,

which minimise |X - X B|^2 + lambda |B|^2 where an item has no weight on itself. A history's scores
are the sums of its items' rows of B, each item once. Published are ML-20M, Netflix and the Million
Song Dataset, for held-out users, with lambda 500, 1,000 and 200; no published figure was found for
Beauty as in S3-Rec's file under full ranking.

B is dense, and every ranking holds it: 8 V^2 bytes (1.2 GB at 12,101 items, 9 GB at 33,500), twice
as long to compute at 1.26 times the items. It is computed anew whenever a run is loaded. Rounding
can tell items apart that have just the same users; items without a training user all score 0, as
in the equation, and so stand above those with negative scores.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from baselines.user_items import history_matrix, training_matrix
from research.config import check_types
from research.data.corpus import Corpus
from research.data.splits import Split
from research.errors import InputError
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from research.runs.config import RunConfig

# More pairs of items have numbers that a LAPACK of 32-bit integers cannot count.
MOST_ITEMS = 46_340
# Numbers that are copied at a time: 128 MB in float64.
TILE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class EASEConfig(RankerConfig):
    """Rank items by a linear model of the history's items."""

    regularization: float = 250.0
    """lambda, above 0, in the unit of training users of an item; the default is RecBole's."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.regularization <= 0.0:
            raise InputError(f"ranker.regularization is {self.regularization}; it must be above 0")

    def build(self, corpus: Corpus, split: Split) -> EASE:
        """Compute the weights from the training histories.

        `InputError` where they would not fit into the machine's memory, and where lambda is too
        small for the inverse.
        """
        check_memory(corpus.num_items, memory_of_machine())
        return EASE(weights(training_matrix(corpus, split), self.regularization))


def memory_of_machine() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(num_items: int, memory: int) -> None:
    """Raise `InputError` for a catalogue whose weights do not fit into `memory` bytes."""
    needed = 8 * num_items**2
    if num_items <= MOST_ITEMS and needed <= memory:
        return
    raise InputError(
        f"EASE keeps a number for each pair of the {num_items:,} items, {needed / 1e9:,.1f} GB; "
        f"possible are {MOST_ITEMS:,} items, and this machine has {memory / 1e9:,.1f} GB. Use "
        "ItemKNN, or prepare the corpus with a higher --item-core"
    )


def weights(x_UV: csr_array, regularization: float) -> NDArray[np.float64]:
    """B [V, V], float64: entry (i, j) is what item i of a history adds to the score of item j.

    `InputError` when rounding makes the regularized matrix singular.
    """
    num_items = x_UV.shape[1]
    x_VU = x_UV.T.tocsr()
    height = max(1, TILE // num_items)
    tiles = [slice(first, first + height) for first in range(0, num_items, height)]
    matrix = np.empty((num_items, num_items))
    for rows in tiles:
        matrix[rows] = (x_VU[rows] @ x_UV).toarray()
    matrix[np.diag_indices(num_items)] += regularization
    # LAPACK takes columns, and so the transpose, which is the same matrix; it works in place, on
    # the lower triangle, which here is the upper one.
    _, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1, clean=0)
    if failed == 0:
        _, failed = lapack.dpotri(matrix.T, lower=1, overwrite_c=1)
    if failed != 0:
        raise InputError(
            f"ranker.regularization is {regularization}, too small for the inverse of this "
            "corpus's item counts; raise it"
        )
    for rows in tiles:
        square = matrix[rows, rows]
        square[...] = np.triu(square) + np.triu(square, 1).T
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
    matrix /= -matrix.diagonal()
    np.fill_diagonal(matrix, 0.0)
    return matrix


class EASE:
    """The ranker: a dense matrix of weights."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights_VV = torch.from_numpy(weights)
        lowest_V, highest_V = self.weights_VV.aminmax(dim=1)
        self.largest_V = torch.maximum(highest_V, -lowest_V)

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedEASE:
        """Read which items each history has."""
        x_SV = history_matrix(histories, len(self.weights_VV))
        items_T = torch.from_numpy(x_SV.indices.astype(np.int64))
        return EncodedEASE(self, items_T, torch.from_numpy(x_SV.indptr.astype(np.int64)))


@dataclass(frozen=True, eq=False)
class EncodedEASE:
    """S histories as the sets of their items, ready to be scored (see `ranker.Encoded`)."""

    ranker: EASE
    """The ranker with its weights."""
    items_T: Tensor
    """int64 [T]: the distinct items of each history, history after history."""
    offsets: Tensor
    """int64 [S + 1]: where each history's items begin; the last is T."""

    @property
    def columns(self) -> int:
        """V: only items are scored."""
        return len(self.ranker.weights_VV)

    def sums(self, values_VN: Tensor) -> Tensor:
        """float64 [S, N]: the sums of the rows of each history's items, in the items' order."""
        return F.embedding_bag(self.items_T, values_VN, self.offsets[:-1], mode="sum")

    @property
    def largest_S(self) -> Tensor:
        """float64 [S]: the sum of each item's largest weight by magnitude."""
        return self.sums(self.ranker.largest_V[:, None])[:, 0]

    def scores(self, first: int, last: int) -> Tensor:
        """float64 [S, last - first]: scores of the items from `first` to before `last`."""
        return self.sums(self.ranker.weights_VV[:, first:last])

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """float64 [S, N]: scores of each history's own items."""
        owner_T = torch.repeat_interleave(torch.arange(len(items_SN)), self.offsets.diff())
        weights_TN = self.ranker.weights_VV[self.items_T[:, None], items_SN[owner_T]]
        return weights_TN.new_zeros(items_SN.shape).index_add_(0, owner_T, weights_TN)


def ease() -> RunConfig:
    """Rank by EASE's weights of the history's items."""
    return RunConfig(ranker=EASEConfig())
