"""The report in a terminal: for each corpus a table of figures by protocol, and one of costs."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from research.report.formatting import (
    difference_of,
    interval_of,
    legend_of,
    p_of,
    seconds_of,
    seeds_of,
    shortened_name,
    smallest_of,
)
from research.report.schema import DAGGER, CorpusPart, ProtocolTable, Report, Row
from research.report.tuning import TuningPart, budget_words, importance_words, value_words


def print_report(report: Report, console: Console) -> None:
    """Print a report; the console must not read markup in text (`research.console.wide_console`).

    A table of four cells and three metrics fits into 80 columns.
    """
    console.print(report.question)
    if report.budget is not None:
        console.print(f"equal budget: {report.budget}")
    for corpus in report.corpora:
        for table in corpus.tables:
            console.print()
            console.print(f"{corpus.name}, {table.title}, {table.users:,} users")
            console.print(figures_table(report, table))
            print_all(console, table.notes)
            if smallest := smallest_of(table, report.compared):
                console.print(smallest)
        console.print()
        if corpus.tables:
            console.print(f"{corpus.name}, cost of a run (mean over finished seeds)")
            console.print(cost_table(corpus))
        print_all(console, corpus.notes)
        for run in corpus.runs:
            if run.error is not None:
                console.print(f"{run.cell}/{run.seed} failed: {run.error}")
        console.print(f"run folders: {report.folder}/{corpus.name}/CELL/SEED")
    if report.tuning is not None:
        print_tuning(report.tuning, console)
    console.print()
    print_all(console, (*legend_of(report), *report.notes))


def print_tuning(tuning: TuningPart, console: Console) -> None:
    """Print how many trials each cell had, what the best drew, and what mattered."""
    console.print()
    console.print(tuning.sentence)
    for corpus in tuning.corpora:
        output = plain_table()
        output.add_column("cell", no_wrap=True)
        names = ("trials", "pruned", "failed", "to do", f"best {tuning.metric.upper()}", "of trial")
        for name in names:
            output.add_column(name, justify="right", no_wrap=True)
        for row in corpus.rows:
            output.add_row(
                shortened_name(row.cell),
                str(row.complete + row.pruned + row.failed),
                *map(str, (row.pruned, row.failed, row.left)),
                "" if row.best is None else f"{row.best:.4f}",
                "" if row.winner is None else str(row.winner),
            )
        console.print(f"{corpus.name}, trials by {tuning.metric.upper()} on the validation part")
        console.print(output)
        for row in corpus.rows:
            if row.best is not None:
                console.print(f"{row.cell}: {value_words(row)}")
                console.print(f"  best value: {budget_words(row, tuning.trials)}")
            if row.importances:
                console.print(f"  importance: {importance_words(row)}")
            for error in row.errors:
                console.print(f"  failed: {error}")
    console.print(tuning.importance_note)


def print_all(console: Console, lines: tuple[str, ...]) -> None:
    """Print each text on a line of its own."""
    for line in lines:
        console.print(line)


def figures_table(report: Report, table: ProtocolTable) -> Table:
    """A table of a protocol: each cell's metrics with intervals, and its difference to the base."""
    output = plain_table()
    output.add_column("cell", no_wrap=True)
    for name in report.metrics:
        output.add_column(name.upper(), justify="right", no_wrap=True)
    compares = table.has_base and len(table.rows) > 1
    if compares:
        versus = f"{report.compared.upper()} vs\n{shortened_name(report.base)}"
        output.add_column(versus, justify="right", no_wrap=True)
        output.add_column("p", justify="right", no_wrap=True)
    for row in table.rows:
        figures = [interval_of(row.figures[name].estimate) for name in report.metrics]
        output.add_row(
            shortened_name(row.cell),
            *figures,
            *compared_of(row, report.compared)[: len(output.columns)],
        )
    return output


def compared_of(row: Row, metric: str) -> tuple[str, str]:
    """A row's difference to the base, and its corrected p with a dagger when it is significant.

    Both are empty when nothing is compared.
    """
    figure = row.figures[metric]
    if figure.comparison is None:
        return "", ""
    dagger = DAGGER if figure.significant else " "
    # The zero before the point is dropped, so that the table fits into 80 columns.
    difference = difference_of(figure.comparison).replace("0.", ".", 1)
    return difference, f"{p_of(figure.corrected).replace('0.', '.', 1)}{dagger}"


def cost_table(corpus: CorpusPart) -> Table:
    """A table of seeds, time, tokens and parameters of each cell of a corpus."""
    output = plain_table()
    output.add_column("cell", no_wrap=True)
    for name in ("seeds", "time (s)", "tokens", "parameters"):
        output.add_column(name, justify="right", no_wrap=True)
    has_copied_stages = any(cost.shared for cost in corpus.costs)
    if has_copied_stages:
        output.add_column("taken from other run", no_wrap=True)
    for cost in corpus.costs:
        entries = [
            seeds_of(cost),
            seconds_of(cost),
            "" if cost.items is None else f"{cost.items:,.0f}",
            "" if cost.parameters is None else f"{cost.parameters:,}",
        ]
        if has_copied_stages:
            copied_text = f"{cost.shared_seconds:,.1f} s: {', '.join(cost.shared)}"
            entries.append(copied_text if cost.shared else "")
        output.add_row(shortened_name(cost.cell), *entries)
    return output


def plain_table() -> Table:
    """An empty table in the style of all tables here: a line under the head and no frame."""
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
