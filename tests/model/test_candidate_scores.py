"""Scores of given candidates: gathered or picked from whole rows, the same value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import research.model.kernels.candidate_scores as module
import research.model.kernels.cross_entropy as softmax_module
from research.model.kernels.candidate_scores import candidate_scores


def both(
    picked: int, number: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[Tensor]]:
    """(scores, gradients) of the loop, of gathering (twice) and of picking."""
    draws = torch.Generator().manual_seed(picked)
    hidden_PD = torch.randn(picked, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    table_VD = torch.randn(items, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    items_PN = torch.randint(items, (picked, number), generator=draws)
    weights_PN = torch.randn(picked, number, generator=draws, dtype=torch.float64)

    def loop() -> Tensor:
        rows = [
            torch.stack([(hidden_PD[row] * table_VD[item]).sum() for item in items_PN[row]])
            for row in range(picked)
        ]
        return torch.stack(rows)

    results = []
    for way in ("loop", "gathered", "touched rows", "picked"):
        if way == "loop":
            scores_PN = loop()
        else:
            monkeypatch.setattr(module, "CPU_ROWS_PER_GATHER", 0 if way == "gathered" else 1 << 30)
            touched = way == "touched rows"
            scores_PN = candidate_scores(hidden_PD, table_VD, items_PN, touched_rows=touched)
        grads = torch.autograd.grad((scores_PN * weights_PN).sum(), [hidden_PD, table_VD])
        assert grads[1].is_sparse is (way == "touched rows")
        results.append([scores_PN.detach(), *(grad.to_dense() for grad in grads)])
    return results


# More candidates than items, so that some stand twice in a row; a last tile of one row.
@pytest.mark.parametrize(("picked", "number", "items"), [(1, 1, 1), (17, 5, 4), (33, 2, 9)])
def test_all_ways_equal_the_loop(
    picked: int, number: int, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1)
    monkeypatch.setattr(module, "GATHERED", 4 * number * 3)
    loop, *ways = both(picked, number, items, monkeypatch)
    for twin, *ours in zip(loop, *ways, strict=True):
        for each in ours:
            # Sums of a few dozen terms in float64.
            torch.testing.assert_close(each, twin, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows_per_gather", "touched"), [(0, False), (0, True), (1 << 30, False)])
def test_no_state_has_no_scores_and_zero_gradients(
    rows_per_gather: int, touched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_ROWS_PER_GATHER", rows_per_gather)
    hidden_PD = torch.zeros(0, 3, requires_grad=True)
    table_VD = torch.ones(4, 3, requires_grad=True)
    items_PN = torch.zeros(0, 2, dtype=torch.int64)
    scores_PN = candidate_scores(hidden_PD, table_VD, items_PN, touched_rows=touched)
    scores_PN.sum().backward()
    assert scores_PN.shape == (0, 2)
    assert not table_VD.grad.to_dense().any()
