"""Tables and pictures made of result lines: a row a cell, beside the published figures.

`pages.py` sets them into README.md and the pages of the site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.results.lines import FOLDER, ResultLine
from research.config import record_from_json
from research.errors import InputError
from research.evaluation.protocol import differing_fields
from research.evaluation.variance_components import Spread
from research.report.formatting import short_decimal
from research.storage.json_files import read_json

METRICS = ("hr@10", "ndcg@10")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure of a cell, or why ours differs from it."""

    dataset: str
    """The data set, as lines have it."""
    cell: str
    """The cell, as lines have it."""
    figures: Mapping[str, float]
    """By metric, of `METRICS`; one may be missing."""
    source: str
    """Where they are from, and of how many seeds they are the mean."""
    difference: str = ""
    """Why ours differs by more than two standard errors, in a sentence; empty: it does not."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """published.json."""

    figures: tuple[Published, ...]
    """All published figures."""


@dataclass(frozen=True)
class Mean:
    """A metric over all seeds and users of a cell."""

    mean: float
    """Mean over seeds."""
    half: float
    """Half of its 95 % interval, over users and, with two seeds or more, over seeds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell of a data set."""

    cell: str
    """What was run."""
    seeds: tuple[int, ...]
    """The seeds of its lines."""
    means: dict[str, Mean]
    """By metric, those of `METRICS`."""
    seconds: float
    """Mean time of training and validation."""
    command: str
    """The command of its first line."""
    published: tuple[Published, ...]
    """What others report for it."""


def published(folder: Path = FOLDER) -> tuple[Published, ...]:
    """The published figures in published.json."""
    path = folder / "published.json"
    return record_from_json(read_json(path), PublishedFile, str(path)).figures


def mean_of(lines: Sequence[ResultLine], metric: str) -> Mean:
    """A metric over a cell's lines, one a seed.

    Lines hold no values of single users, so the part of the variance that is each user's reaction
    to a seed counts twice, among users and among seeds: the interval is a little too wide.
    """
    values = np.array([line.metrics[metric].mean for line in lines])
    users = float(np.mean([line.metrics[metric].standard_error ** 2 for line in lines]))
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    spread = Spread(users=users, between=between, within=0.0, seeds=len(values))
    return Mean(float(values.mean()), spread.critical(0.05))


def rows_of(lines: Iterable[ResultLine], figures: Sequence[Published]) -> list[Row]:
    """The rows of one data set, in the order in which its cells first appear.

    Raises `InputError` where lines are of different corpora or protocols, which do not compare, and
    where a cell's lines are of different studies.
    """
    cells: dict[str, list[ResultLine]] = {}
    for line in lines:
        of_cell = cells.setdefault(line.cell, [])
        if of_cell and of_cell[0].study != line.study:
            raise InputError(
                f"{line.dataset}: cell {line.cell} is in the studies {of_cell[0].study} and "
                f"{line.study}; keep the lines of one, or give the other's cell another name"
            )
        of_cell.append(line)
    protocols = {
        f"{line.study}/{line.cell}/{line.seed}": {**line.protocol, "fingerprint": line.fingerprint}
        for all_of_cell in cells.values()
        for line in all_of_cell
    }
    for name, values in differing_fields(protocols).items():
        told = "; ".join(f"{value} in {', '.join(runs)}" for value, runs in values.items())
        raise InputError(f"lines of one table differ in {name}: {told}")
    return [
        Row(
            cell=cell,
            seeds=tuple(line.seed for line in of_cell),
            means={metric: mean_of(of_cell, metric) for metric in METRICS},
            seconds=float(np.mean([line.seconds for line in of_cell])),
            command=of_cell[0].command,
            published=tuple(
                figure
                for figure in figures
                if (figure.dataset, figure.cell) == (of_cell[0].dataset, cell)
            ),
        )
        for cell, of_cell in cells.items()
    ]


def figure_text(mean: Mean) -> str:
    """`.0937 ±.0036`."""
    return f"{short_decimal(mean.mean)} ±{short_decimal(mean.half)}"


def published_text(row: Row) -> str:
    """`.0923 / .0568 (source)`, several after one another; empty: none is known.

    The figures are HR@10 and NDCG@10, or HR@10 alone.
    """
    return "; ".join(
        f"{' / '.join(map(short_decimal, figure.figures.values()))} ({figure.source})"
        for figure in row.published
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """`0 to 4`, or `0, 2`."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    heading = ["cell", "seeds", "HR@10", "NDCG@10", "published HR@10 / NDCG@10", "seconds"]
    lines = [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}"]
    for row in rows:
        values = [figure_text(row.means[metric]) for metric in METRICS]
        cells = [row.cell, seeds_text(row.seeds), *values, published_text(row)]
        lines.append(f"| {' | '.join([*cells, f'{row.seconds:,.0f}'])} |")
    reasons = [
        f"- {row.cell}: {figure.difference}"
        for row in rows
        for figure in row.published
        if figure.difference
    ]
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def picture(dataset: str, rows: Sequence[Row], metric: str = "ndcg@10") -> Figure:
    """The cells' means with their intervals, and published figures as open marks."""
    figure = Figure(figsize=(7, 1.1 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    means = [row.means[metric] for row in rows]
    axes.errorbar(
        [mean.mean for mean in means],
        places,
        xerr=[mean.half for mean in means],
        fmt="o",
        color="#00796b",
        capsize=3,
        label="ours, 95 % interval",
    )
    marks = [
        (figure.figures[metric], place)
        for row, place in zip(rows, places, strict=True)
        for figure in row.published
        if metric in figure.figures
    ]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", mfc="none", color="#b71c1c", label="published")
    axes.set_yticks(places, [row.cell for row in rows])
    axes.set_xlabel(f"{metric.upper()} on {dataset}, test")
    axes.grid(axis="x", alpha=0.3)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
