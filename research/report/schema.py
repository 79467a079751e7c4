"""The one model of a report: terminal, HTML, CSV, LaTeX and W&B say what stands here.

`build.report_of` makes it from a study's folder. Everything is frozen and final; names are those
of the study with characters that no page or terminal can bear replaced (`foreign.plain`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from research.evaluation.statistics import Comparison, Estimate
from research.evaluation.ties import TiePolicy

# A difference is marked when its corrected p is below this.
LEVEL = 0.05
DAGGER = "†"
Status = Literal["finished", "failed", "unfinished", "missing"]


@dataclass(frozen=True)
class Change:
    """One field of a cell that is not as in the base cell."""

    field: str
    """Its dotted name."""
    before: str
    """The base's value, as short text."""
    after: str
    """The cell's value, as short text."""


@dataclass(frozen=True)
class Figure:
    """A metric of a cell, over users and seeds."""

    estimate: Estimate
    comparison: Comparison | None
    """To the base cell; None: the base itself, or nothing to compare with."""
    corrected: float | None
    """Holm's p over the cells of the table, each metric a family of its own."""
    place: int
    """1: the best mean of the table's column; equal means share a place."""

    @property
    def significant(self) -> bool:
        """Whether the difference to the base is marked: p below the level, no 0 in the interval."""
        if self.comparison is None or self.corrected is None:
            return False
        return self.comparison.significant(self.corrected, LEVEL)

    @property
    def mark(self) -> str:
        """A dagger, or nothing."""
        return DAGGER if self.significant else ""


@dataclass(frozen=True)
class Row:
    """A cell in a table."""

    cell: str
    seeds: tuple[int, ...]
    """Seeds whose rank tables make up the figures."""
    figures: Mapping[str, Figure]
    """By metric."""


@dataclass(frozen=True)
class Bucket:
    """Held-out items of one kind, such as cold ones."""

    label: str
    questions: int
    """Held-out items in it."""
    users: int
    """Users who have one."""
    estimates: Mapping[str, Estimate]
    """The compared metric by cell."""


@dataclass(frozen=True)
class Slicing:
    """The compared metric on parts of a table's held-out items."""

    by: str
    """What the parts differ in."""
    buckets: tuple[Bucket, ...]
    """Those with two users or more."""
    left_out: int
    """Held-out items in buckets of a single user, which give no interval."""


@dataclass(frozen=True)
class ProtocolTable:
    """Rows that were evaluated under one protocol, and so can be compared."""

    candidates: str
    """full, uniform-N, popularity-N, file-N."""
    title: str
    """What was ranked, and what becomes of ties, in words."""
    protocol: Mapping[str, object]
    """As the rank tables carry it."""
    users: int
    """Users evaluated."""
    rows: tuple[Row, ...]
    """In the study's order of cells."""
    has_base: bool
    """Whether the base is among the rows; without it nothing is compared."""
    slicings: tuple[Slicing, ...]
    """By popularity and by history length."""
    notes: tuple[str, ...]
    """What the table cannot say, and why."""

    def figures(self, metric: str) -> dict[str, Figure]:
        """A column, by cell."""
        return {row.cell: row.figures[metric] for row in self.rows}


@dataclass(frozen=True)
class Curve:
    """A logged quantity of one cell over optimizer steps: mean and band over seeds."""

    cell: str
    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    """The lowest seed."""
    high: tuple[float, ...]
    """The highest seed."""
    seeds: int


@dataclass(frozen=True)
class Panel:
    """Curves of one quantity in one stage."""

    stage: str
    """Empty: the last stage of each cell."""
    quantity: str
    """`loss/OBJECTIVE` or `val/METRIC`."""
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Cosines:
    """Mean cosines between the gradients of a stage's objectives on the shared encoder."""

    cell: str
    stage: str
    objectives: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    """[objectives, objectives]; the diagonal is 1; None where no pair was measured."""
    measurements: int
    """Measured steps over all seeds."""


@dataclass(frozen=True)
class Cost:
    """What a cell took, as means over its finished runs."""

    cell: str
    done: tuple[int, ...]
    failed: tuple[int, ...]
    unfinished: tuple[int, ...]
    missing: tuple[int, ...]
    seconds: float | None
    """Training time, stages taken over from another run included; None: none has finished."""
    shared_seconds: float
    """The part of it that another run spent."""
    items: float | None
    """Tokens trained on."""
    parameters: int | None
    shared: tuple[str, ...]
    """`STAGE from CELL`: stages that were taken over."""


@dataclass(frozen=True)
class RunLine:
    """One run of the study, finished or not."""

    cell: str
    seed: int
    status: Status
    folder: str
    """From the folder of all runs on."""
    hash: str
    """Of its configuration and corpus; empty when the run never began."""
    value: float | None
    """The compared metric under full ranking."""
    error: str | None
    """The first line of what a failed run said."""


@dataclass(frozen=True)
class CorpusPart:
    """All of a report that concerns one corpus."""

    name: str
    tables: tuple[ProtocolTable, ...]
    """Full ranking first, and of two protocols that of the base first."""
    panels: tuple[Panel, ...]
    cosines: tuple[Cosines, ...]
    costs: tuple[Cost, ...]
    runs: tuple[RunLine, ...]
    notes: tuple[str, ...]
    """Which protocols differ, what failed, what is missing."""

    @property
    def curve_cells(self) -> tuple[str, ...]:
        """Cells that have learning curves."""
        return tuple(dict.fromkeys(each.cell for panel in self.panels for each in panel.curves))


@dataclass(frozen=True)
class Report:
    """A study's question and its answer."""

    name: str
    question: str
    base: str
    cells: tuple[str, ...]
    changes: Mapping[str, tuple[Change, ...]]
    """By cell, what differs from the base."""
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    compared: str
    """The metric that answers the question; the others describe."""
    ties: TiePolicy
    """What every figure is where candidates tie."""
    budget: str | None
    """What the cells were given alike; None: each ran as configured."""
    command: str
    """What runs the study, or what is left of it."""
    folder: str
    """The study's folder as it was given."""
    corpora: tuple[CorpusPart, ...]
    notes: tuple[str, ...]
    """What the report as a whole cannot say."""
