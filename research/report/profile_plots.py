"""Draws the figures of a corpus's profile as SVG text, in the style of the report's."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.style import context

from research.data.profile import LengthBin
from research.report.formatting import shortened_name
from research.report.plots import COLOURS, SETTINGS, WIDTH, svg_of

COLOUR = COLOURS[1]
HEIGHT = 2.4
# Months that are written below the time line.
MONTH_LABELS = 4


def lengths_svg(bins: Sequence[LengthBin]) -> str:
    """An SVG of bars: users by history length."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, HEIGHT))
        axes = figure.add_subplot()
        axes.bar(range(len(bins)), [each.users for each in bins], color=COLOUR)
        names = [str(each.low) for each in bins]
        axes.set_xticks(range(len(bins)), names, rotation=0 if len(bins) <= 9 else 60)
        axes.set_xlabel("history length, from")
        axes.set_ylabel("users")
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        return svg_of(figure)


def popularity_svg(curve: Sequence[tuple[float, float]]) -> str:
    """An SVG curve: the share of interactions with the most popular items, over their share."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, HEIGHT))
        axes = figure.add_subplot()
        axes.plot([0.0, 1.0], [0.0, 1.0], color="#888888", linewidth=1.0, dashes=(3, 2))
        axes.plot(*zip(*curve), color=COLOUR, linewidth=1.6)
        axes.set_xlabel("share of items, the most popular first")
        axes.set_ylabel("share of interactions")
        axes.grid(visible=True)
        axes.locator_params(nbins=5)
        return svg_of(figure)


def months_svg(months: Sequence[tuple[str, int]]) -> str:
    """An SVG of events a month."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, HEIGHT))
        axes = figure.add_subplot()
        counts = [count for _, count in months]
        if len(months) == 1:
            axes.bar([0], counts, color=COLOUR)
        else:
            axes.fill_between(range(len(months)), counts, color=COLOUR, alpha=0.25, linewidth=0)
            axes.plot(range(len(months)), counts, color=COLOUR, linewidth=1.4)
        step = max(1, -(-(len(months) - 1) // MONTH_LABELS))
        places = range(0, len(months), step)
        axes.set_xticks(places, [months[place][0] for place in places])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("events a month")
        axes.grid(visible=True, axis="y")
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        return svg_of(figure)


def attributes_svg(most_common: Sequence[tuple[str, int]]) -> str:
    """An SVG of bars: items with each of the most common attributes."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 0.75 + 0.22 * len(most_common)))
        axes = figure.add_subplot()
        rows = range(len(most_common))
        axes.barh(rows, [items for _, items in most_common], color=COLOUR)
        axes.set_yticks(rows, [shortened_name(name) for name, _ in most_common])
        axes.invert_yaxis()
        axes.set_xlabel("items")
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=5)
        return svg_of(figure)
