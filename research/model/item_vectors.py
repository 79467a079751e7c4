"""Content vectors of items, such as embeddings of titles, projected to the table's width.

Vectors are standardized: of each of their E numbers, the mean over the items is taken away and the
rest divided by the standard deviation. Both are parameters that do not learn, so that checkpoints
hold them: a projection that is moved to another catalogue reads its vectors as it did before.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from research.model.initialization import initialize

# Rows that are standardized at once.
_ROWS = 1 << 14
# A deviation below this share of the mean's magnitude is rounding: the number is constant.
_CONSTANT = 1e-6


class ItemVectors(nn.Module):
    """The standardized vectors [V, E] of the items, without a gradient."""

    def __init__(self, vectors_VE: NDArray[np.float32]) -> None:
        """`vectors_VE` [V, E] are finite; they may be mapped into memory, and are not copied."""
        super().__init__()
        self.vectors_VE = vectors_VE
        mean_E, deviation_E = (
            torch.from_numpy(moment).to(torch.get_default_dtype())
            for moment in _moments(vectors_VE)
        )
        self.mean = nn.Parameter(mean_E, requires_grad=False)
        self.deviation = nn.Parameter(deviation_E, requires_grad=False)
        self._standardized: tuple[tuple[object, ...], Tensor] | None = None

    @property
    def size(self) -> int:
        """E, how many numbers a vector has."""
        return int(self.vectors_VE.shape[1])

    def table(self) -> Tensor:
        """[V, E]: the standardized vectors of all items, in the type and on the device of `mean`.

        They are computed once, and again when `mean` and `deviation` were filled from a file.
        """
        mean, deviation = self.mean.detach(), self.deviation.detach()
        key = (self.mean._version, self.deviation._version, mean.dtype, mean.device)
        if self._standardized is None or self._standardized[0] != key:
            table_VE = mean.new_empty(self.vectors_VE.shape)
            for first in range(0, len(table_VE), _ROWS):
                part = torch.from_numpy(np.array(self.vectors_VE[first : first + _ROWS]))
                table_VE[first : first + _ROWS] = (part.to(mean) - mean) / deviation
            self._standardized = key, table_VE
        return self._standardized[1]


def _moments(vectors_VE: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[E] mean and [E] standard deviation over the items; 1 where all items have one number."""
    mean = vectors_VE.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for first in range(0, len(vectors_VE), _ROWS):
        squares += np.square(vectors_VE[first : first + _ROWS] - mean).sum(axis=0)
    deviation = np.sqrt(squares / len(vectors_VE))
    deviation[deviation <= _CONSTANT * np.abs(mean)] = 1.0
    return mean, deviation


class VectorProjection(nn.Module):
    """The projection of items' vectors to the width D of the item table: W x / sqrt(E) + b.

    With a hidden layer of H numbers: W gelu(W' x / sqrt(E) + b') / sqrt(H) + b. By the roots, and
    as W' begins with a deviation of 1, the rows begin about as large as embeddings of ids do.
    """

    def __init__(
        self, vectors: ItemVectors, width: int, hidden: int | None, init_std: float, seed: int
    ) -> None:
        """`hidden` is H, the width of the hidden layer; None: there is none."""
        super().__init__()
        self.vectors = vectors
        self.hidden: nn.Linear | None = None
        if hidden is not None:
            self.hidden = nn.Linear(vectors.size, hidden)
            initialize(self.hidden, 1.0, seed, "item vectors, hidden")
        self.dense = nn.Linear(vectors.size if hidden is None else hidden, width)
        initialize(self.dense, init_std, seed, "item vectors")

    def forward(self, items: Tensor | None = None) -> Tensor:
        """[..., D]: the projected vectors of items, int64 of any shape; None: [V, D], of all."""
        table_VE = self.vectors.table()
        x = table_VE if items is None else F.embedding(items, table_VE)
        if self.hidden is not None:
            x = F.gelu(_scaled_linear(self.hidden, x))
        return _scaled_linear(self.dense, x)


def _scaled_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer on x over the root of its size; the few weights are divided, not the rows."""
    return F.linear(x, layer.weight / math.sqrt(layer.in_features), layer.bias)
