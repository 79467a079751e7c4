"""Records that runs and studies write as JSON, for tests that need their folders but no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from research.config import record_to_json, to_json
from research.runs.config import RunConfig
from research.storage.json_files import write_json
from research.storage.records import (
    CostRecord,
    DatasetRecord,
    Record,
    RunRecord,
    RunSummary,
    StageResult,
    StartRecord,
    StudyRecord,
    UsersRecord,
)
from tests.support.configs import CONFIGS

FINGERPRINT = "f" * 64
HASH = "abcd"


def run_record(config: RunConfig | None = None, **changes: Any) -> RunRecord:
    """Return config.json of a run on a corpus of six films, as it is when the run begins."""
    config = config or CONFIGS["sasrec, full softmax"]()
    record = RunRecord(
        hash=HASH,
        fingerprint=FINGERPRINT,
        dataset=DatasetRecord(
            name="films", users=6, items=6, interactions=30, attributes=0, filters={}
        ),
        start=StartRecord(),
        stages={stage.name: f"hash of {stage.name}" for stage in config.stages},
        config=to_json(config),
    )
    return replace(record, **changes)


def without_time_and_memory(summary: RunSummary) -> RunSummary:
    """The summary without what two runs of one config may differ in: seconds and peak memory."""
    cost = summary.cost
    return replace(
        summary, cost=CostRecord(parameters=cost.parameters, seconds=0.0, items=cost.items)
    )


def run_summary(**changes: Any) -> RunSummary:
    """Return summary.json of such a run."""
    summary = RunSummary(
        hash=HASH,
        fingerprint=FINGERPRINT,
        protocol={"corpus": "films", "candidates": "full"},
        users=UsersRecord(evaluated=6, not_evaluated=0),
        ties="expected",
        val={"mrr": 0.25, "hr@1": 0.5},
        test={"full": {"mrr": 0.25, "hr@1": 0.5}},
        missed_share=0.0,
        best={"train": StageResult(epoch=1, value=0.25, epochs=2, steps=10, skipped=0)},
        cost=CostRecord(parameters=1200, seconds=10.0, shared_seconds=0.0, items=5000),
        versions={"torch": "2"},
    )
    return replace(summary, **changes)


def study_record(name: str, cells: Sequence[str]) -> StudyRecord:
    """Return study.json of a study with two seeds; the first cell is the base."""
    return StudyRecord(
        name=name,
        question="Which head helps?",
        base=cells[0],
        metrics=("hr@1", "mrr"),
        compared="mrr",
        budget=None,
        cells=tuple(cells),
        changes={},
        seeds=(0, 1),
        corpora=("films",),
        runs={},
        command="python -m research study mine:heads",
    )


def write_as_json(folder: Path, record: Record, **changes: Any) -> None:
    """Write a record to its file; `changes` replace fields by any JSON value, also a wrong one."""
    write_json(folder / record.FILE, {**record_to_json(record), **changes})
