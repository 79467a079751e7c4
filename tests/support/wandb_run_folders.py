"""Writes run folders for the tests of the W&B mirror, and opens ports that never answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from research.runs.config import RunConfig
from research.storage.records import CostRecord, RunRecord, RunSummary, StageResult
from research.storage.run_folder import RunFolder
from research.tracking.config import Tracking
from tests.support.configs import CONFIGS
from tests.support.records import run_record, run_summary

KEY = "0123456789" * 4
SHORT_TIMEOUTS = Tracking(init_seconds=1.0, finish_seconds=2.0)
SUMMARY = run_summary(
    val={"ndcg@10": 0.25},
    test={"full": {"hr@10": 0.5}, "uniform-100": {"hr@10": 0.75}},
    best={
        "first": StageResult(epoch=None, value=None, epochs=3, steps=6, skipped=0),
        "second": StageResult(epoch=2, value=0.25, epochs=4, steps=8, skipped=0),
    },
    cost=CostRecord(parameters=12, seconds=1.5),
)
LINES = [("first", 1), ("first", 2), ("second", 1), ("second", 2), ("second", 3)]


def shop_run_record(config: RunConfig | None = None) -> RunRecord:
    """Return config.json of a run on the shop; None: a run with the stages `first` and `second`."""
    record = run_record(config or CONFIGS["two stages"](), hash="00ff")
    return replace(record, dataset=replace(record.dataset, name="shop"))


def write_run(
    path: Path,
    lines: Sequence[tuple[str, int]] = LINES,
    summary: RunSummary | None = SUMMARY,
    config: RunConfig | None = None,
) -> Path:
    """Write a run folder with a logged loss for each (stage, step): half the step.

    Without `summary` the run has not finished.
    """
    folder = RunFolder(path)
    folder.write(shop_run_record(config))
    for stage, step in lines:
        folder.log(stage, step, 0, {f"{stage}/loss": step / 2})
    if summary is not None:
        folder.write(summary)
    return path


@contextmanager
def silent_server(kind: str) -> Iterator[str]:
    """Give the URL of a port that is closed (`dead`) or that never answers (`hanging`)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "hanging":
            listener.listen(64)
        else:
            listener.close()
        yield f"http://127.0.0.1:{port}"
