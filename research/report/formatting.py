"""Figures and verdicts as text: the same in the terminal, on the page, in LaTeX and on W&B."""

from __future__ import annotations

import re
from math import isinf

from research.evaluation.equivalence import MarginTest
from research.evaluation.statistics import Comparison, Estimate
from research.report.schema import LEVEL, Cost, Factorial, Gap, Panel, ProtocolTable, Report
from research.report.validation import best_by_validation

# A side of an even interval is at most this many times half the width. Each end varies with the
# resamples by about 4 % of half the width, so that sides of 0.95 and 1.05 are as good as even.
EVEN_SIDE = 1.1


def interval_of(estimate: Estimate, *, stacked: bool = False) -> str:
    """`0.1101 ±.0123`, or `0.1223 (.0301 to .2510)`: a mean and its interval, see `with_interval`.

    `stacked` puts the ends of an uneven one on a second line, so that columns stay narrow.
    """
    text, low, high = f"{estimate.mean:.4f}", estimate.low, estimate.high
    return with_interval(text, estimate.mean, low, high, stacked=stacked)


def difference_of(comparison: Comparison, *, stacked: bool = False) -> str:
    """`+0.0335 ±.0146`, or `+0.0335 (-.0014 to +.1210)`: a difference, otherwise `interval_of`."""
    text, low, high = f"{comparison.difference:+.4f}", comparison.low, comparison.high
    return with_interval(text, comparison.difference, low, high, signed=True, stacked=stacked)


def with_interval(
    text: str,
    center: float,
    low: float,
    high: float,
    *,
    decimals: int = 4,
    signed: bool = False,
    stacked: bool = False,
) -> str:
    """A number's `text` with half the width of its interval, or with both ends if it is uneven.

    `decimals` are those of the interval; `signed` adds a plus to positive ends; `stacked` puts the
    ends on a second line, as `.0301–.2510` or `-.0014 to +.1210`.
    """
    if is_even(center, low, high, decimals):
        return f"{text} ±{short_decimal((high - low) / 2, decimals)}"
    ends = [short_decimal(end, decimals, signed=signed) for end in (low, high)]
    if not stacked:
        return f"{text} ({' to '.join(ends)})"
    return f"{text}\n{(' to ' if signed else '–').join(ends)}"


def is_even(center: float, low: float, high: float, decimals: int = 4) -> bool:
    """Whether both sides of an interval are equally wide, so that `±` tells its ends.

    A side may be `EVEN_SIDE` times half the width, or longer than that by one unit of the last
    decimal.
    """
    half = (high - low) / 2
    longer = max(high - center, center - low)
    return longer <= max(EVEN_SIDE * half, half + 0.1**decimals)


def range_of(low: float, high: float, *, signed: bool = False) -> str:
    """`0.0978 to 0.1224`: the ends of an interval; `signed` adds a plus to positive ones."""
    return f"{low:+.4f} to {high:+.4f}" if signed else f"{low:.4f} to {high:.4f}"


def short_decimal(value: float, decimals: int = 4, *, signed: bool = False) -> str:
    """A value without the zero before its point; `signed` adds a plus to a positive one."""
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)


def number_of_any(value: float) -> str:
    """A value of any size, with four decimals or fewer: `0.1234`, `12.35`, `153.2`."""
    decimals = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def interval_of_any(estimate: Estimate, *, stacked: bool = False) -> str:
    """`153.2 ±2.1`: a mean of any size and its interval, with as many decimals as the mean has."""
    text, low, high = number_of_any(estimate.mean), estimate.low, estimate.high
    return with_interval(
        text, estimate.mean, low, high, decimals=decimals_of_any(estimate.mean), stacked=stacked
    )


def decimals_of_any(value: float) -> int:
    """The number of decimals that `number_of_any` gives a value."""
    return len(number_of_any(value).partition(".")[2])


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


def short_p_of(value: float | None) -> str:
    """`p_of` without the zero before its point: `.033`, `<.001`."""
    return p_of(value).replace("0.", ".", 1)


def seconds_of(cost: Cost) -> str:
    """Mean training time in seconds; empty when no run has finished."""
    return "" if cost.seconds is None else f"{cost.seconds:,.1f}"


def seeds_of(cost: Cost) -> str:
    """How many of a cell's seeds are done, and how many are not: `3`, or `2, 1 failed`."""
    parts = [str(len(cost.done))]
    unfinished = {"failed": cost.failed, "unfinished": cost.unfinished, "missing": cost.missing}
    parts += [f"{len(seeds)} {word}" for word, seeds in unfinished.items() if seeds]
    return ", ".join(parts)


def shared_of(cost: Cost) -> str:
    """In words which stages a cell's runs did not train themselves; empty when they trained all."""
    if not cost.shared:
        return ""
    stages = ", ".join(f"stage {origin.stage} from cell {origin.cell}" for origin in cost.shared)
    return (
        f"{stages}, trained there once and counted in the time here ({cost.shared_seconds:,.1f} s)"
    )


def best_of(report: Report, table: ProtocolTable) -> str:
    """A sentence on the cell that validation would choose, and that the test is not for choosing.

    Empty when fewer than two cells have a validation.
    """
    best = best_by_validation(table, report.compared)
    if best is None:
        return ""
    sentence = f"Best by validation {report.compared.upper()}: {best[0]} ({best[1]:.4f})"
    return (
        f"{sentence}."
        if report.part == "validation"
        else f"{sentence}; the test is not for choosing."
    )


def gap_of(gap: Gap) -> str:
    """`-0.0195 (-16.3 %)`: test minus validation, and that as a share of the validation figure."""
    text = f"{gap.difference:+.4f}"
    if gap.validation.mean == 0.0:
        return text
    return f"{text} ({100 * gap.difference / gap.validation.mean:+.1f} %)"


def quantity_of(panel: Panel) -> str:
    """The name of what a panel of curves shows."""
    return "learning rate" if panel.quantity == "lr" else panel.quantity


def panel_title(panel: Panel) -> str:
    """What a panel of curves shows, and of which stages."""
    if len(panel.stages) == 1:
        return f"{quantity_of(panel)}, stage {panel.stages[0]}"
    return f"{quantity_of(panel)}, last stages ({', '.join(panel.stages)})"


def smallest_of(table: ProtocolTable, metric: str) -> str:
    """A sentence on the smallest true difference that the table's tests find with 80 % power.

    Empty when nothing is compared.
    """
    figures = table.figures(metric).values()
    sizes = [figure.comparison.smallest for figure in figures if figure.comparison is not None]
    if not sizes:
        return ""
    beyond = sum(map(isinf, sizes))
    if beyond == len(sizes):
        return (
            f"No {metric.upper()} difference, however large, would be found with 80 % power: the "
            "study has too few users or seeds."
        )
    possible = [short_decimal(size) for size in sorted(sizes) if not isinf(size)]
    least, most = possible[0], possible[-1]
    sizes_text = least if least == most else f"{least} to {most}, by cell"
    some = f"; for {beyond} of {len(sizes)} cells none, however large" if beyond else ""
    return f"Smallest {metric.upper()} difference found with 80 % power: {sizes_text}{some}."


def smallest_text(comparison: Comparison) -> str:
    """The smallest difference found with 80 % power; `none` where no possible one would be."""
    return "none" if isinf(comparison.smallest) else short_decimal(comparison.smallest)


def margin_words(report: Report, table: ProtocolTable) -> tuple[str, ...]:
    """A sentence for each compared cell on whether it is within the report's margin of the base.

    Empty when the report has no margin or nothing is compared.
    """
    tests = {cell: figure.margin_test for cell, figure in table.figures(report.compared).items()}
    return tuple(
        f"{cell}: {within_words(test, report.base)}."
        for cell, test in tests.items()
        if test is not None
    )


def margin_claims(report: Report, table: ProtocolTable) -> tuple[str, ...]:
    """What `margin_words` says, a sentence for each claim with its cells: `CLAIM: a (p 0.013).`

    Empty where `margin_words` is.
    """
    cells: dict[str, list[str]] = {}
    for cell, figure in table.figures(report.compared).items():
        if figure.margin_test is not None:
            claim, p = claim_of(figure.margin_test, report.base)
            cells.setdefault(claim, []).append(f"{cell} (p {p_of(p)})")
    return tuple(
        f"{claim[0].upper()}{claim[1:]}: {', '.join(names)}." for claim, names in cells.items()
    )


def within_words(test: MarginTest, base: str) -> str:
    """`no worse than BASE by more than 0.002 (p 0.013)`, or that it is equivalent, or not shown."""
    claim, p = claim_of(test, base)
    return f"{claim} (p {p_of(p)})"


def claim_of(test: MarginTest, base: str) -> tuple[str, float]:
    """The strongest claim that a test within a margin bears out, in words, and its p."""
    margin = f"{test.margin:g}"
    if test.equivalent < LEVEL:
        return f"equivalent to {base} within {margin}", test.equivalent
    claim = f"no worse than {base} by more than {margin}"
    return claim if test.no_worse < LEVEL else f"not shown to be {claim}", test.no_worse


def verdict_of(report: Report, table: ProtocolTable) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The table's answer: the cells that are above, below or not significantly different.

    Pairs of words and cells with their differences, such as ("above base", ("a by 0.0335 ±.0146",
    ...)); verdicts without a cell are left out.
    """
    differences: dict[str, float] = {}
    sizes: dict[str, str] = {}
    not_significant: list[str] = []
    for cell, figure in table.figures(report.compared).items():
        if figure.comparison is None:
            continue
        sizes[cell] = f"{cell} by {difference_of(figure.comparison)[1:]}"
        if figure.significant:
            differences[cell] = figure.comparison.difference
        else:
            not_significant.append(cell)
    above = [sizes[cell] for cell, difference in differences.items() if difference > 0]
    below = [sizes[cell] for cell, difference in differences.items() if difference <= 0]
    cells_by_verdict = {f"above {report.base}": above, f"below {report.base}": below}
    cells_by_verdict[f"no significant difference from {report.base}"] = not_significant
    return tuple((words, tuple(cells)) for words, cells in cells_by_verdict.items() if cells)


def legend_of(report: Report) -> tuple[str, ...]:
    """Sentences on what the signs in the tables mean: ±, p and the dagger."""
    width = (
        f"±: half of the {interval_words(report)}; where a side is more than a tenth longer than "
        "that, both ends."
    )
    return (width, *drawn_words(report), *signs_of(report))


def drawn_words(report: Report) -> tuple[str, ...]:
    """Sentences on how users and seeds enter the intervals and p-values."""
    if len(report.seeds) == 1:
        return ("Users count as drawn from many; one seed cannot say what another would give.",)
    return (
        "Users and seeds both count as drawn from many: users are resampled, and what seeds add to "
        "the variance is estimated from the means of the seeds.",
        "Two seeds leave almost any such variance possible, so that intervals are wide and p is "
        "large; five or more seeds tell much more.",
    )


def interval_words(report: Report) -> str:
    """What kind of interval the report gives, in words."""
    return f"95 % bootstrap interval over users{' and seeds' if len(report.seeds) > 1 else ''}"


def signs_of(report: Report) -> tuple[str, ...]:
    """Sentences on what p, the dagger and the words on a margin mean."""
    return (
        f"p: two-sided, paired by user, against {report.base}; Holm over a table's cells.",
        "†: p below 0.05, and an interval without 0. "
        f"{report.compared.upper()} decides, the rest describes.",
        *(() if report.margin is None else (margin_sign(report),)),
    )


def margin_sign(report: Report) -> str:
    """A sentence on the tests behind the words on a margin, all of the compared metric."""
    return (
        f"No worse, equivalent: one-sided tests at 5 %, of {report.compared.upper()}, corrected "
        "like p (TOST)."
    )


def effect_signs_of(report: Report) -> tuple[str, ...]:
    """Sentences on what the effects of factors and their p mean."""
    return (
        "Effect of a factor: the difference between two of its levels, a mean over all "
        "combinations of the other factors' levels. A × B: how much the effect of A changes from "
        "one level of B to another.",
        f"p: two-sided, paired by user; Holm over a table's effects. {report.compared.upper()} "
        "decides.",
    )


def effects_verdict(factorial: Factorial, metric: str) -> tuple[tuple[str, str], ...]:
    """The effects in short: pairs of words and names, with the size of those that were found.

    Words without a name are left out.
    """
    names: dict[str, list[str]] = {"effects": [], "no significant effect": [], "not estimable": []}
    for effect in factorial.effects[metric]:
        name = f"{effect.name} ({effect.contrast})"
        if effect.comparison is None:
            names["not estimable"].append(name)
        elif effect.significant:
            size = f"{effect.comparison.difference:+.4f}".replace("-", "−")
            names["effects"].append(f"{name} {size}")
        else:
            names["no significant effect"].append(name)
    return tuple((words, "; ".join(of_words)) for words, of_words in names.items() if of_words)
