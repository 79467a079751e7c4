"""Draws a tuning: the best validation value after n trials by cell, and parameter importances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator, PercentFormatter

from research.report.formatting import shortened_name
from research.report.plots import SETTINGS, WIDTH, Style, add_legend
from research.report.tuning import TunedRow, TuningPart


def budget_figure(
    tuning: TuningPart,
    rows: Sequence[TunedRow],
    styles: Mapping[str, Style],
    *,
    legend: bool = False,
) -> Canvas:
    """A staircase for each cell: the best value after each number of trials."""
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
        if legend:
            add_legend(figure, [row.cell for row in rows], styles)
        return figure


def importances_figure(row: TunedRow, style: Style) -> Canvas:
    """A bar for each parameter, the most important one first."""
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
        return figure
