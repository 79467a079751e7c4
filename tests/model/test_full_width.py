"""Products at a processor's full width are in fp32, and the setting behind them does not stay."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.cross_entropy as softmax_module
import research.model.kernels.full_width as full_width_module
from research.model.kernels.cross_entropy import softmax_loss
from research.model.kernels.full_width import exp_, full_width
from research.model.kernels.precision import true_fp32

MATMUL = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which oneDNN is faster."""
    monkeypatch.setattr(full_width_module, "is_faster", lambda: True)


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def test_the_setting_is_as_before_afterwards(precision: str, wide: None) -> None:
    before = MATMUL.fp32_precision
    with full_width(torch.zeros(1), shapes_recur=True):
        assert MATMUL.fp32_precision == "bf16"
    with pytest.raises(KeyError), full_width(torch.zeros(1), shapes_recur=True):
        raise KeyError
    assert MATMUL.fp32_precision == before
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize(
    ("x", "shapes_recur"),
    [
        (torch.zeros(1), False),
        (torch.zeros(1, dtype=torch.float64), True),
        (torch.zeros(1, device="meta"), True),
    ],
)
def test_nothing_is_set_for_shapes_that_do_not_recur_in_float64_or_elsewhere(
    x: Tensor, shapes_recur: bool, wide: None
) -> None:
    with full_width(x, shapes_recur):
        assert MATMUL.fp32_precision != "bf16"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f\n", False),
    ],
)
def test_it_is_for_amd_with_avx512(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_width_module, "CPU_INFO", tmp_path / "cpuinfo")
    assert full_width_module._is_amd_with_avx512() is False, "there is no such file"
    (tmp_path / "cpuinfo").write_text(text)
    assert full_width_module._is_amd_with_avx512() is expected


def test_where_factors_are_rounded_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.Tensor.__matmul__

    def rounded(left: Tensor, right: Tensor) -> Tensor:
        if left.dtype == torch.float32:
            return multiply(left.bfloat16().float(), right.bfloat16().float())
        return multiply(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not full_width_module._keeps_fp32()


def test_whether_it_is_used_does_not_depend_on_where_it_is_asked_first() -> None:
    expected = full_width_module._keeps_fp32()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert full_width_module._keeps_fp32() is expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # In fp32 rounding log2(e) and the exponent leaves 1.3 |x| 2^-24, 7e-6 at 90.
    [(torch.float32, 1e-5), (torch.float64, 1e-14)],
)
def test_exponentials_are_those_of_torch(dtype: torch.dtype, tolerance: float, wide: None) -> None:
    x = torch.linspace(-87.0, 88.0, 10_001, dtype=torch.float64).to(dtype)
    found = exp_(x.clone())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), x.double().exp(), rtol=tolerance, atol=0.0)
    special = exp_(torch.tensor([-math.inf, 0.0, math.inf, math.nan], dtype=dtype))
    assert special[:3].tolist() == [0.0, 1.0, math.inf]
    assert special[3].isnan()


@pytest.fixture(params=["rows", "columns"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles of 32 states and all columns, or of up to 1,024 states and 256 columns."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 32 * 700)
    in_columns = request.param == "columns"
    monkeypatch.setattr(softmax_module, "are_faster", lambda *_: in_columns)
    return str(request.param)


def inputs(states: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    states_PD = torch.randn(states, 64, generator=draws)
    table_VD = torch.randn(700, 64, generator=draws) * 0.3
    bias_V = torch.randn(700, generator=draws)
    return states_PD, table_VD, bias_V, torch.randint(700, (states,), generator=draws)


def test_tiles_whose_shapes_recur_are_multiplied_at_full_width(
    tiles: str, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but a last one of fewer states, among tiles of rows."""
    multiplied = []
    real = torch.mm

    def seen(left: Tensor, right: Tensor, **further: Tensor) -> Tensor:
        multiplied.append((len(left), MATMUL.fp32_precision == "bf16"))
        return real(left, right, **further)

    monkeypatch.setattr(torch, "mm", seen)
    states_PD, table_VD, _, targets_P = inputs(80)
    softmax_loss(states_PD, table_VD, None, targets_P)
    by_rows = [(32, True), (32, True), (16, False)]
    assert multiplied == (by_rows if tiles == "rows" else [(80, True)] * 3)


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_loss_at_full_width_is_torch_s(tiles: str, has_bias: bool) -> None:
    """With a frozen row among those that compete; at full width where this machine has it."""
    states_PD, table_VD, bias_V, targets_P = inputs(1100)
    further_ED = table_VD[:1] * 0.5
    leaves = [states_PD, table_VD, *([bias_V] if has_bias else [])]
    ours = [leaf.clone().requires_grad_() for leaf in leaves]
    bias = ours[2] if has_bias else None
    loss = softmax_loss(ours[0], ours[1], bias, targets_P, further_ED=further_ED)
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    logits = exact[0] @ exact[1].T + (exact[2] if has_bias else 0.0)
    logits = torch.cat([logits, exact[0] @ further_ED.double().T], dim=1)
    expected = F.cross_entropy(logits, targets_P, reduction="sum")
    # fp32 sums of up to 1,100 terms.
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0.0)
    gradients = torch.autograd.grad(loss, ours)
    for found, twin in zip(gradients, torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(found.double(), twin, rtol=1e-4, atol=2e-5)


def test_threads_do_not_restore_each_other_s_setting(wide: None) -> None:
    """A thread that ranks waits for one that trains, and the other way round."""
    before = MATMUL.fp32_precision
    inside, leave = threading.Event(), threading.Event()

    def train() -> None:
        with full_width(torch.zeros(1)):
            inside.set()
            leave.wait(60)

    def rank() -> None:
        with true_fp32(torch.device("cpu")):
            leave.wait(60)

    threads = [threading.Thread(target=work) for work in (train, rank)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join()
    assert MATMUL.fp32_precision == before
