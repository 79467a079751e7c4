"""Compares two runs: their losses line by line, their rank tables column by column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from research.evaluation.rank_table import RankTable

COLUMNS = ("user", "item", "rank", "ties", "history_length", "item_count")


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl without items per second."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    left_out = ("items_per_second",)
    return [
        {name: value for name, value in line.items() if not name.endswith(left_out)}
        for line in lines
    ]


def assert_same_losses(ours: Path, theirs: Path) -> None:
    """Compare what two runs logged, to the rounding of float64."""
    for one, other in zip(lines_of(ours), lines_of(theirs), strict=True):
        assert one.pop("stage") == other.pop("stage")
        # Float64 over at most 40 steps of Adam.
        assert one == pytest.approx(other, rel=1e-8, abs=1e-8)


def assert_same_tables(ours: Path, theirs: Path) -> None:
    """Compare the four rank tables of two runs, which must be equal."""
    names = sorted(path.name for path in (ours / "ranks").iterdir())
    assert names == sorted(path.name for path in (theirs / "ranks").iterdir())
    assert len(names) == 4
    for name in names:
        first, second = (RankTable.load(run / "ranks" / name) for run in (ours, theirs))
        for column in COLUMNS:
            assert getattr(first, column).tolist() == getattr(second, column).tolist(), name
        assert first.protocol == second.protocol
