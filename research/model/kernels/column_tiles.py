"""The full softmax over a large catalogue, a tile of columns at a time, with logits computed twice.

The softmax's denominators are sums over all columns, so the gradient of the rows has to wait for
them. `cross_entropy.py` holds all logits of a few states until then; over a million columns these
are 16 states at a time, and products with so few rows run at a third of a CPU's rate. Here a tile
holds many states and few columns. A first pass over the columns sums exponentials and the states'
gradients, a second one computes the logits again for the rows' gradients: four products instead of
three, each at the full rate, and memory for one tile (1 MB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from research.model.kernels.full_width import exp_, full_width

# States and columns of a tile.
STATES, COLUMNS = 1024, 256


@dataclass(frozen=True)
class _Least:
    """From so many columns, states and logits on, tiles of columns are faster than tiles of rows.

    Measured at width 64, 4 to 1,466 states, 16,384 to 10^6 columns (experiments/LOG.md). Few states
    do not pay for computing logits twice.
    """

    columns: int
    states: int
    logits: int


LEAST = _Least(columns=1 << 15, states=64, logits=1 << 23)
# Products of few states lose less at full width (`full_width.py`).
LEAST_AT_FULL_WIDTH = _Least(columns=1 << 16, states=256, logits=1 << 25)


@dataclass(frozen=True, eq=False)
class ColumnGradients:
    """Where gradients of the sum of log denominators are added."""

    states_PD: Tensor
    """[P, D]: for the states; it begins at 0."""
    rows_CD: Tensor
    """[C, D]: for the trained rows."""
    bias_C: Tensor | None
    """[C]: for the bias; None: there is none."""


@dataclass(frozen=True, eq=False)
class _Columns:
    """Some of the rows that compete."""

    rows_WD: Tensor
    bias_W: Tensor | None
    scale_W: Tensor | None
    """[W]: by it products with the rows are multiplied; None: by nothing."""
    trained: slice | None
    """Which of the trained rows they are; None: they are frozen."""

    def logits(self, states_ND: Tensor, buffer: Tensor) -> Tensor:
        """[N, W]: logits of the states, written to the start of `buffer`."""
        shape = len(states_ND), len(self.rows_WD)
        tile_NW = buffer[: shape[0] * shape[1]].view(shape)
        if self.scale_W is not None:
            torch.mm(states_ND, self.rows_WD.T, out=tile_NW).mul_(self.scale_W)
            return tile_NW if self.bias_W is None else tile_NW.add_(self.bias_W)
        if self.bias_W is None:
            return torch.mm(states_ND, self.rows_WD.T, out=tile_NW)
        return torch.addmm(self.bias_W, states_ND, self.rows_WD.T, out=tile_NW)


def are_faster(states: int, columns: int, at_full_width: bool) -> bool:
    """Whether tiles of columns take less time than tiles of rows, on a CPU."""
    least = LEAST_AT_FULL_WIDTH if at_full_width else LEAST
    are_many = states >= least.states and columns >= least.columns
    return are_many and states * columns >= least.logits


def log_denominators(
    states_PD: Tensor,
    rows_CD: Tensor,
    bias_C: Tensor | None,
    further_ED: Tensor | None,
    gradients: ColumnGradients | None,
    *,
    bounded: bool,
    scale_C: Tensor | None = None,
) -> Tensor:
    """[P]: the log of each state's sum of exp(logit), over C trained rows and E frozen ones.

    Products with the trained rows are multiplied by `scale_C`, if given. The gradients of the sum
    of logs are added to `gradients`, if given: those for rows times their scale. `bounded` says
    that no logit is so large that its exponential, or a sum of them, might overflow.
    """
    buffer = states_PD.new_empty(min(STATES, len(states_PD)) * COLUMNS)
    tiles = _Tiles(list(_columns(rows_CD, bias_C, scale_C, further_ED)), buffer, bounded)
    logs_P = states_PD.new_empty(len(states_PD))
    for first in range(0, len(states_PD), STATES):
        part = slice(first, first + STATES)
        states_ND = states_PD[part]
        grad_ND = None if gradients is None else gradients.states_PD[part]
        with full_width(states_ND):
            largest_N, sums_N = tiles.sums(states_ND, grad_ND)
            logs_P[part] = sums_N.log() + largest_N
            if gradients is not None:
                tiles.add_rows(states_ND, largest_N, sums_N, gradients)
    return logs_P


def _columns(
    rows_CD: Tensor, bias_C: Tensor | None, scale_C: Tensor | None, further_ED: Tensor | None
) -> Iterator[_Columns]:
    for first in range(0, len(rows_CD), COLUMNS):
        part = slice(first, first + COLUMNS)
        bias_W = None if bias_C is None else bias_C[part]
        yield _Columns(rows_CD[part], bias_W, None if scale_C is None else scale_C[part], part)
    if further_ED is not None:
        for rows_WD in further_ED.split(COLUMNS):
            yield _Columns(rows_WD, None, None, None)


@dataclass(frozen=True, eq=False)
class _Tiles:
    """All rows that compete, tile by tile, in one buffer."""

    columns: list[_Columns]
    buffer: Tensor
    bounded: bool
    """Whether no logit is so large that exponentials, or sums of them, might overflow."""

    def sums(self, states_ND: Tensor, grad_ND: Tensor | None) -> tuple[Tensor, Tensor]:
        """(largest [N], sums [N]): what logits are reduced by, and sums of their exponentials.

        `grad_ND` becomes the states' gradient: the mean of all rows by the softmax. Unless
        `bounded`, sums and gradient are scaled anew whenever a larger logit comes (Milakov and
        Gimelshein 2018).
        """
        sums_N = states_ND.new_zeros(len(states_ND))
        largest_N = torch.zeros_like(sums_N)
        if not self.bounded:
            largest_N.fill_(-torch.inf)
        for columns in self.columns:
            tile_NW = columns.logits(states_ND, self.buffer)
            if not self.bounded:
                before_N, largest_N = largest_N, torch.maximum(largest_N, tile_NW.amax(1))
                scale_N = (before_N - largest_N).exp_()
                sums_N *= scale_N
                if grad_ND is not None:
                    grad_ND *= scale_N[:, None]
                tile_NW -= largest_N[:, None]
            sums_N += exp_(tile_NW).sum(1)
            if grad_ND is not None:
                if columns.scale_W is not None:
                    tile_NW *= columns.scale_W
                grad_ND.addmm_(tile_NW, columns.rows_WD)
        if grad_ND is not None:
            grad_ND /= sums_N[:, None]
        return largest_N, sums_N

    def add_rows(
        self, states_ND: Tensor, largest_N: Tensor, sums_N: Tensor, gradients: ColumnGradients
    ) -> None:
        """Add the gradients of the trained rows and their bias, from logits computed anew."""
        shares_ND = states_ND / sums_N[:, None]
        for columns in self.columns:
            if columns.trained is None:
                continue
            tile_NW = columns.logits(states_ND, self.buffer)
            if not self.bounded:
                tile_NW -= largest_N[:, None]
            exp_(tile_NW)
            gradients.rows_CD[columns.trained].addmm_(tile_NW.T, shares_ND)
            if gradients.bias_C is not None:
                # A product with a vector would be slow at full width.
                gradients.bias_C[columns.trained] += torch.mm((1 / sums_N)[None], tile_NW)[0]
