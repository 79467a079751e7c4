"""Figures and verdicts as text: the same in the terminal, on the page, in LaTeX and on W&B."""

from __future__ import annotations

from research.evaluation.statistics import Comparison, Estimate
from research.report.schema import Cost, ProtocolTable, Report


def interval_of(estimate: Estimate) -> str:
    """`0.1101 ±.0123`: the mean and half the width of its 95 % interval."""
    return f"{estimate.mean:.4f} ±{short_decimal((estimate.high - estimate.low) / 2)}"


def difference_of(comparison: Comparison) -> str:
    """`+0.0335 ±.0146`: the difference and half the width of its 95 % interval."""
    return f"{comparison.difference:+.4f} ±{short_decimal((comparison.high - comparison.low) / 2)}"


def range_of(low: float, high: float, *, signed: bool = False) -> str:
    """`0.0978 to 0.1224`: the ends of an interval; `signed` adds a plus to positive ones."""
    return f"{low:+.4f} to {high:+.4f}" if signed else f"{low:.4f} to {high:.4f}"


def short_decimal(value: float) -> str:
    """A value to four decimals, without the zero before the point."""
    text = f"{value:.4f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def number_of_any(value: float) -> str:
    """A value of any size, with four decimals or fewer: `0.1234`, `12.35`, `153.2`."""
    decimals = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def interval_of_any(estimate: Estimate) -> str:
    """`153.2 ±2.1`: a mean of any size and half the width of its 95 % interval."""
    return f"{number_of_any(estimate.mean)} ±{half_of_any(estimate)}"


def half_of_any(estimate: Estimate) -> str:
    """Half the width of the 95 % interval, with as many decimals as the mean has."""
    half = (estimate.high - estimate.low) / 2
    decimals = len(number_of_any(estimate.mean).partition(".")[2])
    return short_decimal(half) if decimals == 4 else f"{half:.{decimals}f}"


def shortened_name(name: str, letters: int = 26) -> str:
    """A name of at most `letters` characters; the middle is cut, as ends often tell names apart."""
    if len(name) <= letters:
        return name
    return f"{name[: letters // 2]}…{name[-(letters // 2 - 1) :]}"


def p_of(value: float | None) -> str:
    """A corrected p to three decimals; empty for None."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def seconds_of(cost: Cost) -> str:
    """Mean training time in seconds; empty when no run has finished."""
    return "" if cost.seconds is None else f"{cost.seconds:,.1f}"


def seeds_of(cost: Cost) -> str:
    """How many of a cell's seeds are done, and how many are not: `3`, or `2, 1 failed`."""
    parts = [str(len(cost.done))]
    unfinished = {"failed": cost.failed, "unfinished": cost.unfinished, "missing": cost.missing}
    parts += [f"{len(seeds)} {word}" for word, seeds in unfinished.items() if seeds]
    return ", ".join(parts)


def smallest_of(table: ProtocolTable, metric: str) -> str:
    """A sentence on the smallest true difference that the table's tests find with 80 % power.

    Empty when nothing is compared.
    """
    figures = table.figures(metric).values()
    sizes = [figure.comparison.smallest for figure in figures if figure.comparison is not None]
    if not sizes:
        return ""
    least, most = short_decimal(min(sizes)), short_decimal(max(sizes))
    sizes_text = least if least == most else f"{least} to {most}, by cell"
    return f"Smallest {metric.upper()} difference found with 80 % power: {sizes_text}."


def verdict_of(report: Report, table: ProtocolTable) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The table's answer: the cells that are above, below or not significantly different.

    Pairs of words and cells, such as ("above base", (...)); verdicts without a cell are left out.
    """
    differences: dict[str, float] = {}
    not_significant: list[str] = []
    for cell, figure in table.figures(report.compared).items():
        if figure.comparison is None:
            continue
        if figure.significant:
            differences[cell] = figure.comparison.difference
        else:
            not_significant.append(cell)
    above = [cell for cell, difference in differences.items() if difference > 0]
    below = [cell for cell, difference in differences.items() if difference <= 0]
    cells_by_verdict = {f"above {report.base}": above, f"below {report.base}": below}
    cells_by_verdict[f"no significant difference from {report.base}"] = not_significant
    return tuple((words, tuple(cells)) for words, cells in cells_by_verdict.items() if cells)


def legend_of(report: Report) -> tuple[str, ...]:
    """Sentences on what the signs in the tables mean: ±, p and the dagger."""
    return (f"±: half of the {interval_words(report)}.", *signs_of(report))


def interval_words(report: Report) -> str:
    """What kind of interval the report gives, in words."""
    return f"95 % bootstrap interval over users{' and seeds' if len(report.seeds) > 1 else ''}"


def signs_of(report: Report) -> tuple[str, ...]:
    """Sentences on what p and the dagger mean."""
    return (
        f"p: two-sided, paired by user, against {report.base}; Holm over a table's cells.",
        "†: p below 0.05, and an interval without 0. "
        f"{report.compared.upper()} decides, the rest describes.",
    )
