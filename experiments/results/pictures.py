"""A picture for each table of results: means of cells with their intervals, and differences."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.comparisons import Compared
from experiments.results.tables import Table
from research.errors import InputError
from research.storage.untrusted import printable


def pictures(tables: Iterable[Table]) -> dict[str, bytes]:
    """A picture for each table, by its file's name: the same bytes for the same lines.

    Raises `InputError` if two tables have pictures of one name.
    """
    drawn: dict[str, bytes] = {}
    with matplotlib.rc_context({"svg.hashsalt": "sixfold", "svg.fonttype": "none"}):
        for table in tables:
            name, file = f"{table.dataset}-{table.study}.svg", io.BytesIO()
            if name in drawn:
                raise InputError(f"two tables have the picture {name}; rename one's study")
            picture(table).savefig(file, format="svg", metadata={"Date": None})
            drawn[name] = file.getvalue()
    return drawn


def picture(table: Table, metric: str = "ndcg@10") -> Figure:
    """The means of the cells that have the metric, with their intervals and published figures.

    Beside them, for each base with which the metric is compared, are the differences to it.
    """
    rows = [row for row in table.rows if metric in row.means]
    comparisons = table.comparisons
    has_differences = comparisons is not None and comparisons.metric == metric
    against = comparisons.against if comparisons is not None and has_differences else {}
    figure = Figure(figsize=(7 + 3 * len(against), 1.1 + 0.28 * len(rows)), layout="constrained")
    widths = [2, *(1 for _ in against)]
    axes, *others = figure.subplots(
        1, len(widths), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
    )[0]
    places = range(len(rows))[::-1]
    means = [row.means[metric] for row in rows]
    halves = [mean.half for mean in means]
    draw_intervals(axes, [mean.mean for mean in means], places, halves, label="ours, 95 % interval")
    marks = [
        (figure.figures[metric], place)
        for row, place in zip(rows, places, strict=True)
        for figure in row.published
        if metric in figure.figures
    ]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", mfc="none", color="#b71c1c", label="published")
    axes.set_yticks(places, [row.cell for row in rows])
    axes.set_xlabel(f"{metric.upper()} on {table.dataset}, test: {table.study}")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    heights = {printable(row.cell): place for row, place in zip(rows, places, strict=True)}
    for (base, cells), panel in zip(against.items(), others, strict=True):
        draw_differences(panel, cells, heights)
        panel.set_xlabel(f"{metric.upper()} minus that of\n{base}\n(hollow: not significant)")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def draw_differences(axes: Axes, cells: Iterable[Compared], heights: Mapping[str, int]) -> None:
    """The differences of cells to a base, each at its height; hollow where not significant."""
    axes.axvline(0.0, color="#757575", linewidth=1)
    axes.locator_params(axis="x", nbins=4)
    for cell in cells:
        # By rounding, an end may lie on the other side of the mean.
        sides = [max(0.0, cell.difference - cell.low)], [max(0.0, cell.high - cell.difference)]
        place = [heights[cell.name]]
        draw_intervals(axes, [cell.difference], place, sides, filled=cell.significant)


def draw_intervals(
    axes: Axes,
    centers: Sequence[float],
    places: Sequence[int],
    sides: Sequence[float] | Sequence[Sequence[float]],
    *,
    label: str | None = None,
    filled: bool = True,
) -> None:
    """Points with their intervals, whose `sides` are as `Axes.errorbar` takes them."""
    color = "#00796b"
    axes.errorbar(
        centers, places, xerr=sides, fmt="o", color=color, mfc=color if filled else "white",
        capsize=3, label=label,
    )  # fmt: skip
    axes.grid(axis="x", alpha=0.3)
