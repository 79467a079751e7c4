"""Adam that moves only the rows of an item table that a step touched, for large catalogues.

Dense Adam reads and writes every row of the table, its gradient and its two moments at each step,
though a sampled loss touches some thousand rows: at a million items that is most of a step. Here
item tables give sparse gradients (`ItemTable.touched_rows`), and only the rows in them are read and
written.

A row that a step does not touch stays as it is: its moments do not decay, its weight does not move
or decay. Dense Adam would go on moving it by the moments of earlier steps. The correction for the
moments' start at 0 counts all steps of the stage, not those of the row. Where every row is touched
at every step, both are equal. (Known as lazy Adam; torch's `SparseAdam` has the same semantics but
neither weight decay nor dense parameters beside it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Rows that are updated at once.
ROWS = 2048


class AdamByRows(torch.optim.Adam):
    """Adam or AdamW; sparse gradients move their rows alone, dense ones are left to torch."""

    found_inf: Tensor | None = None
    """1 in a step that is to be left out, else 0, as torch's fused optimizers read it; None: 0."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step, unless `found_inf` is 1; the moments are made in any case."""
        assert closure is None, "no closure is used here"
        sparse = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for _, parameter, _ in sparse:
            parameter.grad = None
        super().step()
        for group, parameter, gradient in sparse:
            self._move_rows(group, parameter, gradient)
            parameter.grad = gradient

    def _move_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        """Update the rows of `parameter` [R, D] that are in `gradient`, which is coalesced."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # After the state is made, as by torch: `set_rate` corrects the count of a step left out.
        if self.found_inf is not None and bool(self.found_inf):
            return
        state["step"] += 1
        rows_N, gradient_ND = gradient.indices()[0], gradient.values()
        # A part at a time, so that what is computed of it stays in cache.
        for rows, values in zip(rows_N.split(ROWS), gradient_ND.split(ROWS)):
            _move(group, state, parameter.detach(), rows, values)


def _move(
    group: dict[str, Any],
    state: dict[str, Tensor],
    table_RD: Tensor,
    rows_N: Tensor,
    gradient_ND: Tensor,
) -> None:
    """Update some rows of a table, and their moments in `state`, in place."""
    (beta1, beta2), rate, steps = group["betas"], group["lr"], float(state["step"])
    values_ND = table_RD.index_select(0, rows_N)
    if group["decoupled_weight_decay"]:
        values_ND.mul_(1.0 - rate * group["weight_decay"])
    elif group["weight_decay"]:
        gradient_ND = gradient_ND.add(values_ND, alpha=group["weight_decay"])
    mean_ND = state["exp_avg"].index_select(0, rows_N).lerp_(gradient_ND, 1.0 - beta1)
    square_ND = state["exp_avg_sq"].index_select(0, rows_N).mul_(beta2)
    square_ND.addcmul_(gradient_ND, gradient_ND, value=1.0 - beta2)
    state["exp_avg"].index_copy_(0, rows_N, mean_ND)
    state["exp_avg_sq"].index_copy_(0, rows_N, square_ND)
    root_ND = square_ND.sqrt_().div_((1.0 - beta2**steps) ** 0.5).add_(group["eps"])
    values_ND.addcdiv_(mean_ND, root_ND, value=-rate / (1.0 - beta1**steps))
    table_RD.index_copy_(0, rows_N, values_ND)


def coalesced_gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the numbers of each gradient that there is; each row of a sparse one stands once.

    A sparse gradient is replaced by its coalesced form, whose values are returned: what is done to
    them is done to the gradient.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        values.append(numbers_of(parameter.grad))
    return values


def numbers_of(gradient: Tensor) -> Tensor:
    """Return the values of a gradient; of a sparse one, which must be coalesced, those it holds."""
    return gradient.values() if gradient.is_sparse else gradient


def clip(gradients: Sequence[Tensor], largest: float, norm: Tensor) -> None:
    """Multiply gradients of the given norm in place so that their norm is at most `largest`."""
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), scale)
