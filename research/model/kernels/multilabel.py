"""Binary cross-entropy over A labels, of which each row has a few, without a target tensor [P, A].

sum_a BCE(z_a, y_a) = sum_a softplus(z_a) - sum_{a in own} z_a, with own the row's true labels. The
caller gives these as (row, label) pairs. Loss and gradients are computed together, one tile of rows
at a time, with the same products in low precision under autocast as in `cross_entropy.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from research.model.kernels.cross_entropy import is_safe, tile_rows
from research.model.kernels.precision import SHARES, low_precision, product, without_autocast


class _TiledBinaryCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_PD: Tensor,
        table_AD: Tensor,
        rows_M: Tensor,
        labels_M: Tensor,
        low_dtype: torch.dtype | None,
    ) -> Tensor:
        rows = tile_rows(len(table_AD), hidden_PD.device)
        grad_hidden_PD = torch.zeros_like(hidden_PD)
        grad_table_AD = torch.zeros_like(table_AD)
        total = hidden_PD.new_zeros((), dtype=torch.float64)
        is_bounded = is_safe(hidden_PD, table_AD)
        dtype = hidden_PD.dtype
        if low_dtype is not None:
            # The loss and its gradients are those of the rounded factors.
            hidden_PD, table_AD = hidden_PD.to(low_dtype), table_AD.to(low_dtype)
        for first in range(0, len(hidden_PD), rows):
            hidden = hidden_PD[first : first + rows]
            logits = product(hidden, table_AD.T)
            if is_bounded:
                # softplus z = log(1 + e), sigmoid z = e / (1 + e): one exponential serves both.
                powers = logits.exp_()
                total += powers.log1p().sum(dtype=torch.float64)
                shares = powers.div_(powers + 1)
            else:
                total += torch.nn.functional.softplus(logits).sum(dtype=torch.float64)
                shares = logits.sigmoid_()
            grad_hidden = grad_hidden_PD[first : first + rows]
            if low_dtype is not None:
                shares = shares.mul_(SHARES).to(low_dtype)
                torch.div(product(shares, table_AD), SHARES, out=grad_hidden)
                grad_table_AD.add_(product(shares.T, hidden), alpha=1 / SHARES)
            else:
                torch.mm(shares, table_AD, out=grad_hidden)
                grad_table_AD.addmm_(shares.T, hidden)
        true_MD, hidden_MD = table_AD[labels_M].to(dtype), hidden_PD[rows_M].to(dtype)
        total -= (true_MD * hidden_MD).sum(dtype=torch.float64)
        grad_hidden_PD.index_add_(0, rows_M, true_MD, alpha=-1)
        grad_table_AD.index_add_(0, labels_M, hidden_MD, alpha=-1)
        ctx.grads = grad_hidden_PD, grad_table_AD  # type: ignore[attr-defined]
        return total.to(dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_total: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden_PD, grad_table_AD = ctx.grads  # type: ignore[attr-defined]
        return grad_hidden_PD * grad_total, grad_table_AD * grad_total, None, None, None


def multilabel_loss(
    hidden_PD: Tensor, table_AD: Tensor, rows_M: Tensor, labels_M: Tensor
) -> Tensor:
    """Scalar: the binary cross-entropy of logits hidden @ table', summed over rows and labels.

    (rows_M[m], labels_M[m]) are the true pairs, each at most once. 0 if P = 0. Differentiable once,
    with respect to `hidden_PD` and `table_AD`.
    """
    low_dtype = low_precision(table_AD)
    with without_autocast(hidden_PD):
        total: Tensor = _TiledBinaryCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_PD.to(table_AD.dtype), table_AD, rows_M, labels_M, low_dtype
        )
    return total


def precision_at_num_labels(
    hidden_PD: Tensor, table_AD: Tensor, rows_M: Tensor, labels_M: Tensor
) -> Tensor:
    """float64 scalar: the sum over rows of precision at k, k being the row's number of labels.

    A row without labels adds 0. Autocast is off, as it would round logits into ties.
    """
    with without_autocast(hidden_PD):
        return _precision_at_num_labels(hidden_PD.to(table_AD.dtype), table_AD, rows_M, labels_M)


def _precision_at_num_labels(
    hidden_PD: Tensor, table_AD: Tensor, rows_M: Tensor, labels_M: Tensor
) -> Tensor:
    total = hidden_PD.new_zeros((), dtype=torch.float64)
    num_labels_P = torch.bincount(rows_M, minlength=len(hidden_PD))
    rows = tile_rows(len(table_AD), hidden_PD.device)
    for first in range(0, len(hidden_PD), rows):
        logits = hidden_PD[first : first + rows] @ table_AD.T
        # Each label's rank in its row by descending logit; equal logits are in id order.
        order = logits.argsort(dim=1, descending=True, stable=True)
        ranks = torch.empty_like(order)
        ranks.scatter_(1, order, torch.arange(len(table_AD), device=order.device).expand_as(order))
        inside_M = (rows_M >= first) & (rows_M < first + rows)
        rows_I, labels_I = rows_M[inside_M], labels_M[inside_M]
        num_labels_I = num_labels_P[rows_I]
        is_hit_I = ranks[rows_I - first, labels_I] < num_labels_I
        total += (is_hit_I.double() / num_labels_I).sum()
    return total
