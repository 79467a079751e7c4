"""`ScoredRows`: the rows that compete when items are ranked, scored a tile of columns at a time.

Ranks are found by comparing scores, so items with equal embeddings must have scores that are equal
to the last bit. That rules out products with few rows on either side, for which libraries use other
algorithms, whose order of summation differs from column to column; batched products of candidate
lists do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from research.model.kernels.cross_entropy import aligned_tile

# How many numbers of gathered embeddings `scores_of` holds at once.
CPU_GATHERED = 1 << 18
ACCELERATOR_GATHERED = 1 << 27
# Fewest rows of either factor of a product. With MKL on AMD's Zen 4, equal columns differ in their
# last bits with up to 3 rows of states (11 with two threads) and with 5 to 11 columns.
FEWEST = 16


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The rows that states are scored against, without a graph."""

    table_RD: Tensor
    """[R, D]: the rows of the items, and of the mask if it competes."""
    bias_R: Tensor | None = None
    """[R]: added to the scores of `table_RD`; None: nothing."""
    further_ED: Tensor | None = None
    """[E, D]: rows outside the item table, scored in columns after it; None: there are none."""

    @property
    def columns(self) -> int:
        """R + E: the number of rows that compete."""
        return len(self.table_RD) + (0 if self.further_ED is None else len(self.further_ED))

    def scores(self, states_SD: Tensor, first: int, last: int) -> Tensor:
        """[S, last - first]: scores of the columns from `first` to before `last`."""
        columns = last - first
        scores_SC = aligned_tile(states_SD, len(states_SD), columns)
        table_CD = self.table_RD[first:last]
        if len(table_CD):
            _product(states_SD, table_CD, scores_SC[:, : len(table_CD)])
        if self.bias_R is not None:
            scores_SC[:, : len(table_CD)] += self.bias_R[first:last]
        if self.further_ED is not None and len(table_CD) < columns:
            begin = max(0, first - len(self.table_RD))
            extra_CD = self.further_ED[begin : last - len(self.table_RD)]
            _product(states_SD, extra_CD, scores_SC[:, len(table_CD) :])
        return scores_SC

    def scores_of(self, states_SD: Tensor, items_SN: Tensor) -> Tensor:
        """[S, N]: each state's scores of the table's rows `items_SN[s]`."""
        on_cpu = states_SD.device.type == "cpu"
        size = max(1, items_SN.shape[1] * states_SD.shape[1])
        rows = max(1, (CPU_GATHERED if on_cpu else ACCELERATOR_GATHERED) // size)
        scores_SN = states_SD.new_empty(items_SN.shape)
        for states, items, scores in zip(
            states_SD.split(rows), items_SN.split(rows), scores_SN.split(rows)
        ):
            products = F.embedding(items, self.table_RD).mul_(states[:, None])
            torch.sum(products, -1, out=scores)
        return scores_SN if self.bias_R is None else scores_SN + self.bias_R[items_SN]

    def largest(self, states_SD: Tensor) -> Tensor:
        """[S]: an upper bound on the magnitude of a state's scores, and of their partial sums.

        It is NaN or infinite if the state or any row is, or if scores might overflow.
        """
        bound = _largest(self.table_RD)
        if self.further_ED is not None:
            bound = torch.maximum(bound, _largest(self.further_ED))
        # Doubled, to allow for rounding.
        bound_S = 2 * states_SD.abs().sum(1) * bound
        return bound_S if self.bias_R is None else bound_S + 2 * _largest(self.bias_R)


def _product(left_SD: Tensor, right_CD: Tensor, out_SC: Tensor) -> None:
    """Write left @ right.T into `out_SC`; the product has `FEWEST` rows or more on either side."""
    if min(len(left_SD), len(right_CD)) >= FEWEST:
        torch.mm(left_SD, right_CD.T, out=out_SC)
        return
    products = _filled_up(left_SD) @ _filled_up(right_CD).T
    out_SC.copy_(products[: out_SC.shape[0], : out_SC.shape[1]])


def _filled_up(rows_RD: Tensor) -> Tensor:
    """The rows, followed by rows of zeros if they are fewer than `FEWEST`."""
    return F.pad(rows_RD, (0, 0, 0, max(0, FEWEST - len(rows_RD))))


def _largest(numbers: Tensor) -> Tensor:
    """Scalar: the largest magnitude; NaN if any number is."""
    lowest, highest = numbers.aminmax()
    return torch.maximum(-lowest, highest)
