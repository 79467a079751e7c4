"""Each target's score, and the log of the sum of exponentials over the other candidates.

All rows have the same candidates, as in a softmax over the items of a batch. The pair is what such
losses are functions of. Of all scores one matrix, the softmax over the others, is kept for the
backward pass; autograd keeps two, and passes over five.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _TargetAndOthers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, scores_PQ: Tensor, bias_Q: Tensor, columns_P: Tensor
    ) -> tuple[Tensor, Tensor]:
        columns_P1 = columns_P[:, None]
        targets_P = scores_PQ.gather(1, columns_P1)[:, 0]
        shares_PQ = scores_PQ + bias_Q
        shares_PQ.scatter_(1, columns_P1, -torch.inf)
        others_P = shares_PQ.logsumexp(1)
        if any(ctx.needs_input_grad):  # type: ignore[attr-defined]
            # Without another candidate the log is -inf; all shares are 0 then.
            finite_P1 = others_P[:, None].clamp(min=torch.finfo(others_P.dtype).min)
            ctx.save_for_backward(shares_PQ.sub_(finite_P1).exp_(), columns_P1)
        return targets_P, others_P

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_targets_P: Tensor, grad_others_P: Tensor
    ) -> tuple[Tensor, None, None]:
        shares_PQ, columns_P1 = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_PQ = shares_PQ * grad_others_P[:, None]
        return grad_PQ.scatter_(1, columns_P1, grad_targets_P[:, None]), None, None


def target_and_others(
    scores_PQ: Tensor, bias_Q: Tensor, columns_P: Tensor
) -> tuple[Tensor, Tensor]:
    """(score of each target [P], log of the sum of exp(score + bias) over all others [P]).

    `columns_P` (int64) says which candidate is each row's target; where it is the only one the log
    is -inf, with a gradient of 0. Differentiable once, with respect to the scores.
    """
    pair: tuple[Tensor, Tensor] = _TargetAndOthers.apply(  # type: ignore[no-untyped-call]
        scores_PQ, bias_Q, columns_P
    )
    return pair
