"""The figure of a benchmark: seconds of each work by side, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from experiments.benchmark.peers.environment import TITLES
from experiments.benchmark.results import digits
from research.report.plots import COLOURS, SETTINGS, file_of

# Ours is dark; a peer has its colour in every figure.
COLOUR_OF = dict(zip(TITLES, COLOURS))
BAR = 0.8


def seconds_svg(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG file of bars on a logarithmic axis, equal for equal values.

    `seconds` has, for each work (by its title) and each side in it, the median in seconds.
    """
    rows = sum(len(by_side) for by_side in seconds.values())
    with context(SETTINGS):
        figure = Figure(figsize=(6.4, 0.8 + 0.2 * rows + 0.16 * len(seconds)))
        axes = figure.add_subplot()
        place, centres = 0.0, []
        for by_side in seconds.values():
            centres.append(place + (len(by_side) - 1) / 2)
            for side, value in by_side.items():
                axes.barh(place, value, height=BAR, color=COLOUR_OF[side])
                text = f" {digits(value)} s {TITLES[side]}"
                axes.text(value, place, text, va="center", fontsize=7.5, color="#1a1a1a")
                place += 1.0
            place += 0.8
        axes.set_yticks(centres, list(seconds))
        axes.set_ylim(place - 1.0, -0.9)
        axes.set_xscale("log")
        # The default writes powers of ten as formulas, which `SETTINGS` shows as they are.
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        values = [value for by_side in seconds.values() for value in by_side.values()]
        # Room for the text at the longest bar.
        axes.set_xlim(min(values) / 2, max(values) * 12)
        axes.set_xlabel("seconds (logarithmic); an epoch, where the work is training")
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
        return file_of(figure, "svg").decode()
