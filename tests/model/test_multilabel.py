"""The tiled binary cross-entropy equals torch's on a dense target, wherever a tile may end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.cross_entropy as softmax_module
from research.model.kernels.multilabel import multilabel_loss, precision_at_num_labels

WIDTH = 5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of 16 rows, the smallest there is."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1)


def inputs(
    picked: int, labels: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float64
) -> Inputs:
    """States, a table and true pairs: a third of all, in the order of rows; some rows have none."""
    draws = torch.Generator().manual_seed(picked * 1000 + labels)
    hidden_PD = torch.randn(picked, WIDTH, generator=draws, dtype=dtype) * scale
    table_AD = torch.randn(labels, WIDTH, generator=draws, dtype=dtype)
    true_PA = torch.rand(picked, labels, generator=draws) < 1 / 3
    rows_M, labels_M = true_PA.nonzero(as_tuple=True)
    return hidden_PD, table_AD, rows_M, labels_M


def dense_target(hidden_PD: Tensor, table_AD: Tensor, rows_M: Tensor, labels_M: Tensor) -> Tensor:
    target_PA = hidden_PD.new_zeros(len(hidden_PD), len(table_AD))
    target_PA[rows_M, labels_M] = 1.0
    return target_PA


def both(parts: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """(value, gradients) of ours and of torch's, for three times the loss."""
    hidden_PD, table_AD, rows_M, labels_M = parts
    target_PA = dense_target(*parts)
    results = []
    for tiled in (True, False):
        hidden, table = hidden_PD.clone().requires_grad_(), table_AD.clone().requires_grad_()
        if tiled:
            total = multilabel_loss(hidden, table, rows_M, labels_M)
        else:
            logits_PA = hidden @ table.T
            total = F.binary_cross_entropy_with_logits(logits_PA, target_PA, reduction="sum")
        (3.0 * total).backward()
        results.append([total.detach(), hidden.grad, table.grad])
    return results[0], results[1]


def assert_twins(parts: Inputs, tolerance: float) -> None:
    for ours, theirs in zip(*both(parts), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# In float64 a sum of 4000 terms is exact to about 1e-12; 1e-10 leaves room for nothing else.
@pytest.mark.parametrize("labels", [1, 2, 13, 101])
@pytest.mark.parametrize("picked", [1, 15, 16, 17, 32, 37])
def test_value_and_gradients_equal_torch(picked: int, labels: int) -> None:
    assert_twins(inputs(picked, labels), 1e-10)


def test_huge_logits_neither_overflow_nor_lose_the_loss() -> None:
    parts = inputs(37, 13, scale=1e4)
    assert both(parts)[0][0].isfinite()
    assert_twins(parts, 1e-10)


def test_huge_logits_are_finite_in_float32() -> None:
    parts = inputs(37, 13, scale=1e4, dtype=torch.float32)
    assert all(part.isfinite().all() for part in both(parts)[0])
    # Losses of about 1e4 each; float32 resolves a ten-millionth of their sum.
    assert_twins(parts, 1e-5)


@pytest.mark.parametrize("logit", [59.0, 61.0])
def test_logits_on_both_sides_of_the_safe_bound_are_exact_in_float32(logit: float) -> None:
    # A right label far above and a wrong one far below cost nothing, the reverse costs |logit|.
    hidden_PD = torch.tensor([[logit], [-logit]])
    table_AD = torch.tensor([[1.0], [-1.0], [0.0]])
    rows_M, labels_M = torch.tensor([0, 1]), torch.tensor([0, 0])
    parts = hidden_PD, table_AD, rows_M, labels_M
    # Row 0 is right everywhere, row 1 wrong twice; 0.6931472 for each logit of 0.
    assert both(parts)[0][0].item() == pytest.approx(2 * logit + 2 * 0.6931472, rel=1e-6)
    assert_twins(parts, 1e-6)


def test_float32_agrees_to_its_precision() -> None:
    # 3700 losses of about 1: float32 resolves 5e-4 of their sum, which is 1e-7 of it.
    assert_twins(inputs(37, 101, dtype=torch.float32), 1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    hidden_PD, table_AD, rows_M, labels_M = inputs(17, 3)
    torch.autograd.gradcheck(
        lambda hidden, table: multilabel_loss(hidden, table, rows_M, labels_M),
        (hidden_PD.requires_grad_(), table_AD.requires_grad_()),
    )


def test_no_row_gives_zero_attached_to_the_graph() -> None:
    hidden_PD, table_AD, rows_M, labels_M = inputs(0, 13)
    leaves = [hidden_PD.requires_grad_(), table_AD.requires_grad_()]
    total = multilabel_loss(hidden_PD, table_AD, rows_M, labels_M)
    total.backward()
    assert total.item() == 0.0
    for leaf in leaves:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_no_true_pair_at_all_still_costs() -> None:
    hidden_PD, table_AD, _, _ = inputs(17, 13)
    nothing = torch.empty(0, dtype=torch.int64)
    assert_twins((hidden_PD, table_AD, nothing, nothing), 1e-10)


def test_by_hand() -> None:
    # Logits 1 and -1, the first of which is true: log(1 + 1/e) twice.
    hidden_PD = torch.tensor([[1.0]])
    table_AD = torch.tensor([[1.0], [-1.0]])
    total = multilabel_loss(hidden_PD, table_AD, torch.tensor([0]), torch.tensor([0]))
    assert total.item() == pytest.approx(2 * 0.3132617, abs=1e-6)


def test_the_order_of_pairs_does_not_matter() -> None:
    hidden_PD, table_AD, rows_M, labels_M = inputs(37, 13)
    total = multilabel_loss(hidden_PD, table_AD, rows_M, labels_M)
    turned = multilabel_loss(hidden_PD, table_AD, rows_M.flip(0), labels_M.flip(0))
    assert turned.item() == pytest.approx(total.item(), abs=1e-10)


def test_the_tile_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = inputs(37, 13)
    small = multilabel_loss(*parts), precision_at_num_labels(*parts)
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1 << 21)
    # Sums are taken in another order.
    assert multilabel_loss(*parts).item() == pytest.approx(small[0].item(), abs=1e-10)
    assert precision_at_num_labels(*parts).item() == pytest.approx(small[1].item(), abs=1e-12)


def test_a_frozen_table_gets_no_gradient_and_the_states_do() -> None:
    hidden_PD, table_AD, rows_M, labels_M = inputs(3, 4)
    multilabel_loss(hidden_PD.requires_grad_(), table_AD, rows_M, labels_M).backward()
    assert table_AD.grad is None
    assert hidden_PD.grad.abs().sum() > 0


def slow_precision(hidden_PD: Tensor, table_AD: Tensor, rows_M: Tensor, labels_M: Tensor) -> float:
    """A row at a time: how many of its k labels are among its k best."""
    total = 0.0
    for row, hidden_D in enumerate(hidden_PD):
        own = {label for at, label in zip(rows_M.tolist(), labels_M.tolist()) if at == row}
        scores = [(hidden_D * label_D).sum().item() for label_D in table_AD]
        best = sorted(range(len(scores)), key=lambda label: -scores[label])[: len(own)]
        if own:
            total += len(own & set(best)) / len(own)
    return total


@pytest.mark.parametrize("labels", [1, 2, 13])
@pytest.mark.parametrize("picked", [0, 1, 15, 16, 17, 37])
def test_precision_equals_the_loop(picked: int, labels: int) -> None:
    parts = inputs(picked, labels)
    precision = precision_at_num_labels(*parts)
    assert precision.dtype == torch.float64
    assert precision.item() == pytest.approx(slow_precision(*parts), abs=1e-12)


def test_precision_by_hand() -> None:
    table_AD = torch.eye(4)
    # Scores are the states themselves. Row 0 has labels 0 and 3, its best are 0 and 1; row 1 has
    # none; row 2 has label 2, its best; row 3 has all.
    hidden_PD = torch.tensor(
        [[9.0, 8.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.1, 0.0], [4.0, 3.0, 2.0, 1.0]]
    )
    rows_M, labels_M = torch.tensor([0, 0, 2, 3, 3, 3, 3]), torch.tensor([0, 3, 2, 0, 1, 2, 3])
    assert precision_at_num_labels(hidden_PD, table_AD, rows_M, labels_M).item() == 0.5 + 1 + 1


def test_of_equal_scores_the_lower_label_comes_first() -> None:
    # A constant scorer's k best are labels 0 to k - 1, whatever the row's labels are.
    hidden_PD, table_AD = torch.zeros(2, 3), torch.ones(4, 3)
    rows_M, labels_M = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 3])
    assert precision_at_num_labels(hidden_PD, table_AD, rows_M, labels_M).item() == 1.0 + 0.5
