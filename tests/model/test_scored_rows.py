"""Rows that compete in ranking: tiles against a loop, lists against tiles, bounds, equal rows."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from research.model.kernels import scored_rows
from research.model.kernels.scored_rows import ScoredRows


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


KINDS = {
    "items": ScoredRows(draw(9, 5)),
    "bias": ScoredRows(draw(9, 5), bias_R=draw(9, seed=1)),
    "further": ScoredRows(draw(9, 5), further_ED=draw(1, 5, seed=2)),
    "all": ScoredRows(draw(9, 5), draw(9, seed=1), draw(2, 5, seed=2)),
}


def by_loop(rows: ScoredRows, states_SD: Tensor) -> list[list[float]]:
    table = [*rows.table_RD, *([] if rows.further_ED is None else rows.further_ED)]
    bias = [0.0] * len(table)
    if rows.bias_R is not None:
        bias[: len(rows.bias_R)] = rows.bias_R.tolist()
    return [
        [sum(float(a * b) for a, b in zip(state_D, row_D)) + extra
         for row_D, extra in zip(table, bias)]
        for state_D in states_SD
    ]  # fmt: skip


@pytest.mark.parametrize("states", [0, 1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_equal_the_loop(kind: str, states: int) -> None:
    rows, states_SD = KINDS[kind], draw(states, 5, seed=3)
    expected = torch.tensor(by_loop(rows, states_SD), dtype=torch.float64)
    for first in range(rows.columns):
        for last in range(first + 1, rows.columns + 1):
            scores_SC = rows.scores(states_SD, first, last)
            assert scores_SC.shape == (states, last - first)
            if states:
                torch.testing.assert_close(scores_SC, expected[:, first:last])


@pytest.mark.parametrize("held", [1, 20, 1 << 18])
@pytest.mark.parametrize("kind", ["items", "bias"])
def test_scores_of_lists_equal_the_loop(
    monkeypatch: pytest.MonkeyPatch, kind: str, held: int
) -> None:
    monkeypatch.setattr(scored_rows, "CPU_GATHERED", held)
    rows, states_SD = KINDS[kind], draw(4, 5, seed=3)
    items_SN = torch.tensor([[0, 8, 3], [3, 3, 3], [7, 1, 2], [8, 0, 0]])
    expected = torch.tensor(by_loop(rows, states_SD), dtype=torch.float64).gather(1, items_SN)
    torch.testing.assert_close(rows.scores_of(states_SD, items_SN), expected)
    assert rows.scores_of(states_SD[:0], items_SN[:0]).shape == (0, 3)


@pytest.mark.parametrize("columns", [1, 15, 16, 17, 12101])
def test_rows_of_a_tile_begin_at_multiples_of_sixteen_numbers(columns: int) -> None:
    rows = ScoredRows(torch.zeros(12101, 2))
    assert rows.scores(torch.zeros(3, 2), 0, columns).stride(0) % 16 == 0


@pytest.mark.parametrize("width", [1, 7, 61, 64, 256])
@pytest.mark.parametrize("states", [1, 2, 3, 5, 11, 33])
def test_equal_rows_score_equally_to_the_last_bit(states: int, width: int) -> None:
    states_SD = draw(states, width, dtype=torch.float32)
    row_D = draw(1, width, seed=1, dtype=torch.float32)
    for number in (2, 3, 7, 8, 15, 31, 130, 1003):
        rows = ScoredRows(row_D.repeat(number, 1))
        whole_SC = rows.scores(states_SD, 0, number)
        assert (whole_SC == whole_SC[:, :1]).all()
        # In tiles of one shape at least.
        half = number // 2
        pieces = [rows.scores(states_SD, 0, half), rows.scores(states_SD, number - half, number)]
        assert torch.equal(*pieces)
        items_SN = torch.arange(number).repeat(states, 1)
        scores_SN = rows.scores_of(states_SD, items_SN)
        assert (scores_SN == scores_SN[:, :1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_score_is_above_its_bound(kind: str) -> None:
    rows, states_SD = KINDS[kind], draw(50, 5, seed=4)
    largest_S = rows.scores(states_SD, 0, rows.columns).abs().amax(1)
    assert (largest_S <= rows.largest(states_SD)).all()


@pytest.mark.parametrize("value", [torch.nan, inf, -inf, 1e38])
@pytest.mark.parametrize("place", ["state", "table", "bias", "further"])
def test_what_is_not_finite_or_may_overflow_has_no_finite_bound(place: str, value: float) -> None:
    parts = {
        "state": torch.ones(2, 3),
        "table": torch.ones(4, 3),
        "bias": torch.ones(4),
        "further": torch.ones(1, 3),
    }
    # Eight times 1e38 is too much; a bias of 1e38 and three is not.
    parts[place].view(-1)[-1] = value
    states_SD = 4 * parts["state"]
    rows = ScoredRows(parts["table"], parts["bias"], parts["further"])
    finite = rows.largest(states_SD).isfinite().tolist()
    if place == "state":
        assert finite == [True, False]
    else:
        assert finite == [place == "bias" and value == 1e38] * 2
