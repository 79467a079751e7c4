"""A target's score and the log of the sum over the others, as autograd has them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from research.model.kernels.target_and_others import target_and_others


def plain(scores_PQ: Tensor, bias_Q: Tensor, columns_P: Tensor) -> tuple[Tensor, Tensor]:
    """The same by the definition, a row at a time."""
    targets, others = [], []
    for row, column in zip(scores_PQ, columns_P.tolist(), strict=True):
        rest = torch.cat([(row + bias_Q)[:column], (row + bias_Q)[column + 1 :]])
        targets.append(row[column])
        others.append(rest.exp().sum().log())
    return torch.stack(targets), torch.stack(others)


@pytest.mark.parametrize(("rows", "candidates"), [(1, 2), (5, 3), (7, 12)])
def test_values_and_gradients_are_those_of_the_definition(rows: int, candidates: int) -> None:
    draws = torch.Generator().manual_seed(rows)
    scores_PQ = torch.randn(rows, candidates, generator=draws, dtype=torch.float64)
    bias_Q = torch.randn(candidates, generator=draws, dtype=torch.float64)
    columns_P = torch.randint(candidates, (rows,), generator=draws)
    weights_2P = torch.randn(2, rows, generator=draws, dtype=torch.float64)
    results = []
    for function in (target_and_others, plain):
        leaf_PQ = scores_PQ.clone().requires_grad_()
        pair = function(leaf_PQ, bias_Q, columns_P)
        (torch.stack(pair) * weights_2P).sum().backward()
        results.append((*pair, leaf_PQ.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_scores_of_any_size_do_not_overflow() -> None:
    scores_PQ = torch.tensor([[1e4, -1e4, 9e3], [-1e30, 0.0, 1e30]], requires_grad=True)
    targets_P, others_P = target_and_others(scores_PQ, torch.zeros(3), torch.tensor([0, 2]))
    assert targets_P.tolist() == pytest.approx([1e4, 1e30])
    assert others_P.tolist() == [9e3, 0.0]
    others_P.sum().backward()
    assert scores_PQ.grad is not None
    assert scores_PQ.grad.tolist() == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def test_a_target_without_others_has_no_gradient() -> None:
    scores_PQ = torch.tensor([[3.0]], requires_grad=True)
    targets_P, others_P = target_and_others(scores_PQ, torch.zeros(1), torch.tensor([0]))
    assert (targets_P.item(), others_P.item()) == (3.0, -torch.inf)
    torch.where(others_P > -1.0, others_P, 0.0).sum().backward()
    assert scores_PQ.grad is not None
    assert scores_PQ.grad.tolist() == [[0.0]]


def test_no_rows_are_allowed() -> None:
    scores_PQ = torch.zeros(0, 0, requires_grad=True)
    empty_P = torch.zeros(0, dtype=torch.int64)
    targets_P, others_P = target_and_others(scores_PQ, torch.zeros(0), empty_P)
    (targets_P.sum() + others_P.sum()).backward()
    assert scores_PQ.grad is not None
    assert scores_PQ.grad.shape == (0, 0)
