"""How figures are written: the same in the terminal, on the page and in LaTeX."""

from __future__ import annotations

from research.evaluation.statistics import Comparison, Estimate
from research.report.schema import Cost, ProtocolTable, Report


def interval_of(estimate: Estimate) -> str:
    """`0.1101 ±.0123`: the mean and half of its 95 % interval."""
    return f"{estimate.mean:.4f} ±{bare((estimate.high - estimate.low) / 2)}"


def difference_of(comparison: Comparison) -> str:
    """`+0.0335 ±.0146`."""
    return f"{comparison.difference:+.4f} ±{bare((comparison.high - comparison.low) / 2)}"


def range_of(low: float, high: float, *, signed: bool = False) -> str:
    """`0.0978 to 0.1224`."""
    return f"{low:+.4f} to {high:+.4f}" if signed else f"{low:.4f} to {high:.4f}"


def bare(value: float) -> str:
    """Four decimals without the zero before the point."""
    text = f"{value:.4f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def cut(name: str, letters: int = 26) -> str:
    """A name that fits; its end often tells names apart, so the middle goes."""
    if len(name) <= letters:
        return name
    return f"{name[: letters // 2]}…{name[-(letters // 2 - 1) :]}"


def p_of(value: float | None) -> str:
    """A corrected p to three decimals; nothing where there is none."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def seconds_of(cost: Cost) -> str:
    """Mean training time in seconds."""
    return "" if cost.seconds is None else f"{cost.seconds:,.1f}"


def seeds_of(cost: Cost) -> str:
    """`3`, or `2, 1 failed`."""
    parts = [str(len(cost.done))]
    told = {"failed": cost.failed, "unfinished": cost.unfinished, "missing": cost.missing}
    parts += [f"{len(seeds)} {word}" for word, seeds in told.items() if seeds]
    return ", ".join(parts)


def smallest_of(table: ProtocolTable, metric: str) -> str:
    """What difference a table could have shown; nothing where nothing is compared."""
    figures = table.figures(metric).values()
    found = [each.comparison.smallest for each in figures if each.comparison is not None]
    if not found:
        return ""
    least, most = bare(min(found)), bare(max(found))
    said = least if least == most else f"{least} to {most}, by cell"
    return f"Smallest {metric.upper()} difference found with 80 % power: {said}."


def verdict_of(report: Report, table: ProtocolTable) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The table's answer: which cells are above the base, below it, or not told apart from it."""
    differences: dict[str, float] = {}
    same: list[str] = []
    for cell, figure in table.figures(report.compared).items():
        if figure.comparison is None:
            continue
        if figure.significant:
            differences[cell] = figure.comparison.difference
        else:
            same.append(cell)
    above = [cell for cell, difference in differences.items() if difference > 0]
    below = [cell for cell, difference in differences.items() if difference <= 0]
    said = {f"above {report.base}": above, f"below {report.base}": below}
    said[f"not told apart from {report.base}"] = same
    return tuple((words, tuple(cells)) for words, cells in said.items() if cells)


def legend_of(report: Report) -> tuple[str, ...]:
    """What the signs of the tables mean."""
    return (f"±: half of the {interval_words(report)}.", *signs_of(report))


def interval_words(report: Report) -> str:
    """What an interval is."""
    return f"95 % bootstrap interval over users{' and seeds' if len(report.seeds) > 1 else ''}"


def signs_of(report: Report) -> tuple[str, ...]:
    """What p and the dagger mean."""
    return (
        f"p: two-sided, paired by user, against {report.base}; Holm over a table's cells.",
        "†: p below 0.05, and an interval without 0. "
        f"{report.compared.upper()} decides, the rest describes.",
    )
