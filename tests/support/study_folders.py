"""Writes folders of studies as `study` leaves them, without any run, for the tests of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from research.evaluation.rank_table import RankTable
from research.storage.records import CostRecord, FailureRecord
from research.storage.run_folder import RunFolder
from tests.support.configs import CONFIGS
from tests.support.records import HASH, run_record, run_summary, study_record, write_as_json

PROTOCOL: dict[str, object] = {
    "corpus": "films", "fingerprint": "f00d", "part": "test", "seen": "excluded", "ties": "mean",
    "candidates": "full", "candidates_seed": 0,
    "split": {"class": "LeaveOneOut"},
}  # fmt: skip
# Six users; with ranks 1, 2, 3, 4, 5 and a miss, say.
COUNTS = (0, 0, 3, 4, 50, 1000)
LENGTHS = (2, 4, 7, 8, 30, 300)


def table_of(ranks: Sequence[float], **protocol: object) -> RankTable:
    """Return a rank table in which user u has the held-out item u, at the u-th of these ranks.

    There are cold, rare and popular items, and short and long histories.
    """
    number = len(ranks)
    users = np.arange(number, dtype=np.int32)
    return RankTable(
        user=users,
        item=users,
        rank=np.array(ranks, np.float64),
        ties=np.zeros(number, np.int32),
        history_length=np.resize(np.array(LENGTHS, np.int32), number),
        item_count=np.resize(np.array(COUNTS, np.int32), number),
        protocol={**PROTOCOL, **protocol},
    )


def write_run(
    study: Path,
    cell: str,
    seed: int,
    ranks: Sequence[float],
    *,
    corpus: str = "films",
    counts: bool = False,
    lines: Sequence[Mapping[str, Any]] = (),
    summary: Mapping[str, Any] | None = None,
    validation: Sequence[float] | None = None,
    **protocol: object,
) -> Path:
    """Write a finished run whose held-out items have these ranks; returns its folder.

    `counts`: the run is one of a counting ranker. `validation` are the ranks of the validation
    items; None: those of the test.
    """
    path = begin_run(study, cell, seed, corpus=corpus, counts=counts)
    table_of(ranks, **protocol).save(path / "ranks" / "test-full.npz")
    on_validation = table_of(ranks if validation is None else validation, **protocol)
    on_validation = replace(
        on_validation, protocol={**on_validation.protocol, "part": "validation"}
    )
    on_validation.save(path / "ranks" / "validation-full.npz")
    cost = CostRecord(parameters=1200, seconds=10.0 + seed, shared_seconds=0.0, items=5000)
    write_as_json(path, run_summary(cost=cost), **(summary or {}))
    for line in lines:
        values = {name: each for name, each in line.items() if name not in ("stage", "step")}
        RunFolder(path).log(line["stage"], line["step"], 0, values)
    return path


def begin_run(
    study: Path, cell: str, seed: int, *, corpus: str = "films", counts: bool = False
) -> Path:
    """Write a run that has begun and not ended; returns its folder."""
    path = study / corpus / cell / str(seed)
    write_as_json(path, run_record(CONFIGS["popularity" if counts else "sasrec, full softmax"]()))
    return path


def fail_run(study: Path, cell: str, seed: int, error: str, *, corpus: str = "films") -> None:
    """Write a run that has failed with this error."""
    path = begin_run(study, cell, seed, corpus=corpus)
    write_as_json(path, FailureRecord(hash=HASH, error=error, traceback="", when=""))


def write_study(study: Path, cells: Sequence[str], /, **changes: Any) -> Path:
    """Write study.json; the first cell is the base, and `changes` are fields as JSON has them."""
    record = study_record(study.name, ["base"])
    seeds = {str(seed): HASH for seed in changes.get("seeds", record.seeds)}
    runs = {
        corpus: dict.fromkeys(cells, seeds) for corpus in changes.get("corpora", record.corpora)
    }
    write_as_json(
        study, record, **{"base": cells[0], "cells": list(cells), "runs": runs, **changes}
    )
    return study
