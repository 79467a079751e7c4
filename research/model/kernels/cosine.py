"""Rows of a table as unit vectors, for scores that are cosines, without a copy of the table.

A kernel multiplies its products with the raw rows by `inverse_norms`, which it takes for constants.
What it leaves out of a row's gradient is the part along the row itself, which changes the row's
norm and no cosine. `tangent` removes that part on the way back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# Norms below this count as this, so that a row of zeros has cosine 0 with everything.
EPS = 1e-6
# Rows of a gradient that are projected at once.
ROWS = 4096


def inverse_norms(table_RD: Tensor) -> Tensor:
    """[R]: 1 over the norm of each row, at most 1 / EPS; without a graph."""
    norms_R: Tensor = table_RD.detach().norm(dim=1)
    return norms_R.clamp_(min=EPS).reciprocal_()


def tangent(table_RD: Tensor) -> Tensor:
    """The table itself; its gradient, dense or sparse, loses each row's part along that row.

    A dense gradient is changed in place, so the result may be handed to one function alone, which
    makes its gradient anew.
    """
    same_RD: Tensor = _Tangent.apply(table_RD)  # type: ignore[no-untyped-call]
    return same_RD


class _Tangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, table_RD: Tensor) -> Tensor:
        ctx.save_for_backward(table_RD)
        return table_RD.view_as(table_RD)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_RD: Tensor) -> Tensor:
        (table_RD,) = ctx.saved_tensors  # type: ignore[attr-defined]
        if grad_RD.is_sparse:
            ids, values_ND = grad_RD._indices(), grad_RD._values().clone()
            for values, rows in zip(values_ND.split(ROWS), ids[0].split(ROWS)):
                _project(values, table_RD[rows])
            return torch.sparse_coo_tensor(
                ids, values_ND, grad_RD.shape,
                is_coalesced=grad_RD.is_coalesced(), check_invariants=False,
            )  # fmt: skip
        for values, rows_RD in zip(grad_RD.split(ROWS), table_RD.split(ROWS)):
            _project(values, rows_RD)
        return grad_RD


def _project(values_ND: Tensor, rows_ND: Tensor) -> None:
    """Subtract from each row of `values_ND`, in place, its part along the row of `rows_ND`."""
    squares_N = rows_ND.square().sum(1)
    # Below EPS the norm counts as a constant, so nothing is left out.
    shares_N = torch.where(squares_N >= EPS**2, (values_ND * rows_ND).sum(1) / squares_N, 0.0)
    values_ND.addcmul_(rows_ND, shares_N[:, None], value=-1)
