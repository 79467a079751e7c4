"""Full-softmax cross-entropy that never holds all logits [P, V].

Loss and gradients are computed together, one tile of rows at a time, so that memory holds one tile,
and logits are computed once, not again in the backward pass. On a CPU a tile stays in cache, and a
large catalogue goes by tiles of columns (`column_tiles.py`). Under autocast the factors of the
three products are in low precision; all else, including gradients, is fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.column_tiles import ColumnGradients, are_faster, log_denominators
from research.model.kernels.full_width import applies_to, exp_, full_width
from research.model.kernels.logit_rows import LogitRows
from research.model.kernels.precision import SHARES, low_precision, product, without_autocast

# Elements of one tile of logits: 6 MB in fp32 on a CPU; 256 MB on an accelerator.
CPU_TILE = 3 << 19
ACCELERATOR_TILE = 1 << 26
# In fp32, exp(x) for |x| up to this neither overflows when summed over a catalogue nor underflows.
SAFE_LOGIT = 60.0
# A tile's rows begin at multiples of this many elements. That is 64 bytes in fp32, for which a
# CPU's products are twice as fast as at odd places, and 32 in low precision, as tensor cores need.
ALIGNED = 16


@dataclass(frozen=True)
class Smoothing:
    """Label smoothing: a share of a target's probability is spread over all items alike."""

    share: float = 0.0
    """epsilon, in [0, 1): what all items get in equal parts, the target's among them."""
    items: int = 1
    """How many of the first rows that compete are items."""


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states_PD: Tensor,
        table_RD: Tensor,
        bias_C: Tensor | None,
        further_ED: Tensor | None,
        targets_P: Tensor,
        rows: int,
        low_dtype: torch.dtype | None,
        scale_R: Tensor | None,
        smoothing: Smoothing,
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad)  # type: ignore[attr-defined]
        rows_CD = table_RD[:rows]
        scale_C = None if scale_R is None else scale_R[:rows]
        is_bounded = is_safe(states_PD, rows_CD, bias_C, further_ED, scale_C)
        factors, scale_in_tiles_C = states_PD, scale_C
        if low_dtype is not None:
            # The loss and its gradients are those of the rounded factors.
            if scale_C is not None:
                rows_CD, scale_in_tiles_C = rows_CD * scale_C[:, None], None
            factors, rows_CD = states_PD.to(low_dtype), rows_CD.to(low_dtype)
            further_ED = None if further_ED is None else further_ED.to(low_dtype)
        competing = LogitRows(rows_CD, further_ED, bias_C, scale_in_tiles_C)
        grads = _Gradients.zeros(states_PD, table_RD, bias_C, rows) if wants_grad else None
        in_columns = states_PD.device.type == "cpu" and factors.dtype == states_PD.dtype
        weight = 1.0 - smoothing.share
        if in_columns and are_faster(len(states_PD), competing.columns, applies_to(states_PD)):
            total = _loss_by_columns(competing, states_PD, targets_P, grads, is_bounded, weight)
        else:
            total = _loss_by_rows(competing, factors, targets_P, grads, is_bounded, weight)
        if grads is not None:
            grads.subtract_targets(competing, factors, targets_P, weight)
        if smoothing.share:
            total -= smoothing.share * _sum_of_mean_scores(competing, factors, smoothing, grads)
        if grads is not None:
            if scale_C is not None:
                grads.table_RD[:rows] *= scale_C[:, None]
            ctx.grads = grads  # type: ignore[attr-defined]
        return total.to(states_PD.dtype)

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None, None, None, None, None]:
        grads: _Gradients = ctx.grads  # type: ignore[attr-defined]
        return (
            grads.states_PD * grad_total,
            grads.table_RD * grad_total,
            None if grads.bias_C is None else grads.bias_C * grad_total,
            None,
            None,
            None,
            None,
            None,
            None,
        )


def _loss_by_rows(
    competing: LogitRows,
    states_PD: Tensor,
    targets_P: Tensor,
    grads: _Gradients | None,
    bounded: bool,
    weight: float,
) -> Tensor:
    """float64 scalar: log denominators less `weight` times targets' logits, summed.

    It is computed by tiles of a few states and all columns. The gradient of the log denominators is
    added to `grads`. `bounded` says that exponentials of logits do not overflow.
    """
    total = states_PD.new_zeros((), dtype=torch.float64)
    height = tile_rows(competing.columns, states_PD.device)
    buffer = aligned_tile(competing.rows_CD, min(height, len(states_PD)), competing.columns)
    for first in range(0, len(states_PD), height):
        part = slice(first, first + height)
        states, targets = states_PD[part], targets_P[part]
        tile = buffer[: len(states)]
        with full_width(states, shapes_recur=len(states) == height):
            logits = competing.logits(states, tile)
            target_logits = logits.gather(1, targets[:, None])[:, 0]
            if bounded:
                sums = exp_(logits).sum(1)
                losses = sums.log()
            else:
                largest = logits.amax(1)
                sums = exp_(logits.sub_(largest[:, None])).sum(1)
                losses = sums.log() + largest
            total += losses.sub_(target_logits, alpha=weight).sum(dtype=torch.float64)
            if grads is not None:
                grads.add(part, competing, states, logits, sums, tile)
    return total


def _loss_by_columns(
    competing: LogitRows,
    states_PD: Tensor,
    targets_P: Tensor,
    grads: _Gradients | None,
    bounded: bool,
    weight: float,
) -> Tensor:
    """float64 scalar: as by `_loss_by_rows`, by tiles of many states and few columns.

    Only where the products are in the dtype of the gradients.
    """
    added = None
    if grads is not None:
        trained_CD = grads.table_RD[: len(competing.rows_CD)]
        added = ColumnGradients(grads.states_PD, trained_CD, grads.bias_C)
    logs_P = log_denominators(
        states_PD,
        competing.rows_CD,
        competing.bias_C,
        competing.further_ED,
        added,
        bounded=bounded,
        scale_C=competing.scale_C,
    )
    targets_PD = F.embedding(targets_P, competing.rows_CD)
    target_logits_P = (states_PD * targets_PD).sum(1)
    if competing.scale_C is not None:
        target_logits_P *= competing.scale_C[targets_P]
    if competing.bias_C is not None:
        target_logits_P += competing.bias_C[targets_P]
    return (logs_P - target_logits_P * weight).sum(dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Gradients of the loss with respect to states, table and bias, filled tile by tile."""

    states_PD: Tensor
    """[P, D]: the gradient for the states."""
    table_RD: Tensor
    """[R, D]: the gradient for the whole table; rows that do not compete stay 0. While it is
    filled, that for the scaled rows."""
    bias_C: Tensor | None
    """[C]: the gradient for the bias; None: there is no bias."""
    rows: int
    """C: how many rows of the table compete."""

    @staticmethod
    def zeros(states_PD: Tensor, table_RD: Tensor, bias_C: Tensor | None, rows: int) -> _Gradients:
        """Gradients of 0, in the shapes of the inputs."""
        bias = None if bias_C is None else torch.zeros_like(bias_C)
        return _Gradients(torch.zeros_like(states_PD), torch.zeros_like(table_RD), bias, rows)

    def add(
        self,
        part: slice,
        competing: LogitRows,
        states: Tensor,
        exponentials: Tensor,
        sums: Tensor,
        tile: Tensor,
    ) -> None:
        """Add the gradient of the log of the softmax's denominator, for the states in `part`.

        The softmax is `exponentials` [P, C + E] over their `sums` [P]; `tile` is a buffer.
        """
        table_part = exponentials[:, : self.rows]
        if self.bias_C is not None:
            # A product with a vector would be slow at full width.
            self.bias_C.add_(torch.mm((1 / sums)[None], table_part)[0])
        grad_states, grad_rows = self.states_PD[part], self.table_RD[: self.rows]
        if states.dtype != grad_states.dtype:
            shares = torch.mul(exponentials, (SHARES / sums)[:, None], out=tile)
            torch.div(competing.weighted_sum(shares), SHARES, out=grad_states)
            grad_rows.add_(product(shares[:, : self.rows].T, states), alpha=1 / SHARES)
        else:
            # Dividing tensors of width D, not the tile, saves a pass over the tile.
            grad_rows.addmm_(table_part.T, states / sums[:, None])
            if competing.scale_C is not None:
                table_part *= competing.scale_C
            torch.mm(table_part, competing.rows_CD, out=grad_states)
            if competing.further_ED is not None:
                grad_states.addmm_(exponentials[:, self.rows :], competing.further_ED)
            grad_states /= sums[:, None]

    def subtract_targets(
        self, competing: LogitRows, states_PD: Tensor, targets_P: Tensor, weight: float
    ) -> None:
        """Subtract `weight` times the gradient of the targets' logits, for all states."""
        dtype = self.states_PD.dtype
        targets_PD = competing.rows_CD[targets_P]
        if competing.scale_C is not None:
            targets_PD *= competing.scale_C[targets_P][:, None]
        self.states_PD.sub_(targets_PD, alpha=weight)
        self.table_RD.index_add_(0, targets_P, states_PD.to(dtype), alpha=-weight)
        if self.bias_C is not None:
            ones_P = torch.ones_like(targets_P, dtype=dtype)
            self.bias_C.index_add_(0, targets_P, ones_P, alpha=-weight)

    def subtract_means(
        self, mean_row_D: Tensor, sum_D: Tensor, states: int, smoothing: Smoothing
    ) -> None:
        """Subtract the gradient of the items' mean logit, times the share that is spread.

        `sum_D` is the sum of all states, of which there are `states`.
        """
        part = smoothing.share / smoothing.items
        self.states_PD.sub_(mean_row_D, alpha=smoothing.share)
        self.table_RD[: smoothing.items].sub_(sum_D, alpha=part)
        if self.bias_C is not None:
            self.bias_C[: smoothing.items] -= part * states


def _sum_of_mean_scores(
    competing: LogitRows, states_PD: Tensor, smoothing: Smoothing, grads: _Gradients | None
) -> Tensor:
    """float64 scalar: the mean score of all items, summed over states; its part of `grads`.

    The sum of a state's scores is one product with the sum of the rows.
    """
    dtype = torch.promote_types(states_PD.dtype, torch.float32)
    mean_row_D = competing.mean_row(smoothing.items, dtype)
    sum_D = states_PD.sum(0, dtype=dtype)
    if grads is not None:
        grads.subtract_means(mean_row_D, sum_D, len(states_PD), smoothing)
    total = (mean_row_D.double() * sum_D.double()).sum()
    if competing.bias_C is not None:
        total += competing.bias_C[: smoothing.items].double().mean() * len(states_PD)
    return total


def aligned_tile(like: Tensor, height: int, columns: int) -> Tensor:
    """An uninitialized [height, columns] of the dtype and device of `like`, with aligned rows."""
    return like.new_empty(height, -(-columns // ALIGNED) * ALIGNED)[:, :columns]


def tile_rows(columns: int, device: torch.device) -> int:
    """How many states a tile holds, if each has a product with a table of `columns` rows."""
    tile = CPU_TILE if device.type == "cpu" else ACCELERATOR_TILE
    return max(ALIGNED, tile // columns // ALIGNED * ALIGNED)


def is_safe(
    states_PD: Tensor,
    table_CD: Tensor,
    bias_C: Tensor | None = None,
    further_ED: Tensor | None = None,
    scale_C: Tensor | None = None,
) -> bool:
    """Whether a bound shows that every |logit| is below `SAFE_LOGIT`.

    Always False on an accelerator, where the host would have to wait for the bound.
    """
    if states_PD.device.type != "cpu":
        return False
    if len(states_PD) == 0:
        return True
    norms_C = table_CD.norm(dim=1)
    norms = [(norms_C if scale_C is None else norms_C * scale_C).amax()]
    if further_ED is not None:
        norms.append(further_ED.norm(dim=1).amax())
    # The inequality of Cauchy and Schwarz.
    bound = states_PD.norm(dim=1).amax() * torch.stack(norms).amax()
    bound = bound if bias_C is None else bound + bias_C.abs().amax()
    return bool(bound < SAFE_LOGIT)


def top_one(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    targets_P: Tensor,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
    scale_R: Tensor | None = None,
) -> Tensor:
    """int64 scalar: how many states score their target above every other row that competes.

    A tie does not count. There is no graph, and no autocast, which would round scores into ties.
    The same rows compete as in `softmax_loss`.
    """
    correct = targets_P.new_zeros(())
    scale_C = None if scale_R is None else scale_R[:rows]
    competing = LogitRows(table_RD[:rows], further_ED, bias_C, scale_C)
    height = tile_rows(competing.columns, states_PD.device)
    buffer = aligned_tile(table_RD, min(height, len(states_PD)), competing.columns)
    with torch.no_grad(), without_autocast(states_PD):
        for states, targets in zip(states_PD.split(height), targets_P.split(height)):
            logits = competing.logits(states.to(table_RD.dtype), buffer[: len(states)])
            target_logits = logits.gather(1, targets[:, None])
            correct += ((logits >= target_logits).sum(1) == 1).sum()
    return correct


def all_scores(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
    scale_R: Tensor | None = None,
) -> Tensor:
    """[P, C + E]: scores of all rows that compete, as in `softmax_loss`; without autocast."""
    with without_autocast(states_PD):
        states_PD = states_PD.to(table_RD.dtype)
        scores_PC = states_PD @ table_RD[:rows].T
        scores_PC = scores_PC if scale_R is None else scores_PC * scale_R[:rows]
        scores_PC = scores_PC if bias_C is None else scores_PC + bias_C
        if further_ED is None:
            return scores_PC
        return torch.cat([scores_PC, states_PD @ further_ED.T], dim=1)


def softmax_loss(
    states_PD: Tensor,
    table_RD: Tensor,
    bias_C: Tensor | None,
    targets_P: Tensor,
    *,
    rows: int | None = None,
    further_ED: Tensor | None = None,
    bf16: bool = False,
    scale_R: Tensor | None = None,
    smoothing: Smoothing = Smoothing(),
) -> Tensor:
    """Scalar: the sum over P of -log softmax(table h + bias)[target]; 0 if P = 0.

    The first `rows` rows of the table compete (None: all), and the rows of `further_ED` [E, D],
    which are never targets and get no gradient. Products with the table's rows are multiplied by
    `scale_R` [R], which gets no gradient, if given. With a `smoothing` of share e over V items,
    -log softmax is weighted by 1 - e at the target and by e / V at every item, instead of by 1 at
    the target (Szegedy et al. 2016, section 7). With `bf16` the factors of fp32 products are
    rounded to bf16, as under bf16 autocast. Differentiable once, with respect to states, table and
    bias.
    """
    low_dtype = low_precision(table_RD)
    if bf16 and table_RD.dtype == torch.float32:
        low_dtype = low_dtype or torch.bfloat16
    rows = len(table_RD) if rows is None else rows
    with without_autocast(states_PD):
        total: Tensor = _TiledCrossEntropy.apply(  # type: ignore[no-untyped-call]
            states_PD.to(table_RD.dtype),
            table_RD,
            bias_C,
            further_ED,
            targets_P,
            rows,
            low_dtype,
            scale_R,
            smoothing,
        )
    return total
