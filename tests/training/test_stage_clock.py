"""What a stage's seconds and memory are recorded as, also across checkpoints of older versions."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from research.training import allocator, peak_memory, stage_clock
from research.training.allocator import HeapTrimmer
from research.training.checkpointer import state_of
from research.training.peak_memory import PeakMemory, peak_bytes
from research.training.stage_clock import StageClock
from research.training.state import StageState
from tests.support.trainer import STAGE, VALUES, Trainer, scripted_validation

CPU = torch.device("cpu")
needs_proc = pytest.mark.skipif(
    PeakMemory(CPU).bytes() is None, reason="the system reports no peak, or cannot begin it anew"
)


class Time:
    """A clock that is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_parts_are_added_to_those_of_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr(stage_clock, "time", time)
    clock = StageClock(StageState(validation_seconds=10.0, checkpoint_seconds=1.0), CPU)
    for seconds in (2.0, 3.0):
        with clock.measure("validation"):
            time.now += seconds
    with clock.measure("checkpoints"):
        time.now += 0.5
    state = clock.complete(StageState(step=7))
    assert (state.step, state.validation_seconds, state.checkpoint_seconds) == (7, 15.0, 1.5)


def test_what_a_checkpoint_of_an_earlier_version_lacks_stays_unknown() -> None:
    stored = asdict(StageState(step=3))
    for name in ("validation_seconds", "checkpoint_seconds", "peak_bytes"):
        del stored[name]
    before = state_of(stored, "folder")
    state = StageClock(before, CPU).complete(before)
    assert state.step == 3
    assert (state.validation_seconds, state.checkpoint_seconds, state.peak_bytes) == (None,) * 3


@needs_proc
def test_the_peak_of_a_stage_is_its_own() -> None:
    def peak_of(size: int) -> int:
        clock = StageClock(StageState(), CPU)
        torch.ones(size, dtype=torch.uint8)
        peak = clock.complete(StageState()).peak_bytes
        assert peak is not None
        return peak

    small, large, small_again = peak_of(1), peak_of(200 << 20), peak_of(1)
    assert large - small > 150 << 20
    assert large - small_again > 150 << 20


def test_the_peak_is_unknown_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    assert peak_bytes(CPU) is None
    assert StageClock(StageState(), CPU).complete(StageState()).peak_bytes is None
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\n")
    assert peak_bytes(CPU) == 2048 * 1024
    # That is the peak of the process, and not of a stage, as it could not begin anew.
    assert StageClock(StageState(), CPU).complete(StageState()).peak_bytes is None
    (tmp_path / "absent").mkdir()
    assert StageClock(StageState(), CPU).complete(StageState()).peak_bytes == 2048 * 1024


def test_a_stage_records_what_its_time_was_spent_on(trainer: Trainer) -> None:
    state, _ = trainer.train(STAGE, scripted_validation(VALUES))
    assert state.validation_seconds is not None
    assert state.checkpoint_seconds is not None
    assert 0.0 < state.validation_seconds + state.checkpoint_seconds < state.seconds
    stored = json.loads(trainer.checkpoint_bytes("step", "state.json"))
    # A checkpoint cannot hold what writing it takes.
    assert stored["checkpoint_seconds"] < state.checkpoint_seconds


def test_free_memory_is_given_back_when_the_process_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time, trims, pages = Time(), [], {"now": 0}
    monkeypatch.setattr(allocator, "time", time)
    monkeypatch.setattr(allocator, "resident_pages", lambda: pages["now"])
    monkeypatch.setattr(allocator, "give_back_free_memory", lambda: trims.append(time.now))
    heap = HeapTrimmer()
    looks = (
        # Within a second nothing is looked at; then the level is 100, and 131 is above 1.3 of it.
        (0.5, 900), (1.0, 100), (1.5, 900), (2.0, 130), (3.0, 131),
        # What is needed after the trim is the new level, also where it is higher.
        (4.0, 200), (5.0, 260), (6.0, 261),
    )  # fmt: skip
    for time.now, pages["now"] in looks:
        heap.after_step()
    assert trims == [3.0, 6.0]


def test_nothing_is_given_back_where_memory_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Time()
    monkeypatch.setattr(allocator, "time", time)
    monkeypatch.setattr(allocator, "_PAGES", Path("/nowhere/statm"))
    monkeypatch.setattr(allocator, "give_back_free_memory", lambda: pytest.fail("trimmed"))
    heap = HeapTrimmer()
    for time.now in (1.0, 2.0, 3.0):
        heap.after_step()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_resident_memory_is_read() -> None:
    pages = allocator.resident_pages()
    assert pages is not None
    assert 10_000 < pages < 10_000_000
