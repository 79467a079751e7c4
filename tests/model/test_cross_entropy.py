"""The tiled cross-entropy equals torch's, value and gradient, wherever a tile may end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.cross_entropy as softmax_module
from research.model.kernels.cross_entropy import softmax_loss

WIDTH = 5


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of 16 rows, the smallest there is."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1)


def inputs(
    picked: int, items: int, *, bias: bool = False, scale: float = 1.0, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    draws = torch.Generator().manual_seed(picked * 1000 + items)
    hidden_PD = torch.randn(picked, WIDTH, generator=draws, dtype=dtype) * scale
    table_VD = torch.randn(items, WIDTH, generator=draws, dtype=dtype)
    bias_V = torch.randn(items, generator=draws, dtype=dtype) if bias else None
    targets_P = torch.randint(items, (picked,), generator=draws)
    return hidden_PD, table_VD, bias_V, targets_P


def both(
    hidden_PD: Tensor, table_VD: Tensor, bias_V: Tensor | None, targets_P: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """(value, gradients) of ours and of torch's, for three times the loss."""
    leaves = [each for each in (hidden_PD, table_VD, bias_V) if each is not None]
    results = []
    for tiled in (True, False):
        copies = [each.clone().requires_grad_() for each in leaves]
        hidden, table = copies[:2]
        bias = copies[2] if bias_V is not None else None
        if tiled:
            total = softmax_loss(hidden, table, bias, targets_P)
        else:
            logits = hidden @ table.T + (0.0 if bias is None else bias)
            total = F.cross_entropy(logits, targets_P, reduction="sum")
        (3.0 * total).backward()
        results.append([total.detach(), *(copy.grad for copy in copies)])
    return results[0], results[1]


def assert_twins(parts: tuple[list[Tensor], list[Tensor]], tolerance: float) -> None:
    for ours, theirs in zip(*parts, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# In float64 a sum of 40 terms is exact to about 1e-14; 1e-10 leaves room for nothing else.
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("items", [1, 2, 13, 101])
@pytest.mark.parametrize("picked", [1, 15, 16, 17, 32, 37])
def test_value_and_gradients_equal_torch(picked: int, items: int, bias: bool) -> None:
    assert_twins(both(*inputs(picked, items, bias=bias, dtype=torch.float64)), 1e-10)


@pytest.mark.parametrize("bias", [False, True])
def test_huge_logits_neither_overflow_nor_lose_the_loss(bias: bool) -> None:
    parts = both(*inputs(37, 13, bias=bias, scale=1e4, dtype=torch.float64))
    assert parts[0][0].isfinite()
    assert_twins(parts, 1e-10)


def test_a_huge_bias_alone_is_recognised() -> None:
    hidden_PD, table_VD, _, targets_P = inputs(5, 7, dtype=torch.float32)
    bias_V = torch.full((7,), 300.0)
    assert_twins(both(hidden_PD, table_VD, bias_V, targets_P), 1e-4)


def test_logits_just_inside_the_unshifted_path_are_exact_in_float32() -> None:
    # |logit| up to 59 in float32: exp reaches 4e25, far below the largest float; the loss is near
    # 118 a token, where float32 resolves 8e-6.
    hidden_PD = torch.tensor([[59.0], [-59.0]])
    table_VD = torch.tensor([[1.0], [-1.0], [0.0]])
    assert_twins(both(hidden_PD, table_VD, None, torch.tensor([1, 0])), 1e-6)


def test_float32_agrees_to_its_precision() -> None:
    # 37 losses of about 4: float32 resolves 2e-5 of their sum.
    assert_twins(both(*inputs(37, 101, bias=True, dtype=torch.float32)), 1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_no_picked_token_gives_zero_attached_to_the_graph(bias: bool) -> None:
    hidden_PD, table_VD, bias_V, targets_P = inputs(0, 13, bias=bias, dtype=torch.float64)
    leaves = [each.requires_grad_() for each in (hidden_PD, table_VD, bias_V) if each is not None]
    total = softmax_loss(hidden_PD, table_VD, bias_V, targets_P)
    total.backward()
    assert total.item() == 0.0
    for leaf in leaves:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_a_uniform_guess_costs_the_logarithm_of_the_catalogue() -> None:
    total = softmax_loss(torch.zeros(2, 3), torch.ones(8, 3), None, torch.tensor([0, 7]))
    assert total.item() == pytest.approx(2 * 2.0794415, abs=1e-6)  # 2 log 8


def test_the_value_without_gradients_is_the_same() -> None:
    hidden_PD, table_VD, bias_V, targets_P = inputs(20, 13, bias=True, dtype=torch.float64)
    with torch.no_grad():
        plain = softmax_loss(hidden_PD, table_VD, bias_V, targets_P)
    graph = softmax_loss(hidden_PD.requires_grad_(), table_VD, bias_V, targets_P)
    assert torch.equal(plain, graph.detach())


def test_the_tile_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = inputs(37, 13, bias=True, dtype=torch.float64)
    small = softmax_loss(*parts)
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1 << 21)
    # The sum is taken in another order; 37 terms in float64 differ by 1e-13 at most.
    assert softmax_loss(*parts).item() == pytest.approx(small.item(), abs=1e-12)


def test_a_frozen_table_gets_no_gradient_and_the_states_do() -> None:
    hidden_PD, table_VD, _, targets_P = inputs(3, 4, dtype=torch.float64)
    softmax_loss(hidden_PD.requires_grad_(), table_VD, None, targets_P).backward()
    assert table_VD.grad is None
    assert hidden_PD.grad.abs().sum() > 0
