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
from dataclasses import dataclass
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
        left_out = torch.zeros_like(state["step"]) if self.found_inf is None else self.found_inf
        # A step that is left out is not counted, as by torch.
        state["step"] += 1 - left_out
        move = _Move.of(group, state, parameter.detach(), left_out > 0)
        rows_N, gradient_ND = gradient.indices()[0], gradient.values()
        # A part at a time, so that what is computed of it stays in cache.
        for rows, values in zip(rows_N.split(ROWS), gradient_ND.split(ROWS)):
            move.apply(rows, values)


@dataclass(frozen=True, eq=False)
class _Move:
    """How a step moves rows of a table.

    What depends on the count of steps, or on whether this one is left out, is a scalar on the
    table's device, so that the host need not wait for it. In a step that is left out the scalars
    are those by which nothing changes.
    """

    group: dict[str, Any]
    state: dict[str, Tensor]
    table_RD: Tensor
    left_out: Tensor
    """bool: whether the step is left out."""
    keep: Tensor
    """float64: 1 minus what AdamW takes from a weight, by which weights are multiplied."""
    mean_weight: Tensor
    """float64: the share of the gradient in the running mean."""
    square_factor: Tensor
    """float64: by it the running mean square is multiplied."""
    root_factor: Tensor
    """float64: by it the root of the mean square is multiplied."""
    eps: Tensor
    """float64: added to that root; infinite where the step is left out."""

    @staticmethod
    def of(
        group: dict[str, Any], state: dict[str, Tensor], table_RD: Tensor, left_out: Tensor
    ) -> _Move:
        """The step that `state` counts last."""
        (beta1, beta2), steps = group["betas"], state["step"].double()
        # rate / c1 * mean / (root / c2 + eps), with c1 = 1 - beta1^t and c2 = sqrt(1 - beta2^t), is
        # rate * mean / (root * c1 / c2 + eps * c1).
        first, second = 1.0 - beta1**steps, (1.0 - beta2**steps).sqrt()
        decay = group["lr"] * group["weight_decay"] * group["decoupled_weight_decay"]
        return _Move(
            group=group,
            state=state,
            table_RD=table_RD,
            left_out=left_out,
            keep=1.0 - decay * (1.0 - left_out.double()),
            mean_weight=torch.where(left_out, 0.0, torch.full_like(steps, 1.0 - beta1)),
            square_factor=torch.where(left_out, 1.0, torch.full_like(steps, beta2)),
            root_factor=torch.where(left_out, 1.0, first / second),
            eps=torch.where(left_out, torch.inf, group["eps"] * first),
        )

    def apply(self, rows_N: Tensor, gradient_ND: Tensor) -> None:
        """Update some rows, and their moments, in place."""
        group, means_RD, squares_RD = self.group, self.state["exp_avg"], self.state["exp_avg_sq"]
        values_ND = self.table_RD.index_select(0, rows_N)
        if group["decoupled_weight_decay"]:
            values_ND *= self.keep
        elif group["weight_decay"]:
            gradient_ND = gradient_ND.add(values_ND, alpha=group["weight_decay"])
        # The gradient of a step that is left out need not be finite.
        gradient_ND = gradient_ND.masked_fill(self.left_out, 0.0)
        mean_ND = means_RD.index_select(0, rows_N)
        mean_ND.lerp_(gradient_ND, self.mean_weight.to(mean_ND.dtype))
        square_ND = squares_RD.index_select(0, rows_N).mul_(self.square_factor)
        square_ND.addcmul_(gradient_ND, gradient_ND, value=1.0 - group["betas"][1])
        means_RD.index_copy_(0, rows_N, mean_ND)
        squares_RD.index_copy_(0, rows_N, square_ND)
        root_ND = square_ND.sqrt_().mul_(self.root_factor).add_(self.eps)
        values_ND.addcdiv_(mean_ND, root_ND, value=-group["lr"])
        self.table_RD.index_copy_(0, rows_N, values_ND)


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
    if gradients:
        torch._foreach_mul_(list(gradients), (largest / (norm + 1e-6)).clamp(max=1.0))
