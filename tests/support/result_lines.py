"""Lines of results, a published figure, and comparisons, as small as they can be."""

from __future__ import annotations

from dataclasses import replace

from experiments.results.comparisons import Compared, Comparisons
from experiments.results.lines import ResultLine, Value
from experiments.results.tables import Published, Table, table_of
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

# Lines of the three cells that `COMPARISONS` are of.
COMPARED_LINES = [
    LINE,
    replace(LINE, cell="ease", tokens=None),
    replace(
        LINE,
        cell="better",
        metrics={**LINE.metrics, "ndcg@10": Value(mean=0.07, standard_error=0.005)},
    ),
]


def compared_to(name: str, difference: float, p: float) -> Compared:
    """A comparison with an interval of .01 to either side."""
    low, high = difference - 0.01, difference + 0.01
    return Compared(name=name, difference=difference, low=low, high=high, p=p)


COMPARISONS = Comparisons(
    dataset="shop",
    study="board",
    metric="ndcg@10",
    values={"sasrec/0": 0.05, "ease/0": 0.05, "better/0": 0.07},
    against={
        "sasrec": (compared_to("ease", 0.0, 1.0), compared_to("better", 0.02, 0.0123)),
        "better": (compared_to("sasrec", -0.02, 0.0123),),
    },
    effects=(compared_to("users (.5 vs 1)", -0.03, 0.0004),),
)


def compared_table(comparisons: Comparisons = COMPARISONS) -> Table:
    """The table of the lines above with comparisons."""
    return table_of(COMPARED_LINES, [], comparisons)
