"""Products at a processor's full width are in fp32, and the setting behind them does not stay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.cross_entropy as softmax_module
import research.model.kernels.full_width as full_width_module
from research.model.kernels.column_tiles import are_faster
from research.model.kernels.cross_entropy import softmax_loss
from research.model.kernels.full_width import exp_, full_width

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
    ("x", "shapes_recur"), [(torch.zeros(1), False), (torch.zeros(1, dtype=torch.float64), True)]
)
def test_nothing_is_set_for_shapes_that_do_not_recur_or_in_float64(
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_are_those_of_torch(dtype: torch.dtype) -> None:
    x = torch.linspace(-90.0, 88.0, 10_001, dtype=torch.float64).to(dtype)
    expected = x.double().exp()
    found = exp_(x.clone())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-38)
    special = exp_(torch.tensor([-math.inf, 0.0, math.inf, math.nan], dtype=dtype))
    assert special[:3].tolist() == [0.0, 1.0, math.inf]
    assert special[3].isnan()


@pytest.mark.parametrize("columns", [300, 1 << 15])
def test_the_loss_at_full_width_is_torch_s(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of rows, of which the last is shorter, and of columns; at full width where it is so."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 32 * 300)
    draws = torch.Generator().manual_seed(0)
    states_PD = torch.randn(1100, 64, generator=draws).requires_grad_()
    table_VD = torch.randn(columns, 64, generator=draws).mul_(0.3).requires_grad_()
    targets_P = torch.randint(columns, (1100,), generator=draws)
    assert are_faster(1100, columns) is (columns > 300)
    ours = softmax_loss(states_PD, table_VD, None, targets_P)
    found = torch.autograd.grad(ours, [states_PD, table_VD])
    exact = [each.detach().double().requires_grad_() for each in (states_PD, table_VD)]
    theirs = F.cross_entropy(exact[0] @ exact[1].T, targets_P, reduction="sum")
    expected = torch.autograd.grad(theirs, exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=0.0)
    for gradient, twin in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), twin, rtol=1e-4, atol=2e-5)
