"""The report's tables in markdown, used by the W&B form.

Names are written as code spans, so that none is read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from research.evaluation.statistics import Comparison
from research.report.formatting import (
    difference_of,
    interval_of,
    interval_of_any,
    p_of,
    range_of,
    seconds_of,
    seeds_of,
)
from research.report.schema import (
    CorpusPart,
    Effect,
    Factorial,
    ListsTable,
    ProtocolTable,
    Report,
    Row,
)


def figures_table(report: Report, table: ProtocolTable) -> str:
    """A markdown table of a protocol: each cell's metrics with intervals, and its comparison.

    The comparison is the compared metric's difference to the base, its interval, effect and p.
    """
    factors = map(code_span, report.factors)
    head = ["cell", *factors, "seeds", *(name.upper() for name in report.metrics)]
    compares = table.has_base and len(table.rows) > 1
    if compares:
        versus = f"{report.compared.upper()} vs {code_span(report.base)}"
        head += [versus, "95 % interval", "effect", "p"]
    rows = [
        [
            code_span(row.cell),
            *(code_span(row.levels.get(name, "")) for name in report.factors),
            str(len(row.seeds)),
            *(interval_of(row.figures[name].estimate) for name in report.metrics),
            *(compared_entries(row, report.compared) if compares else ()),
        ]
        for row in table.rows
    ]
    return markdown_table(head, rows, text_columns=1 + len(report.factors))


def effects_table(report: Report, factorial: Factorial) -> str:
    """A markdown table of main effects and interactions on the compared metric."""
    rows = [
        [code_span(effect.name), code_span(effect.contrast), *effect_entries(effect)]
        for effect in factorial.effects[report.compared]
    ]
    head = ["effect", "levels", report.compared.upper(), "95 % interval", "d_z", "p"]
    return markdown_table(head, rows, text_columns=2)


def effect_entries(effect: Effect) -> tuple[str, ...]:
    """An effect's size, interval, d_z and corrected p."""
    if effect.comparison is None:
        return "not estimable", "", "", ""
    return comparison_entries(effect.comparison, effect.corrected, effect.mark)


def lists_table(table: ListsTable) -> str:
    """A markdown table of recommended lists: each cell's metrics with intervals and daggers."""
    rows = [
        [
            code_span(row.cell),
            str(len(row.seeds)),
            *(
                interval_of_any(figure.estimate) + figure.mark
                for figure in (row.figures[name] for name in table.metrics)
            ),
        ]
        for row in table.rows
    ]
    head = ["cell", "seeds", *(name.upper() for name in table.metrics)]
    return markdown_table(head, rows, text_columns=1)


def compared_entries(row: Row, metric: str) -> tuple[str, ...]:
    """A row's difference to the base, its interval, effect and corrected p; empty for the base."""
    figure = row.figures[metric]
    if figure.comparison is None:
        return "", "", "", ""
    return comparison_entries(figure.comparison, figure.corrected, figure.mark)


def comparison_entries(
    comparison: Comparison, corrected: float | None, mark: str
) -> tuple[str, ...]:
    """A difference, its interval, d_z, and corrected p with its mark."""
    ends = range_of(comparison.low, comparison.high, signed=True)
    p = f"{p_of(corrected)} {mark}".strip().replace("<", "&lt;")
    return difference_of(comparison), ends, f"{comparison.effect:+.2f}", p


def changes_table(report: Report) -> str:
    """A markdown table of the fields that each cell changes."""
    rows = [
        [code_span(text) for text in (cell, change.field, change.before, change.after)]
        for cell in report.cells
        for change in report.changes.get(cell, ())
    ]
    rows += [[code_span(report.base), "the base", "", ""]]
    return markdown_table(["cell", "field", "in the base", "in the cell"], rows, text_columns=4)


def cost_table(corpus: CorpusPart) -> str:
    """A markdown table of seeds, time, tokens and parameters of each cell."""
    rows = [
        [
            code_span(cost.cell),
            seeds_of(cost),
            seconds_of(cost),
            "" if cost.items is None else f"{cost.items:,.0f}",
            "" if cost.parameters is None else f"{cost.parameters:,}",
            ", ".join(
                f"{code_span(origin.stage)} from {code_span(origin.cell)}" for origin in cost.shared
            ),
        ]
        for cost in corpus.costs
    ]
    head = ["cell", "seeds", "time (s)", "tokens", "parameters", "taken over"]
    return markdown_table(head, rows, text_columns=1)


def runs_table(report: Report, corpus: CorpusPart) -> str:
    """A markdown table of every run's folder, status, hash, error and compared metric."""
    rows = [
        [
            code_span(run.folder),
            run.status,
            code_span(run.hash),
            code_span(run.error or ""),
            "" if run.value is None else f"{run.value:.4f}",
        ]
        for run in corpus.runs
    ]
    head = ["run folder", "status", "hash", "error", f"{report.part} {report.compared.upper()}"]
    return markdown_table(head, rows, text_columns=4)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> str:
    """A markdown table; `head` and `rows` are markdown already.

    The first `text_columns` columns are aligned left, the others right.
    """
    alignments = [":--" if column < text_columns else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, alignments, *rows))


def code_span(text: str) -> str:
    """A name as a markdown code span, inside which only `|` and `` ` `` are markup.

    Those two are replaced by look-alikes, since renderers differ in how they are escaped there.
    """
    cleaned = re.sub(r"\s+", " ", text).strip().replace("|", "¦").replace("`", "ˋ")
    return f"`{cleaned}`" if cleaned else ""
