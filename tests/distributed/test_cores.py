"""How many cores a process may use: at most its container's quota."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from research.cli import doctor
from research.distributed import cores
from research.studies.workers import threads_of_each


@pytest.fixture
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores; returns its quota's file, which is not there yet."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "QUOTA_FILE", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("quota", "usable", "threads"),
    [
        (None, 8.0, (8, 4, 2, 1)), ("max 100000\n", 8.0, (8, 4, 2, 1)),
        ("damaged", 8.0, (8, 4, 2, 1)),
        ("350000 100000\n", 3.5, (3, 1, 1, 1)), ("50000 100000\n", 0.5, (1, 1, 1, 1)),
        ("1600000 100000\n", 8.0, (8, 4, 2, 1)),
    ],
)  # fmt: skip
def test_workers_share_what_the_container_allows(
    eight_cores: Path, quota: str | None, usable: float, threads: tuple[int, ...]
) -> None:
    if quota is not None:
        eight_cores.write_text(quota, encoding="ascii")
    assert cores.usable_cores() == usable
    assert tuple(map(threads_of_each, (1, 2, 3, 8))) == threads
    (finding,) = doctor.of_threads()
    assert finding.numbers["cores"] == usable
