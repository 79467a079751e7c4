"""`show RUN --cost`: where a run's time went; what an older run did not record is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research.storage.records import CostRecord, StageCostRecord, StageResult
from tests.support.command_line import command_error, run_command
from tests.support.records import run_record, run_summary, write_as_json
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]

PRETRAIN = StageCostRecord(
    seconds=100.0, items=80_000, parameters=1200, validation_seconds=15.0, checkpoint_seconds=5.0,
    peak_bytes=512_000_000,
)  # fmt: skip
# Continued by this version from a checkpoint of an earlier one.
TUNE = StageCostRecord(seconds=50.0, items=1000, parameters=1300)
COST = CostRecord(
    parameters=1300, seconds=150.0, shared_seconds=100.0, items=81_000,
    stages={"pretrain": PRETRAIN, "tune": TUNE}, evaluation_seconds=7.25,
    evaluation_peak_bytes=1_500_000_000,
)  # fmt: skip
RESULTS = {
    "pretrain": StageResult(epoch=1, value=0.25, epochs=2, steps=4000, skipped=0),
    "tune": StageResult(epoch=1, value=0.25, epochs=1, steps=10, skipped=0),
}


def folder_of(path: Path, **changes: Any) -> Path:
    write_as_json(path, run_record())
    write_as_json(path, run_summary(**changes))
    return path


def lines_of(capsys: Capture, folder: Path) -> list[list[str]]:
    answer = run_command(capsys, "show", folder, "--cost")
    assert (answer.code, answer.err) == (0, "")
    return [line.split() for line in answer.out.splitlines()]


def test_each_stage_says_where_its_time_went(capsys: Capture, tmp_path: Path) -> None:
    run = folder_of(tmp_path, best=RESULTS, cost=COST, shared={"pretrain": "../../base/0"})
    lines = lines_of(capsys, run)
    # 80,000 tokens in the 80 s that were neither validation nor checkpoints.
    assert lines[3] == [
        "pretrain", "100.0", "80%", "15%", "5%", "4,000", "80,000", "1,000", "1,200", "512", "MB",
    ]  # fmt: skip
    assert lines[4] == [
        "tune", "50.0", "unknown", "unknown", "unknown", "10", "1,000", "unknown", "1,300",
        "unknown",
    ]  # fmt: skip
    assert lines[5] == ["final", "evaluation", "7.2", "1.5", "GB"]
    assert lines[6] == ["all", "157.2", "81,000", "1,300", "unknown"]
    assert " ".join(lines[7]) == (
        "pretrain was copied from ../../base/0: its row is what it cost there"
    )
    assert " ".join(lines[8]) == "this run itself trained for 50.0 s"


def test_what_an_older_run_did_not_record_is_unknown(capsys: Capture, tmp_path: Path) -> None:
    lines = lines_of(capsys, folder_of(tmp_path))
    assert lines[3] == ["train", *["unknown"] * 4, "10", *["unknown"] * 4]
    assert lines[4] == ["final", "evaluation", "unknown", "unknown"]
    assert lines[5] == ["all", "unknown", "5,000", "1,200", "unknown"]
    assert len(lines) == 6


def test_a_ranker_that_counts_has_no_stages(capsys: Capture, tmp_path: Path) -> None:
    cost = CostRecord(
        parameters=0, seconds=0.5, evaluation_seconds=1.0, evaluation_peak_bytes=2_000_000
    )
    lines = lines_of(capsys, folder_of(tmp_path, best={}, cost=cost))
    assert lines[3] == ["counting", "0.5"]
    assert lines[5] == ["all", "1.5", "0", "2", "MB"]


def test_cost_is_of_a_finished_run(capsys: Capture, tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "c", [[0, 1, 2], [2, 1, 0]], num_items=3)
    message = command_error(capsys, "show", corpus.folder, "--cost")
    assert "--cost is for a run" in message
    write_as_json(tmp_path, run_record())
    assert "has not finished" in command_error(capsys, "show", tmp_path, "--cost")
