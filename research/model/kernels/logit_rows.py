"""`LogitRows`: the rows that a full softmax scores states against, a tile of states at a time.

The losses over them are in `cross_entropy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from research.model.kernels.precision import product


@dataclass(frozen=True, eq=False)
class LogitRows:
    """The rows that states are scored against, in the dtype of the products."""

    rows_CD: Tensor
    """[C, D]: trained rows, the first columns of the logits."""
    further_ED: Tensor | None
    """[E, D]: frozen rows, the last columns of the logits; None: there are none."""
    bias_C: Tensor | None
    """[C]: added to the logits of the trained rows; None: nothing."""
    scale_C: Tensor | None = None
    """[C]: by it products with the trained rows are multiplied; None: by nothing."""

    @property
    def columns(self) -> int:
        """C + E: the number of rows that compete."""
        return len(self.rows_CD) + (0 if self.further_ED is None else len(self.further_ED))

    def logits(self, states: Tensor, tile: Tensor) -> Tensor:
        """[P, C + E]: logits of the states of one tile; in fp32 they are written to `tile`."""
        rows, count = self.rows_CD, len(self.rows_CD)
        if states.dtype in (torch.bfloat16, torch.float16):
            assert self.scale_C is None, "rows are scaled before they are rounded"
            logits = product(states, rows.T)
            logits = logits if self.bias_C is None else logits.add_(self.bias_C)
            if self.further_ED is None:
                return logits
            return torch.cat([logits, product(states, self.further_ED.T)], dim=1)
        if self.scale_C is not None:
            torch.mm(states, rows.T, out=tile[:, :count])
            tile[:, :count] *= self.scale_C
            if self.bias_C is not None:
                tile[:, :count] += self.bias_C
        elif self.bias_C is None:
            torch.mm(states, rows.T, out=tile[:, :count])
        else:
            torch.addmm(self.bias_C, states, rows.T, out=tile[:, :count])
        if self.further_ED is not None:
            torch.mm(states, self.further_ED.T, out=tile[:, count:])
        return tile

    def mean_row(self, items: int, dtype: torch.dtype) -> Tensor:
        """[D]: the mean of the first `items` rows; its product with a state is their mean score."""
        if self.scale_C is not None:
            return self.scale_C[:items] @ self.rows_CD[:items] / items
        return self.rows_CD[:items].mean(0, dtype=dtype)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """[P, D]: for each state, the sum of all rows times their weights [P, C + E]."""
        mixture = product(weights[:, : len(self.rows_CD)], self.rows_CD)
        if self.further_ED is None:
            return mixture
        return mixture.add_(product(weights[:, len(self.rows_CD) :], self.further_ED))
