"""The data model of a report; the terminal, HTML, CSV, LaTeX and W&B forms are written from it.

`build.report_of` makes a `Report` from a study's folder. All classes are frozen. Names are those of
the study, with control characters replaced (`untrusted.printable`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from research.evaluation.equivalence import MarginTest
from research.evaluation.statistics import Comparison, Estimate
from research.evaluation.ties import TiePolicy
from research.report.tuning import TuningPart

# A difference is significant, and gets a dagger, when its corrected p is below this.
LEVEL = 0.05
DAGGER = "†"
Status = Literal["finished", "failed", "unfinished", "missing"]
Part = Literal["test", "validation"]
Axis = Literal["steps", "tokens", "seconds"]


@dataclass(frozen=True)
class Change:
    """One config field in which a cell differs from the base cell."""

    field: str
    """Its dotted name."""
    before: str
    """The base's value, as short text."""
    after: str
    """The cell's value, as short text."""


@dataclass(frozen=True)
class Figure:
    """One metric of one cell (a named config of a study), and its comparison to the base cell.

    The value is a mean over evaluated users and over the seeds of the cell that have a rank table.
    """

    estimate: Estimate
    comparison: Comparison | None
    """The comparison to the base cell; None: this is the base, or shares no seed with it."""
    corrected: float | None
    """p after Holm's correction over the cells of the table, for each metric apart; None: no
    comparison."""
    place: int | None
    """1 for the best cell of the table by this metric on validation, 2 for the next; equal means
    share a place. None: the cell, or every other one, has no validation."""
    validation: float | None = None
    """The metric on validation, under full ranking: its mean over users and the seeds of the row
    that have a validation; None: none has."""
    by_seed: Mapping[int, float] = field(default_factory=dict)
    """The mean over users, by seed."""
    margin_test: MarginTest | None = None
    """Whether the cell is no worse than the base by more than the report's margin, after Holm's
    correction over the cells of the table; None: there is no margin or no comparison, or this is
    not the compared metric."""

    @property
    def significant(self) -> bool:
        """Whether the cell differs from the base: corrected p below `LEVEL`, interval without 0.

        False where there is no comparison.
        """
        if self.comparison is None or self.corrected is None:
            return False
        return self.comparison.significant(self.corrected, LEVEL)

    @property
    def mark(self) -> str:
        """A dagger where the difference is significant, else an empty string."""
        return DAGGER if self.significant else ""


@dataclass(frozen=True)
class Row:
    """A cell in a table."""

    cell: str
    seeds: tuple[int, ...]
    """Seeds whose rank tables make up the figures."""
    figures: Mapping[str, Figure]
    """By metric."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Its level of every factor of the study, by factor; empty: it stands beside the crossed cells.
    """


@dataclass(frozen=True)
class Bucket:
    """The held-out items of one range, such as those with 5 to 19 training interactions."""

    label: str
    questions: int
    """Number of held-out items in the range."""
    users: int
    """Number of users who have such an item."""
    estimates: Mapping[str, Estimate]
    """By cell, the compared metric on these items."""


@dataclass(frozen=True)
class Gap:
    """The compared metric of one cell on validation and on test, under the same ranking."""

    cell: str
    validation: Estimate
    test: Estimate

    @property
    def difference(self) -> float:
        """The mean on test minus the mean on validation."""
        return self.test.mean - self.validation.mean


@dataclass(frozen=True)
class Slicing:
    """The compared metric on parts (buckets) of a table's held-out items."""

    by: str
    """The quantity by which the items are divided, in words."""
    buckets: tuple[Bucket, ...]
    """The buckets that have at least two users, in ascending order."""
    left_out: int
    """Number of held-out items in buckets of a single user, which give no interval."""


@dataclass(frozen=True)
class Effect:
    """A main effect of a factor or the interaction of two, in one metric of one table."""

    factors: tuple[str, ...]
    """One factor (a main effect), or two (an interaction)."""
    levels: tuple[str, ...]
    """A level of each of them."""
    references: tuple[str, ...]
    """The level of each of them that the former is compared with."""
    comparison: Comparison | None
    """The size of the effect, its interval and test; None: it cannot be estimated."""
    corrected: float | None
    """p after Holm's correction over the table's effects, for each metric apart; None: it cannot be
    estimated."""
    obstacle: str
    """Why it cannot be estimated; empty: it can."""

    @property
    def name(self) -> str:
        """`FACTOR`, or `FACTOR × FACTOR`."""
        return " × ".join(self.factors)

    @property
    def contrast(self) -> str:
        """The levels that are compared: `yes vs no`, or `yes vs no, 2 vs 1`."""
        pairs = zip(self.levels, self.references)
        return ", ".join(f"{level} vs {reference}" for level, reference in pairs)

    @property
    def significant(self) -> bool:
        """Whether there is an effect: corrected p below `LEVEL`, interval without 0."""
        if self.comparison is None or self.corrected is None:
            return False
        return self.comparison.significant(self.corrected, LEVEL)

    @property
    def mark(self) -> str:
        """A dagger where the effect is significant, else an empty string."""
        return DAGGER if self.significant else ""


@dataclass(frozen=True)
class Interaction:
    """The compared metric by the levels of two factors, a mean over all levels of the others."""

    along: str
    """The factor whose levels stand side by side."""
    lines: str
    """The factor that has a line for each level."""
    estimates: Mapping[str, Mapping[str, Estimate | None]]
    """By level of `lines`, then by level of `along`; None: a combination of levels is missing."""


@dataclass(frozen=True)
class Factorial:
    """What the cells of a table that cross factors say of each factor, and of each two."""

    effects: Mapping[str, tuple[Effect, ...]]
    """By metric, main effects first."""
    interactions: tuple[Interaction, ...]
    """One for each two factors; empty in a report without figures."""
    notes: tuple[str, ...]
    """Which effects cannot be estimated, and why."""


@dataclass(frozen=True)
class ProtocolTable:
    """The cells that were evaluated under one protocol, and so can be compared."""

    candidates: str
    """The candidate set: full, uniform-N, popularity-N, file-N or cold."""
    title: str
    """What was ranked and how ties count, in words."""
    protocol: Mapping[str, object]
    """The protocol of the rank tables, with the figures' policy for ties."""
    users: int
    """Number of users evaluated."""
    rows: tuple[Row, ...]
    """One for each cell, in the study's order."""
    has_base: bool
    """Whether the base is among the rows; without it nothing is compared."""
    slicings: tuple[Slicing, ...]
    """By popularity, history length, time, attribute; empty except under full ranking."""
    notes: tuple[str, ...]
    """What the table cannot show, and why."""
    gaps: tuple[Gap, ...] = ()
    """Validation against test, by cell; empty in a report on validation, under other candidates
    than all items, and where no run has a validation."""
    factorial: Factorial | None = None
    """The effects of the factors that its cells cross; None: they cross none."""

    def figures(self, metric: str) -> dict[str, Figure]:
        """A metric's column of the table, by cell."""
        return {row.cell: row.figures[metric] for row in self.rows}


@dataclass(frozen=True)
class ListsTable:
    """Metrics of the lists that the cells recommend, under one protocol.

    They say what is recommended, not whether it is right, so no value of them is the best.
    """

    title: str
    """How the lists were made, in words."""
    protocol: Mapping[str, object]
    """The protocol of the list tables."""
    users: int
    """Number of users, each of whom has a list."""
    metrics: tuple[str, ...]
    """The metrics, a column each."""
    rows: tuple[Row, ...]
    """One for each cell, in the study's order."""
    has_base: bool
    """Whether the base is among the rows; without it nothing is compared."""
    notes: tuple[str, ...]
    """What the table cannot show, and why."""


@dataclass(frozen=True)
class Curve:
    """A logged quantity of one cell over a stage: its mean and range over seeds."""

    cell: str
    progress: tuple[float, ...]
    """The points on the axis of the panel, ascending."""
    mean: tuple[float, ...]
    low: tuple[float, ...]
    """At each point the lowest value of any seed."""
    high: tuple[float, ...]
    """At each point the highest value of any seed."""
    seeds: int
    """Number of seeds."""


@dataclass(frozen=True)
class Panel:
    """The curves of one quantity over a stage, one for each cell, on one axis."""

    stages: tuple[str, ...]
    """Names of the stages that are drawn: one, or those of the cells' last stages."""
    quantity: str
    """`val/METRIC`, `loss/OBJECTIVE`, `accuracy/OBJECTIVE` or `lr` (the learning rate)."""
    curves: tuple[Curve, ...]
    axis: Axis = "steps"
    """Optimizer steps, tokens trained on, or seconds of training, since the stage began."""


@dataclass(frozen=True)
class Cosines:
    """Mean cosines between the gradients of a stage's objectives on the shared encoder."""

    cell: str
    stage: str
    objectives: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    """[objectives, objectives]; the diagonal is 1; None where a pair was never measured."""
    measurements: int
    """Number of steps at which gradients were measured, over all seeds."""


@dataclass(frozen=True)
class SharedStage:
    """A stage that a cell's runs did not train, as another run of the study had trained it."""

    stage: str
    cell: str
    """The cell whose run trained it."""


@dataclass(frozen=True)
class Cost:
    """What the runs of one cell (a named config of a study) cost, and which seeds have finished.

    `seconds`, `shared_seconds`, `items` and `parameters` are means over the finished runs.
    """

    cell: str
    done: tuple[int, ...]
    """Seeds that have finished."""
    failed: tuple[int, ...]
    """Seeds that failed."""
    unfinished: tuple[int, ...]
    """Seeds that have begun and not finished."""
    missing: tuple[int, ...]
    """Seeds that have not begun, or whose folder holds another run."""
    seconds: float | None
    """Training time, including stages taken over from another run; None: no run has finished."""
    shared_seconds: float
    """The part of `seconds` that other runs spent on stages taken over from them."""
    items: float | None
    """Tokens trained on, 0 for a counting ranker; None: no run has finished."""
    parameters: int | None
    """Number of trained parameters; None: no run has finished."""
    shared: tuple[SharedStage, ...]
    """The stages that were taken over from other runs."""


@dataclass(frozen=True)
class RunLine:
    """One run of the study, finished or not."""

    cell: str
    seed: int
    status: Status
    folder: str
    """The run's folder, relative to the folder of all runs."""
    hash: str
    """The run hash, of all that decides the result; empty when the run never began."""
    value: float | None
    """The compared metric on the part of the report, under full ranking; None: it has not finished,
    or has no such part."""
    error: str | None
    """The first line of a failed run's error; None: it has not failed."""


@dataclass(frozen=True)
class Fact:
    """One thing that is known of how runs came about, such as the commit of their code."""

    name: str
    values: tuple[str, ...]
    """One text if it is the same for all runs; otherwise each says how many runs it is true of."""


@dataclass(frozen=True)
class CorpusPart:
    """The part of a report about one corpus."""

    name: str
    tables: tuple[ProtocolTable, ...]
    """One for each protocol: those of full ranking first, and among equals those with the base."""
    panels: tuple[Panel, ...]
    cosines: tuple[Cosines, ...]
    costs: tuple[Cost, ...]
    runs: tuple[RunLine, ...]
    notes: tuple[str, ...]
    """Which protocols differ, what failed, what is missing."""
    facts: tuple[Fact, ...] = ()
    """How the runs came about: corpus, code, machine, command."""
    lists: tuple[ListsTable, ...] = ()
    """One for each protocol of recommended lists; empty: no run has stored lists."""

    @property
    def all_tables(self) -> tuple[ProtocolTable | ListsTable, ...]:
        """The tables of ranks, then those of recommended lists."""
        return *self.tables, *self.lists

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
    """By cell, its differences from the base."""
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    compared: str
    """The metric that answers the question; the other metrics only describe."""
    ties: TiePolicy
    """How tied candidates count, in every figure of the report."""
    budget: str | None
    """The budget that every run had; None: each ran as its config says."""
    command: str
    """The command that runs the study, or continues it; empty: not known."""
    folder: str
    """The study's folder as it was given, with the home folder replaced."""
    corpora: tuple[CorpusPart, ...]
    notes: tuple[str, ...]
    """What the report as a whole cannot show."""
    part: Part = "test"
    """The held-out items that the figures are about."""
    margin: float | None = None
    """A difference of the compared metric that does not matter, above 0; None: none was given."""
    factors: tuple[str, ...] = ()
    """The factors that the cells cross."""
    tuning: TuningPart | None = None
    """How the cells were tuned; None: they were not."""
