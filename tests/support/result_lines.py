"""A line of results and a published figure of its cell, as small as they can be."""

from __future__ import annotations

from experiments.results.lines import ResultLine, Value
from experiments.results.tables import Published
from research.storage.records import Machine

LINE = ResultLine(
    dataset="shop",
    cell="sasrec",
    seed=0,
    study="board",
    protocol={"part": "test"},
    fingerprint="abc",
    hash="h0",
    metrics={
        "hr@10": Value(mean=0.10, standard_error=0.01),
        "ndcg@10": Value(mean=0.05, standard_error=0.005),
    },
    validation={"ndcg@10": 0.06},
    users=100,
    seconds=12.0,
    tokens=1000,
    parameters=50,
    machine=Machine(platform="Linux", cpu="a CPU", cores=2),
    commit="1234567",
    clean=True,
    date="2026-11-29",
    command="python -m research study board",
)

PUBLISHED = Published(
    dataset="shop",
    cell="sasrec",
    figures={"hr@10": 0.12, "ndcg@10": 0.06},
    source="a log",
    difference="Other items.",
)
