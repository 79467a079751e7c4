"""Tables made of result lines: one a data set and study, a row a cell.

Studies may have cells of equal names, and protocols and corpora of their own, so that the lines of
two never stand in one table. `pages.py` sets the tables into the pages of the site and README.md,
and `leaderboard_page.py` makes a page of them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.results.comparisons import Compared, Comparisons
from experiments.results.lines import FOLDER, ResultLine
from research.config import record_from_json
from research.errors import InputError
from research.evaluation.protocol import differing_fields
from research.evaluation.variance_components import Spread
from research.report.formatting import short_decimal, short_p_of, with_interval
from research.report.schema import DAGGER
from research.storage.json_files import read_json
from research.storage.untrusted import printable

# What tables on pages of text show; the leaderboard's page has every metric of the lines.
METRICS = ("hr@10", "ndcg@10")
# What stands below tables with differences.
SIGNS = (
    "Differences are paired by user and by the seeds that both cells have; p: two-sided, after "
    "Holm over all cells of the study that are compared with the same one (intervals are not "
    f"corrected); {DAGGER}: p below .05 and an interval without 0."
)
EFFECT_SIGNS = (
    "Effects are paired by user and seed; p: two-sided, after Holm over the effects (intervals are "
    f"not corrected); {DAGGER}: p below .05 and an interval without 0."
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure of a cell, or why ours differs from it."""

    dataset: str
    """The data set, as lines have it."""
    cell: str
    """The cell, as lines have it."""
    figures: Mapping[str, float]
    """By metric, as lines have them; one may be missing."""
    source: str
    """Where they are from, and of how many seeds they are the mean."""
    study: str | None = None
    """The study whose cell they are of; None: the cell of any study."""
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
    standard_error: float
    """Its standard error, of the same variances."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell of a table."""

    cell: str
    """What was run."""
    lines: tuple[ResultLine, ...]
    """Its lines, one a seed, at least one."""
    means: Mapping[str, Mean]
    """By metric, those of the lines."""
    published: tuple[Published, ...]
    """What others report for it."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its lines."""
        return tuple(line.seed for line in self.lines)

    @property
    def validation(self) -> dict[str, float]:
        """By metric that all lines have of the validation part, the mean over seeds."""
        first, *others = (line.validation for line in self.lines)
        shared = [name for name in first if all(name in other for other in others)]
        return {
            name: float(np.mean([line.validation[name] for line in self.lines])) for name in shared
        }

    @property
    def seconds(self) -> float:
        """Mean time of training and validation."""
        return float(np.mean([line.seconds for line in self.lines]))


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cells of a study on a data set."""

    dataset: str
    """The data set, as lines have it."""
    study: str
    """The study, as lines have it."""
    rows: tuple[Row, ...]
    """A row a cell, the highest NDCG@10 first, equal ones as they first appear; at least one."""
    comparisons: Comparisons | None = None
    """How its cells compare; None: that is not kept."""


def published(folder: Path = FOLDER) -> tuple[Published, ...]:
    """The published figures in published.json."""
    path = folder / "published.json"
    return record_from_json(read_json(path), PublishedFile, str(path)).figures


def mean_of(lines: Sequence[ResultLine], metric: str) -> Mean:
    """A metric over a cell's lines, one a seed.

    Users' own reactions to a seed are in the standard error of a line in full, and the mean of S
    seeds has a share of 1/S of them; they are also a part of the variance between seeds. Where
    they are not known, as of lines that were collected one by one, they stay in both, and the
    interval is wider: by 9 and 15 % for HR@10 of three seeds on Beauty and Sports, cut in time.
    """
    kept, seeds = [line.metrics[metric] for line in lines], len(lines)
    values = np.array([value.mean for value in kept])
    users = float(np.mean([value.standard_error**2 for value in kept]))
    between = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    known = [value.reaction for value in kept if value.reaction is not None]
    within = float(np.mean(known)) / seeds if len(known) == seeds else 0.0
    users -= (seeds - 1) * within
    spread = Spread(users=users, between=between, within=within, seeds=seeds)
    error = (users + max(0.0, between - within)) ** 0.5
    return Mean(float(values.mean()), spread.critical(0.05), error)


def tables_of(
    lines: Iterable[ResultLine],
    figures: Sequence[Published],
    comparisons: Mapping[tuple[str, str], Comparisons] | None = None,
) -> list[Table]:
    """A table for each data set and study, in the order in which they first appear.

    `comparisons` are by data set and study. Raises `InputError` for those of which there is no
    line, and for what does not belong together; see `table_of`.
    """
    comparisons = comparisons or {}
    groups: dict[tuple[str, str], list[ResultLine]] = {}
    for line in lines:
        groups.setdefault((line.dataset, line.study), []).append(line)
    for dataset, study in comparisons.keys() - groups.keys():
        raise InputError(f"comparisons of {study} on {dataset} are kept, but no line of it is")
    return [table_of(group, figures, comparisons.get(key)) for key, group in groups.items()]


def table_of(
    lines: Sequence[ResultLine],
    figures: Sequence[Published],
    comparisons: Comparisons | None = None,
) -> Table:
    """The table of the lines of one study on one data set.

    Raises `InputError` where lines are of different corpora or protocols, which do not compare,
    where a cell's lines have different metrics, and where comparisons were made of other runs.
    """
    dataset, study = lines[0].dataset, lines[0].study
    cells: dict[str, list[ResultLine]] = {}
    for line in lines:
        cells.setdefault(line.cell, []).append(line)
    protocols = {f"{line.cell}/{line.seed}": protocol_of(line) for line in lines}
    for name, values in differing_fields(protocols).items():
        told = "; ".join(f"{value} in {', '.join(runs)}" for value, runs in values.items())
        raise InputError(f"lines of {study} on {dataset} differ in {name}: {told}")
    for cell, of_cell in cells.items():
        if len({frozenset(line.metrics) for line in of_cell}) > 1:
            raise InputError(
                f"lines of {study} on {dataset}: the seeds of cell {cell} have different metrics; "
                "run and collect all of them with the same `evaluation.metrics`"
            )
    rows = [
        Row(
            cell=cell,
            lines=tuple(of_cell),
            means={metric: mean_of(of_cell, metric) for metric in of_cell[0].metrics},
            published=tuple(
                figure
                for figure in figures
                if (figure.dataset, figure.cell) == (dataset, cell)
                and figure.study in (None, study)
            ),
        )
        for cell, of_cell in cells.items()
    ]
    if comparisons is not None:
        check_comparisons(comparisons, lines)
    ordered = tuple(sorted(rows, key=_from_the_best))
    return Table(dataset=dataset, study=study, rows=ordered, comparisons=comparisons)


def check_comparisons(comparisons: Comparisons, lines: Sequence[ResultLine]) -> None:
    """Raises `InputError` where comparisons are made of other runs than their study's lines."""
    of_lines = {
        f"{printable(line.cell)}/{line.seed}": line.metrics[comparisons.metric].mean
        for line in lines
        if comparisons.metric in line.metrics
    }
    for run in [*comparisons.values, *of_lines]:
        values = [values.get(run, math.nan) for values in (comparisons.values, of_lines)]
        if not math.isclose(*values, abs_tol=1e-9):
            raise InputError(
                f"{comparisons.study} on {comparisons.dataset}: the kept comparisons and the lines "
                f"are of different runs: {comparisons.metric} of {run} is {values[0]:.6f} in the "
                f"former and {values[1]:.6f} in the latter (nan: not there); collect the study's "
                "folder again, `python -m experiments.results.collect runs/STUDY`"
            )


def chosen(table: Table, cells: Sequence[str]) -> Table:
    """The rows of these cells, in the table's order; `InputError` for a cell that it lacks."""
    known = [row.cell for row in table.rows]
    for cell in cells:
        if cell not in known:
            raise InputError(
                f"{table.study} on {table.dataset} has no cell {cell!r}; it has {', '.join(known)}"
            )
    return replace(table, rows=tuple(row for row in table.rows if row.cell in cells))


def unexplained(table: Table) -> list[str]:
    """Published figures from which ours differ by more than two of our standard errors, and of
    which no `difference` says why, as `sasrec ndcg@10: .0500, published .0600`.

    A published metric that our lines lack is not compared.
    """
    return [
        f"{row.cell} {metric}: {short_decimal(mean.mean)}, published {short_decimal(value)}"
        for row in table.rows
        for figure in row.published
        if not figure.difference
        for metric, value in figure.figures.items()
        for mean in (row.means.get(metric),)
        if mean is not None and abs(mean.mean - value) > 2 * mean.standard_error
    ]


def _from_the_best(row: Row) -> float:
    """By what rows are sorted: NDCG@10 from the highest on; rows without it stand last."""
    return -row.means["ndcg@10"].mean if "ndcg@10" in row.means else 0.0


def protocol_of(line: ResultLine) -> dict[str, object]:
    """All that lines of one table have in common."""
    return {**line.protocol, "ties": line.ties, "fingerprint": line.fingerprint}


def figure_text(mean: Mean) -> str:
    """`.0937 ±.0036`."""
    return f"{short_decimal(mean.mean)} ±{short_decimal(mean.half)}"


def published_text(row: Row) -> str:
    """`.0923 / .0568 (source)`, several after one another; empty: none is known.

    The figures are those of `METRICS`, with a dash for one that is not known; where neither is,
    others by name: `HR@20 .0974, NDCG@20 .0428 (source)`.
    """
    texts = []
    for figure in row.published:
        known = figure.figures
        if any(metric in known for metric in METRICS):
            told = " / ".join(
                short_decimal(known[metric]) if metric in known else "–" for metric in METRICS
            )
        else:
            told = ", ".join(
                f"{metric.upper()} {short_decimal(value)}" for metric, value in known.items()
            )
        texts.append(f"{told} ({figure.source})")
    return "; ".join(texts)


def seeds_text(seeds: Sequence[int]) -> str:
    """`seeds 0 to 4`, `seeds 0, 2`, or `seed 0`: a number alone reads like how many there are."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def markdown(table: Table, against: str | None = None) -> str:
    """The table in Markdown, and why figures differ from published ones.

    There are `METRICS` of the test and, before the time, NDCG@10 of the validation part. A cell
    without one of these has a blank there; without any published figure there is no column of them.
    With `against`, a cell of the study, there are the difference to it and p too; `InputError`
    where no comparison with it is kept.
    """
    heading = ["cell", "seeds", "HR@10", "NDCG@10"]
    comparisons = None if against is None else comparisons_with(table, against)
    if comparisons is not None:
        heading += [f"{comparisons.metric.upper()} vs {against}", "p"]
    is_published = any(row.published for row in table.rows)
    if is_published:
        heading.append("published HR@10 / NDCG@10")
    rows = []
    for row in table.rows:
        cells = [row.cell, seeds_text(row.seeds)]
        cells += [
            figure_text(row.means[metric]) if metric in row.means else "" for metric in METRICS
        ]
        if comparisons is not None and against is not None:
            cells += difference_texts(comparisons.of_cell(row.cell).get(against))
        if is_published:
            cells.append(published_text(row))
        validation = row.validation.get("ndcg@10")
        cells.append("" if validation is None else short_decimal(validation))
        rows.append([*cells, f"{row.seconds:,.0f}"])
    reasons = [
        f"- {row.cell}: {figure.difference}"
        for row in table.rows
        for figure in row.published
        if figure.difference
    ]
    below = [] if comparisons is None else ["", SIGNS]
    if reasons:
        # One reason may stand at several published figures of a cell.
        below += ["", *dict.fromkeys(reasons)]
    heading += ["validation NDCG@10", "seconds"]
    return "\n".join([*markdown_lines(heading, rows), *below]) + "\n"


def effects_markdown(table: Table) -> str:
    """The effects of a study's factors in Markdown; `InputError` where none is kept."""
    comparisons = table.comparisons
    if comparisons is None or not comparisons.effects:
        raise InputError(
            f"no effect of a factor is kept of {table.study} on {table.dataset}; once the study "
            "has finished, `python -m experiments.results.collect runs/STUDY` keeps them"
        )
    rows = [[effect.name, *difference_texts(effect)] for effect in comparisons.effects]
    lines = markdown_lines(["effect", comparisons.metric.upper(), "p"], rows)
    return "\n".join([*lines, "", EFFECT_SIGNS]) + "\n"


def comparisons_with(table: Table, base: str) -> Comparisons:
    """The table's comparisons, which have those with this base; `InputError` if they do not."""
    comparisons = table.comparisons
    if comparisons is None or base not in comparisons.against:
        kept = [] if comparisons is None else list(comparisons.against)
        raise InputError(
            f"no comparison with {base!r} is kept of {table.study} on {table.dataset}"
            f"{' (kept: with ' + ', '.join(kept) + ')' if kept else ''}; "
            "`python -m experiments.results.collect runs/STUDY --against CELL` keeps one"
        )
    return comparisons


def difference_texts(compared: Compared | None) -> tuple[str, str]:
    """`+.0174 ±.0109` and `.033†`, with a dagger where it is significant; None: two blanks."""
    if compared is None:
        return "", ""
    size = with_interval(
        short_decimal(compared.difference, signed=True),
        compared.difference,
        compared.low,
        compared.high,
        signed=True,
    )
    return size, f"{short_p_of(compared.p)}{DAGGER if compared.significant else ''}"


def markdown_lines(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (heading, *rows)]
    first, *others = (f"| {' | '.join(row)} |" for row in escaped)
    return [first, f"|{'---|' * len(heading)}", *others]
