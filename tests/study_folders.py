"""Hand-made folders of studies, as `study` leaves them, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from research.evaluation.rank import RankTable
from research.json_files import write_json
from research.tracking import RunFolder

PROTOCOL: dict[str, object] = {
    "corpus": "films", "fingerprint": "f00d", "part": "test", "seen": "excluded", "ties": "mean",
    "candidates": "full", "candidates_seed": 0,
    "split": {"class": "LeaveOneOut"},
}  # fmt: skip
# Six users; with ranks 1, 2, 3, 4, 5 and a miss, say.
COUNTS = (0, 0, 3, 4, 50, 1000)
LENGTHS = (2, 4, 7, 8, 30, 300)


def table_of(ranks: Sequence[float], **protocol: object) -> RankTable:
    """User u is asked for item u; cold, rare and popular items, short and long histories."""
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
    summary: Mapping[str, object] | None = None,
    **protocol: object,
) -> Path:
    """A finished run with these ranks of its held-out items."""
    path = begin_run(study, cell, seed, corpus=corpus, counts=counts)
    table_of(ranks, **protocol).save(path / "ranks" / "test-full.npz")
    cost = {"parameters": 1200, "seconds": 10.0 + seed, "shared_seconds": 0.0, "items": 5000}
    written = {"status": "finished", "hash": "abcd", "cost": cost, "shared": {}, **(summary or {})}
    write_json(path / "summary.json", written)
    for line in lines:
        values = {name: each for name, each in line.items() if name not in ("stage", "step")}
        RunFolder(path).log(line["stage"], line["step"], 0, values)
    return path


def begin_run(
    study: Path, cell: str, seed: int, *, corpus: str = "films", counts: bool = False
) -> Path:
    """A run that has been begun."""
    path = study / corpus / cell / str(seed)
    stages: list[object] = [] if counts else [{"name": "train"}]
    write_json(path / "config.json", {"hash": "abcd", "config": {"stages": stages}})
    return path


def fail_run(study: Path, cell: str, seed: int, error: str, *, corpus: str = "films") -> None:
    """A run that has failed."""
    path = begin_run(study, cell, seed, corpus=corpus)
    write_json(path / "failed.json", {"hash": "abcd", "error": error, "traceback": "", "when": ""})


def write_study(study: Path, cells: Sequence[str], /, **changes: object) -> Path:
    """study.json; the first cell is the base."""
    record: dict[str, object] = {
        "name": study.name, "question": "Which head helps?", "base": cells[0],
        "metrics": ["hr@1", "mrr"], "compared": "mrr", "budget": None, "cells": list(cells),
        "changes": {}, "seeds": [0, 1], "corpora": ["films"],
        "command": "python -m research study mine:heads",
    }  # fmt: skip
    record |= changes
    runs = {
        corpus: {
            cell: {str(seed): "abcd" for seed in cast(list[int], record["seeds"])} for cell in cells
        }
        for corpus in cast(list[str], record["corpora"])
    }
    study.mkdir(parents=True, exist_ok=True)
    (study / "study.json").write_text(json.dumps({"runs": runs, **record}))
    return study
