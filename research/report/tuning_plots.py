"""Draws a tuning: the best validation value after n trials by cell, and parameter importances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure as Canvas
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator, PercentFormatter

from research.report.formatting import shortened_name
from research.report.plots import SETTINGS, WIDTH, Style, svg_of
from research.report.tuning import (
    TunedCorpus,
    TunedRow,
    TuningPart,
    budget_words,
    importance_words,
)


def figures_of(
    tuning: TuningPart, corpus: TunedCorpus, styles: Mapping[str, Style]
) -> Iterator[tuple[str, str, str]]:
    """Yield title, SVG and values in words of each figure of a corpus.

    The budget curve comes first, then the importances of each cell that has some.
    """
    drawn = [row for row in corpus.rows if row.budget]
    if drawn:
        words = "; ".join(f"{row.cell}: {budget_words(row, tuning.trials)}" for row in drawn)
        title = f"Best validation {tuning.metric.upper()} after n trials"
        yield title, budget_svg(tuning, drawn, styles), words
    for row in corpus.rows:
        if row.importances:
            title = f"Importance of parameters, {row.cell}"
            yield title, importances_svg(row, styles[row.cell]), importance_words(row)


def budget_svg(tuning: TuningPart, rows: list[TunedRow], styles: Mapping[str, Style]) -> str:
    """An SVG with a staircase for each cell: the best value after each number of trials."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 2.6))
        axes = figure.add_subplot()
        for row in rows:
            style = styles[row.cell]
            axes.plot(
                [number for number, _ in row.budget],
                [value for _, value in row.budget],
                drawstyle="steps-post",
                color=style.colour,
                dashes=style.dash or (None, None),
                linewidth=1.5,
                marker=style.marker,
                markersize=4,
            )
        axes.set_xlim(0.5, tuning.trials + 0.5)
        axes.set_xlabel("trials")
        axes.set_ylabel(f"validation {tuning.metric.upper()}")
        axes.grid(visible=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_of(figure)


def importances_svg(row: TunedRow, style: Style) -> str:
    """An SVG with a bar for each parameter, the most important one first."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 0.75 + 0.26 * len(row.importances)))
        axes = figure.add_subplot()
        names = [shortened_name(name) for name, _ in row.importances]
        shares = [share for _, share in row.importances]
        axes.barh(range(len(names)), shares, height=0.6, color=style.colour)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
        return svg_of(figure)
