"""Draws the report's figures; an equal report gives equal bytes in every format.

Text stays text, in the reader's own sans-serif font. A cell has one colour, dash and marker in all
figures; the three together distinguish cells in grey print too.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.ticker import EngFormatter

from research.report.formatting import quantity_of, shortened_name
from research.report.schema import Axis, Cosines, Gap, Interaction, Panel, Slicing

COLOURS = ("#1a1a1a", "#0072b2", "#d55e00", "#009e73", "#b0447e", "#56a0d3", "#b8860b", "#6a4c93")
DASHES = ((), (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (3, 1.2, 1, 1.2, 1, 1.2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The label of an axis of learning curves.
AXIS_LABELS: dict[Axis, str] = {
    "steps": "optimizer steps",
    "tokens": "tokens trained on",
    "seconds": "seconds of training",
}
# A curve of so few points has them marked.
FEW_POINTS = 12
# How far below its interval the seeds of a dot stand, in rows.
SEED_OFFSET = 0.27
# Formats of a figure's file, and what to leave out of their metadata: times and programs.
KINDS: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
DOTS_PER_INCH = 300
# Inches: wide enough to be read on a desktop, narrow enough that a phone shrinks it little.
WIDTH = 4.2
# How far lines of an interaction plot stand apart, where its levels stand 1 apart.
LINES_APART = 0.06
SETTINGS: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sixfold",
    # Letters as TrueType, which journals ask for, and not as Type 3.
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#666666",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#1a1a1a",
    "ytick.major.size": 0.0,
    "figure.constrained_layout.use": True,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Style:
    """How a cell looks in every figure."""

    colour: str
    dash: tuple[float, ...]
    """Lengths of strokes and gaps, as matplotlib's `dashes`; empty: a solid line."""
    marker: str
    """matplotlib's name of the marker."""


@dataclass(frozen=True)
class Dot:
    """A labelled value and its interval."""

    label: str
    value: float
    low: float
    high: float
    style: Style
    seeds: tuple[float, ...] = ()
    """The value of each seed; drawn where there are several."""


def styles_of(cells: Sequence[str]) -> dict[str, Style]:
    """A style for each cell; the first 280 are all different."""
    return {
        cell: Style(
            COLOURS[index % len(COLOURS)],
            DASHES[index % len(DASHES)],
            MARKERS[index % len(MARKERS)],
        )
        for index, cell in enumerate(cells)
    }


def dots_figure(dots: Sequence[Dot], label: str, *, zero: bool = False) -> Canvas:
    """Dots with intervals, one below the other, and a small ring for each seed.

    `zero` adds a vertical line at 0.
    """
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 0.75 + 0.3 * len(dots)))
        axes = figure.add_subplot()
        if zero:
            axes.axvline(0.0, color="#888888", linewidth=1.0, zorder=1)
        for row, dot in enumerate(dots):
            _draw(axes, dot, row, size=5.5)
        axes.set_yticks(range(len(dots)), [shortened_name(dot.label) for dot in dots])
        axes.set_ylim(len(dots) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(visible=True, axis="x")
        axes.locator_params(axis="x", nbins=5)
        return figure


def slices_figure(
    slicing: Slicing, label: str, styles: Mapping[str, Style], *, legend: bool = False
) -> Canvas:
    """A group of dots for each bucket: the mean and interval of each cell, in order."""
    with context(SETTINGS):
        cells = list(slicing.buckets[0].estimates)
        step = len(cells) + 1.4
        figure = Canvas(figsize=(WIDTH, 0.75 + 0.135 * step * len(slicing.buckets)))
        axes = figure.add_subplot()
        for group, bucket in enumerate(slicing.buckets):
            if group:
                axes.axhline(group * step - 1.2, color="#cccccc", linewidth=0.6)
            for row, (cell, estimate) in enumerate(bucket.estimates.items()):
                dot = Dot(cell, estimate.mean, estimate.low, estimate.high, styles[cell])
                _draw(axes, dot, group * step + row, size=4.0)
        if legend:
            add_legend(figure, cells, styles)
        centres = [group * step + (len(cells) - 1) / 2 for group in range(len(slicing.buckets))]
        names = [
            f"{shortened_name(bucket.label)}\nn = {bucket.questions:,}"
            for bucket in slicing.buckets
        ]
        axes.set_yticks(centres, names)
        axes.set_ylim(step * len(slicing.buckets) - 1.2, -1.2)
        axes.set_xlabel(label)
        axes.grid(visible=True, axis="x")
        axes.locator_params(axis="x", nbins=5)
        return figure


def gap_figure(gaps: Sequence[Gap], label: str, styles: Mapping[str, Style]) -> Canvas:
    """For each cell its interval on validation (hollow) and below it that on test (filled)."""
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 0.75 + 0.42 * len(gaps)))
        axes = figure.add_subplot()
        for row, gap in enumerate(gaps):
            style = styles[gap.cell]
            for part, place, face in (
                (gap.validation, -0.17, "white"),
                (gap.test, 0.17, style.colour),
            ):
                dot = Dot(gap.cell, part.mean, part.low, part.high, style)
                _draw(axes, dot, row + place, size=5.0, face=face)
        axes.set_yticks(range(len(gaps)), [shortened_name(gap.cell) for gap in gaps])
        axes.set_ylim(len(gaps) - 0.4, -0.6)
        axes.set_xlabel(f"{label}, ○ validation, ● test")
        axes.grid(visible=True, axis="x")
        axes.locator_params(axis="x", nbins=5)
        return figure


def interaction_figure(interaction: Interaction, label: str) -> Canvas:
    """Means with intervals over one factor's levels, with a line for each of another's.

    Parallel lines: the two factors do not interact.
    """
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH, 2.6))
        axes = figure.add_subplot()
        styles = styles_of(list(interaction.estimates))
        for index, (level, estimates) in enumerate(interaction.estimates.items()):
            # Lines stand a little apart, so that no interval hides another.
            shift = LINES_APART * (index - (len(interaction.estimates) - 1) / 2)
            places = [place + shift for place in range(len(estimates))]
            means, lows, highs = (
                [math.nan if each is None else vars(each)[name] for each in estimates.values()]
                for name in ("mean", "low", "high")
            )
            style = styles[level]
            axes.plot(
                places,
                means,
                color=style.colour,
                dashes=style.dash or (None, None),
                linewidth=1.5,
                marker=style.marker,
                markersize=5.5,
                label=shortened_name(f"{interaction.lines}={level}", 22),
            )
            axes.vlines(places, lows, highs, color=style.colour, linewidth=1.2)
        along = next(iter(interaction.estimates.values()))
        axes.set_xticks(range(len(along)), [shortened_name(level, 12) for level in along])
        axes.set_xlim(-0.5, len(along) - 0.5)
        axes.set_xlabel(shortened_name(interaction.along))
        axes.set_ylabel(label)
        axes.grid(visible=True, axis="y")
        axes.locator_params(axis="y", nbins=5)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)
        return figure


def panel_figure(panel: Panel, styles: Mapping[str, Style], *, legend: bool = False) -> Canvas:
    """Curves: the mean over seeds, and a band from the lowest to the highest seed."""
    with context(SETTINGS):
        figure = Canvas(figsize=(3.6, 2.3))
        axes = figure.add_subplot()
        for curve in panel.curves:
            style = styles[curve.cell]
            if curve.seeds > 1:
                axes.fill_between(
                    curve.progress,
                    curve.low,
                    curve.high,
                    color=style.colour,
                    alpha=0.15,
                    linewidth=0,
                )
            axes.plot(
                curve.progress,
                curve.mean,
                color=style.colour,
                dashes=style.dash or (None, None),
                linewidth=1.5,
                marker=style.marker if len(curve.progress) <= FEW_POINTS else "",
                markersize=4,
            )
        axes.set_xlabel(AXIS_LABELS[panel.axis])
        axes.set_ylabel(shortened_name(quantity_of(panel), 18))
        axes.grid(visible=True)
        axes.locator_params(nbins=5)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if legend:
            add_legend(figure, [curve.cell for curve in panel.curves], styles)
        return figure


def heat_figure(cosines: Cosines) -> Canvas:
    """A heat map: a square for each pair of objectives, with their gradient cosine in it."""
    with context(SETTINGS):
        size = len(cosines.objectives)
        figure = Canvas(figsize=(min(WIDTH, 1.6 + 0.55 * size), 1.0 + 0.45 * size))
        axes = figure.add_subplot()
        values = [
            [float("nan") if value is None else value for value in row] for row in cosines.matrix
        ]
        axes.pcolormesh(values, cmap="RdBu", vmin=-1.0, vmax=1.0, edgecolor="white", linewidth=1.0)
        for row, entries in enumerate(cosines.matrix):
            for column, value in enumerate(entries):
                if value is not None:
                    color = "white" if abs(value) > 0.6 else "#1a1a1a"
                    text = f"{value:+.2f}" if row != column else "1"
                    axes.text(column + 0.5, row + 0.5, text, color=color, ha="center", va="center")
        centres = [index + 0.5 for index in range(size)]
        names = [shortened_name(name, 12) for name in cosines.objectives]
        longest = max(map(len, names))
        axes.set_xticks(centres, names, rotation=0 if longest <= 6 else 35)
        axes.set_yticks(centres, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        return figure


def file_of(figure: Canvas, kind: str) -> bytes:
    """A figure as a file of a kind in `KINDS`, equal for equal figures."""
    file = io.BytesIO()
    with context(SETTINGS), warnings.catch_warnings():
        # A browser draws letters that matplotlib's font lacks; PDF and PNG have a box there.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format=kind, dpi=DOTS_PER_INCH, metadata=KINDS[kind])
    return file.getvalue()


def svg_of(figure: Canvas) -> str:
    """A figure as an `<svg>` element to embed in HTML: no prologue, metadata or XML namespaces."""
    text = file_of(figure, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)


def with_id_prefix(svg: str, prefix: str) -> str:
    """The element with `prefix` before every id and reference to one; its text is unchanged.

    A page holds many figures, whose ids would otherwise be the same.
    """

    def renamed(tag: re.Match[str]) -> str:
        return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", tag[0])

    return re.sub(r"<[^>]*>", renamed, svg)


def _draw(axes: Axes, dot: Dot, row: float, *, size: float, face: str | None = None) -> None:
    """Draw a dot with its interval, and its seeds below; `face` None: filled with its colour."""
    style = dot.style
    if len(dot.seeds) > 1:
        axes.plot(
            dot.seeds, [row + SEED_OFFSET] * len(dot.seeds), "o", color=style.colour, alpha=0.55,
            markersize=2.6, markerfacecolor="none", markeredgewidth=0.7, zorder=2,
        )  # fmt: skip
    axes.plot([dot.low, dot.high], [row, row], color=style.colour, linewidth=1.4, zorder=2)
    axes.plot(
        [dot.value], [row], style.marker, color=style.colour, markersize=size, zorder=3,
        markerfacecolor=face or style.colour,
    )  # fmt: skip


def add_legend(figure: Canvas, cells: Sequence[str], styles: Mapping[str, Style]) -> None:
    """Add a legend below the axes, for a figure that stands alone."""
    lines = [
        Line2D([], [], color=styles[cell].colour, marker=styles[cell].marker, markersize=4,
               dashes=styles[cell].dash or (None, None))
        for cell in cells
    ]  # fmt: skip
    names = [shortened_name(cell) for cell in cells]
    figure.legend(
        lines, names, loc="outside lower center", ncols=min(3, len(cells)), frameon=False,
        fontsize=7.5, handlelength=2.6,
    )  # fmt: skip
