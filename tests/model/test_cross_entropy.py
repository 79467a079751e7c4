"""The tiled cross-entropy equals torch's, value and gradient, wherever a tile may end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import research.model.kernels.column_tiles as columns_module
import research.model.kernels.cosine as cosine_module
import research.model.kernels.cross_entropy as softmax_module
from research.model.item_table import ItemTable
from research.model.kernels.cross_entropy import Smoothing, softmax_loss

WIDTH = 5


@pytest.fixture(autouse=True, params=["tiles of rows", "tiles of columns"])
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 states and all columns, or of 16 states and 7 columns."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1)
    if request.param == "tiles of columns":
        monkeypatch.setattr(softmax_module, "are_faster", lambda *_: True)
        monkeypatch.setattr(columns_module, "STATES", 16)
        monkeypatch.setattr(columns_module, "COLUMNS", 7)


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


@pytest.mark.parametrize("further", [1, 7, 20])
def test_further_rows_compete_and_get_no_gradient(further: int) -> None:
    hidden_PD, table_RD, bias_C, targets_P = inputs(37, 24, bias=True, dtype=torch.float64)
    assert bias_C is not None
    bias_C, targets_P = bias_C[:22], targets_P % 22
    further_ED = torch.randn(further, WIDTH, dtype=torch.float64)
    found, expected = (
        [each.clone().requires_grad_() for each in (hidden_PD, table_RD, bias_C)] for _ in "12"
    )
    loss = softmax_loss(*found, targets_P, rows=22, further_ED=further_ED)
    states, table, bias = expected
    logits = torch.cat([states @ table[:22].T + bias, states @ further_ED.T], dim=1)
    F.cross_entropy(logits, targets_P, reduction="sum").backward()
    loss.backward()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)


def test_rising_and_falling_logits_are_scaled_anew_from_tile_to_tile() -> None:
    hidden_PD, table_VD, _, targets_P = inputs(37, 101, dtype=torch.float64)
    for sign in (1.0, -1.0):
        bias_V = torch.linspace(-500.0, 500.0, 101, dtype=torch.float64) * sign
        assert_twins(both(hidden_PD, table_VD, bias_V, targets_P), 1e-10)


@pytest.mark.parametrize(
    ("states", "columns", "by_mkl", "at_full_width"),
    [(1466, 40_000, True, False), (32, 40_000, False, False), (4, 40_000, False, False),
     (1466, 12_101, False, False), (128, 1 << 16, True, False), (512, 1 << 16, True, True),
     (16, 1_000_000, False, False), (64, 1_000_000, True, False), (256, 1_000_000, True, True)],
)  # fmt: skip
def test_tiles_of_columns_are_for_many_states_and_a_large_catalogue(
    states: int, columns: int, by_mkl: bool, at_full_width: bool
) -> None:
    assert columns_module.are_faster(states, columns, at_full_width=False) is by_mkl
    assert columns_module.are_faster(states, columns, at_full_width=True) is at_full_width


def test_an_infinite_state_makes_the_loss_non_finite() -> None:
    hidden_PD, table_VD, _, targets_P = inputs(20, 30, dtype=torch.float32)
    hidden_PD[3, 2] = torch.inf
    hidden_PD.requires_grad_()
    assert not softmax_loss(hidden_PD, table_VD, None, targets_P).isfinite()


def test_rounded_factors_give_what_autocast_gives_and_a_small_error() -> None:
    hidden_PD, table_VD, bias_V, targets_P = inputs(37, 101, bias=True, dtype=torch.float32)
    losses, grads = [], []
    for bf16, autocast in ((True, False), (False, True), (False, False)):
        states, table = hidden_PD.clone().requires_grad_(), table_VD.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = softmax_loss(states, table, bias_V, targets_P, bf16=bf16)
        loss.backward()
        losses.append(loss.detach())
        grads.append((states.grad, table.grad))
    assert torch.equal(losses[0], losses[1])
    for rounded, autocasted, exact in zip(*grads, strict=True):
        assert rounded is not None
        assert autocasted is not None
        assert exact is not None
        assert torch.equal(rounded, autocasted)
        # bf16 has 8 bits: a product is off by up to 2^-8.
        assert float((rounded - exact).norm() / exact.norm()) < 2**-6
    torch.testing.assert_close(losses[0], losses[2], rtol=2**-8, atol=0.0)


def smoothed(logits_PC: Tensor, targets_P: Tensor, share: float, items: int) -> Tensor:
    """The twin: the cross-entropy with a written out distribution over the classes."""
    wanted_PC = torch.zeros_like(logits_PC)
    wanted_PC[:, :items] = share / items
    wanted_PC[torch.arange(len(targets_P)), targets_P] += 1 - share
    return -(wanted_PC * torch.log_softmax(logits_PC, dim=1)).sum()


@pytest.mark.parametrize("further", [0, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.75])
@pytest.mark.parametrize("picked", [0, 1, 37])
def test_label_smoothing_equals_the_written_out_distribution(
    picked: int, share: float, bias: bool, further: int
) -> None:
    # 23 rows compete, of which 22 are items; the table has one more.
    hidden_PD, table_RD, bias_R, targets_P = inputs(picked, 24, bias=bias, dtype=torch.float64)
    leaves = [hidden_PD, table_RD, *([] if bias_R is None else [bias_R[:23]])]
    further_ED = torch.randn(further, WIDTH, dtype=torch.float64) if further else None
    results = []
    for tiled in (True, False):
        states, table, *biases = [leaf.clone().requires_grad_() for leaf in leaves]
        bias_C = biases[0] if biases else None
        if tiled:
            total = softmax_loss(
                states, table, bias_C, targets_P % 22, rows=23, further_ED=further_ED,
                smoothing=Smoothing(share, 22),
            )  # fmt: skip
        else:
            logits_PC = states @ table[:23].T + (0.0 if bias_C is None else bias_C)
            if further_ED is not None:
                logits_PC = torch.cat([logits_PC, states @ further_ED.T], dim=1)
            total = smoothed(logits_PC, targets_P % 22, share, 22)
        (3.0 * total).backward()
        results.append([total.detach(), states.grad, table.grad, *(each.grad for each in biases)])
    assert_twins((results[0], results[1]), 1e-10)


def test_label_smoothing_by_hand() -> None:
    # Scores 1 and 0: log softmax is -0.3132617 and -1.3132617; of the target 0.8 + 0.1, the other
    # 0.1.
    total = softmax_loss(
        torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0]]), None, torch.tensor([0]),
        smoothing=Smoothing(0.2, 2),
    )  # fmt: skip
    assert total.item() == pytest.approx(0.9 * 0.3132617 + 0.1 * 1.3132617, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("picked", [0, 1, 37])
def test_scaled_rows_equal_a_scaled_table(
    picked: int, scale: float, bias: bool, share: float
) -> None:
    hidden_PD, table_VD, bias_V, targets_P = inputs(picked, 101, bias=bias, dtype=torch.float64)
    hidden_PD *= scale
    scale_V = torch.rand(101, dtype=torch.float64) + 0.5
    leaves = [hidden_PD, table_VD, *([] if bias_V is None else [bias_V])]
    results = []
    for in_tiles in (True, False):
        states, table, *biases = [leaf.clone().requires_grad_() for leaf in leaves]
        bias_C = biases[0] if biases else None
        if in_tiles:
            total = softmax_loss(
                states, table, bias_C, targets_P, scale_R=scale_V, smoothing=Smoothing(share, 101)
            )
        else:
            logits_PC = states @ (table * scale_V[:, None]).T + (0.0 if bias_C is None else bias_C)
            total = smoothed(logits_PC, targets_P, share, 101)
        total.backward()
        results.append([total.detach(), states.grad, table.grad, *(each.grad for each in biases)])
    # Sums of logits near 1e4 times 37 tokens.
    assert_twins((results[0], results[1]), 1e-10)


class LargeTensors(TorchDispatchMode):
    """Counts the tensors made that have at least so many elements, and the largest of all."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements, self.made, self.largest = elements, 0, 0

    def __torch_dispatch__(
        self, call: Callable[..., object], types: object, args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:  # fmt: skip
        given = {
            each.untyped_storage().data_ptr()
            for each in tree_leaves((args, kwargs))
            if isinstance(each, Tensor)
        }
        answer = call(*args, **(kwargs or {}))
        for each in tree_leaves(answer):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.made += each.numel() >= self.elements
                self.largest = max(self.largest, each.numel())
        return answer


@pytest.mark.parametrize("bf16", [False, True])
def test_smoothing_and_cosine_make_no_tensor_as_large_as_the_table_beside_the_plain_loss(
    bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosine_module, "ROWS", 16)
    # The tile has 16 states and the 301 rows; the table, 12 times as wide as that is high.
    states_PD, table_VD = torch.randn(50, 192), torch.randn(301, 192)
    targets_P = torch.arange(50)
    counts = {}
    for name in ("plain", "smoothed", "cosine"):
        table = ItemTable(300, 192, init_std=0.02, seed=0)
        with torch.no_grad():
            table.weight.copy_(table_VD)
        states = states_PD.clone().requires_grad_()
        with LargeTensors(elements=50 * 300) as made:
            table.softmax_loss(
                states, targets_P, bf16=bf16,
                label_smoothing=0.1 if name == "smoothed" else 0.0, cosine=name == "cosine",
            ).backward()  # fmt: skip
        counts[name] = made.made, made.largest
    # In low precision the rows are scaled before they are rounded, which takes a copy for a moment.
    extra = 1 if bf16 else 0
    assert counts["smoothed"] == counts["plain"]
    assert counts["cosine"] == (counts["plain"][0] + extra, counts["plain"][1])
