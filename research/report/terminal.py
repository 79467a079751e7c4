"""The report in a terminal: for each corpus a table of figures by protocol, and one of costs."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from research.report.formatting import (
    best_of,
    difference_of,
    effect_signs_of,
    interval_of,
    interval_of_any,
    legend_of,
    margin_words,
    p_of,
    seconds_of,
    seeds_of,
    short_p_of,
    shortened_name,
    smallest_of,
    smallest_text,
)
from research.report.schema import (
    DAGGER,
    CorpusPart,
    Factorial,
    Figure,
    ListsTable,
    ProtocolTable,
    Report,
    Row,
    Slicing,
)
from research.report.tuning import TuningPart, budget_words, importance_words, value_words


def print_report(report: Report, console: Console) -> None:
    """Print a report; the console must not read markup in text (`research.console.wide_console`).

    A table of four cells and three metrics fits into 80 columns, unless a difference has an uneven
    interval.
    """
    console.print(report.question)
    if report.budget is not None:
        console.print(f"equal budget: {report.budget}")
    for corpus in report.corpora:
        for table in corpus.tables:
            console.print()
            console.print(f"{corpus.name}, {table.title}, {table.users:,} users")
            console.print(figures_table(report, table))
            if best := best_of(report, table):
                console.print(best)
            print_all(console, margin_words(report, table))
            print_all(console, table.notes)
            if smallest := smallest_of(table, report.compared):
                console.print(smallest)
            if table.factorial is not None:
                console.print()
                console.print(f"{corpus.name}, effects of the factors")
                console.print(effects_table(report, table.factorial))
                print_all(console, (*effect_signs_of(report), *table.factorial.notes))
        for lists in corpus.lists:
            console.print()
            console.print(f"{corpus.name}, {lists.title}, {lists.users:,} users")
            console.print(lists_table(lists))
            print_all(console, lists.notes)
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
    for name in report.factors:
        output.add_column(shortened_name(name), no_wrap=True)
    for name in report.metrics:
        output.add_column(name.upper(), justify="right", no_wrap=True)
    compares = table.has_base and len(table.rows) > 1
    if compares:
        versus = f"{report.compared.upper()} vs\n{shortened_name(report.base)}"
        output.add_column(versus, justify="right", no_wrap=True)
        output.add_column("p", justify="right", no_wrap=True)
    for row in table.rows:
        estimates = [row.figures[name].estimate for name in report.metrics]
        output.add_row(
            shortened_name(row.cell),
            *(shortened_name(row.levels.get(name, "")) for name in report.factors),
            *(interval_of(estimate, stacked=True) for estimate in estimates),
            *compared_of(row, report.compared)[: len(output.columns)],
        )
    return output


def lists_table(table: ListsTable) -> Table:
    """A table of recommended lists: each cell's metrics with intervals, and its daggers."""
    output = plain_table()
    output.add_column("cell", no_wrap=True)
    for name in table.metrics:
        output.add_column(name.upper(), justify="right", no_wrap=True)
    for row in table.rows:
        figures = [row.figures[name] for name in table.metrics]
        output.add_row(shortened_name(row.cell), *map(lists_entry_of, figures))
    return output


def lists_entry_of(figure: Figure) -> str:
    """A mean and its interval, with a dagger or a space at the end of the mean's line."""
    mean, *ends = interval_of_any(figure.estimate, stacked=True).splitlines()
    return "\n".join((mean + (figure.mark or " "), *(f"{line} " for line in ends)))


def print_slices(report: Report, console: Console) -> None:
    """Print the compared metric in each slice of the held-out items, as the page has it."""
    for corpus in report.corpora:
        for slicing in (slicing for table in corpus.tables for slicing in table.slicings):
            console.print()
            console.print(f"{corpus.name}, {report.compared.upper()} by {slicing.by}")
            console.print(slices_table(slicing))
            if slicing.left_out:
                console.print(f"{slicing.left_out} items are alone in their slice: not shown")


def slices_table(slicing: Slicing) -> Table:
    """A table of a slicing: a row for each bucket, with a column for each cell."""
    output = plain_table()
    output.add_column("slice", no_wrap=True)
    output.add_column("items", justify="right", no_wrap=True)
    for cell in slicing.buckets[0].estimates if slicing.buckets else ():
        output.add_column(shortened_name(cell), justify="right", no_wrap=True)
    for bucket in slicing.buckets:
        figures = [interval_of(each, stacked=True) for each in bucket.estimates.values()]
        output.add_row(shortened_name(bucket.label), f"{bucket.questions:,}", *figures)
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
    difference = difference_of(figure.comparison, stacked=True).replace("0.", ".", 1)
    return difference, f"{short_p_of(figure.corrected)}{dagger}"


def effects_table(report: Report, factorial: Factorial) -> Table:
    """A table of main effects and interactions on the compared metric, with corrected p."""
    output = plain_table()
    for name in ("effect", "levels"):
        output.add_column(name, no_wrap=True)
    for name in (report.compared.upper(), "p", "smallest"):
        output.add_column(name, justify="right", no_wrap=True)
    for effect in factorial.effects[report.compared]:
        comparison = effect.comparison
        entries = ("not estimable", "", "")
        if comparison is not None:
            p = f"{p_of(effect.corrected)}{effect.mark or ' '}"
            entries = (difference_of(comparison, stacked=True), p, smallest_text(comparison))
        output.add_row(
            shortened_name(effect.name, 40), shortened_name(effect.contrast, 40), *entries
        )
    return output


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
            stages = ", ".join(f"{origin.stage} from {origin.cell}" for origin in cost.shared)
            copied_text = f"{cost.shared_seconds:,.1f} s: {stages}"
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
