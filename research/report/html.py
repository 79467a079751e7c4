"""report.html: a single page that loads nothing from elsewhere, for a desktop, a phone and paper.

The template (page.html, with style.css) escapes all text that it is given. Figures are inline SVG
from `plots`, in which matplotlib has escaped the text. The page has no script, and its content
security policy forbids every request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from research.report import formatting as words
from research.report import plots, tuning, tuning_plots
from research.report.plots import Dot, Style
from research.report.schema import CorpusPart, Cosines, Panel, ProtocolTable, Report, Slicing
from research.report.tuning import TunedCorpus
from research.storage.untrusted import short_text


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    title: str
    svg: Markup
    """The figure, with its values as an `aria-label` for screen readers."""


def page_of(report: Report) -> str:
    """The whole page as HTML text."""
    styles = plots.styles_of(report.cells)
    figures = Figures(report, styles)
    # Figures are drawn in the page's order, so that their ids are the same in every build.
    pictures = {corpus.name: figures.of_corpus(corpus) for corpus in report.corpora}
    tuned = () if report.tuning is None else report.tuning.corpora
    return template("page.html").render(
        report=report,
        styles=styles,
        marker_paths=MARKER_PATHS,
        pictures=pictures,
        tuning_pictures=[figures.of_tuning(corpus) for corpus in tuned],
        tuning_words=tuning,
        words=words,
    )


def template(name: str) -> Template:
    """A template of this folder, which escapes all text that it is given."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = thousands
    environment.filters["short"] = short_text
    environment.filters["minus"] = minus
    return environment.get_template(name)


# SVG paths of the legend's markers, in a box from -4 to 4, by matplotlib's marker names.
MARKER_PATHS = {
    "o": "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
    "s": "M-3,-3h6v6h-6z",
    "^": "M0,-3.5L3.5,3h-7z",
    "D": "M0,-4L4,0L0,4L-4,0z",
    "v": "M0,3.5L3.5,-3h-7z",
    "P": "M-1.3,-4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
    "X": "M-4,-2L-2,-4L0,-2L2,-4L4,-2L2,0L4,2L2,4L0,2L-2,4L-4,2L-2,0z",
}


@dataclass(frozen=True)
class CorpusPictures:
    """The figures of one corpus."""

    tables: tuple[tuple[Picture, ...], ...]
    """For each table a figure of means, and one of differences where something is compared."""
    slices: tuple[tuple[Picture, ...], ...]
    """For each table, one figure for each slicing."""
    curves: tuple[Picture, ...]
    cosines: tuple[Picture, ...]


class Figures:
    """Draws a report's figures; ids in the SVG are unique over all of them."""

    def __init__(self, report: Report, styles: Mapping[str, Style]) -> None:
        self.report = report
        self.styles = styles
        self.drawn = 0

    def of_corpus(self, corpus: CorpusPart) -> CorpusPictures:
        """All figures of a corpus, in the page's order."""
        return CorpusPictures(
            tables=tuple(self.of_table(table) for table in corpus.tables),
            slices=tuple(
                tuple(self.of_slicing(part) for part in table.slicings if part.buckets)
                for table in corpus.tables
            ),
            curves=tuple(self.of_panel(panel) for panel in corpus.panels),
            cosines=tuple(self.of_cosines(part) for part in corpus.cosines),
        )

    def of_tuning(self, corpus: TunedCorpus) -> tuple[Picture, ...]:
        """The figures of the trials on a corpus."""
        assert self.report.tuning is not None, "the corpus is of a tuning"
        drawn = tuning_plots.figures_of(self.report.tuning, corpus, self.styles)
        return tuple(self.picture(title, svg, words) for title, svg, words in drawn)

    def of_table(self, table: ProtocolTable) -> tuple[Picture, ...]:
        """A figure of the compared metric by cell, and one of differences to the base, if any."""
        metric = self.report.compared.upper()
        figures = table.figures(self.report.compared)
        means, differences = [], []
        for cell, figure in figures.items():
            estimate, style = figure.estimate, self.styles[cell]
            means.append(Dot(cell, estimate.mean, estimate.low, estimate.high, style))
            if (comparison := figure.comparison) is not None:
                low, high = comparison.low, comparison.high
                dot = Dot(cell + figure.mark, comparison.difference, low, high, style)
                differences.append(dot)
        title = f"{metric} by cell, with 95 % intervals"
        pictures = [
            self.picture(title, plots.dots_svg(means, metric), dots_text(means)),
        ]
        if differences:
            title = f"Difference to {self.report.base} (95 % intervals, before correction)"
            svg = plots.dots_svg(differences, f"{metric} minus the base's", zero=True)
            pictures.append(self.picture(title, svg, dots_text(differences)))
        return tuple(pictures)

    def of_slicing(self, slicing: Slicing) -> Picture:
        """A figure of the compared metric by cell, in each bucket (range) of held-out items."""
        metric = self.report.compared.upper()
        values = "; ".join(
            f"{bucket.label}: {', '.join(f'{c} {e.mean:.4f}' for c, e in bucket.estimates.items())}"
            for bucket in slicing.buckets
        )
        return self.picture(
            f"{metric} by {slicing.by}", plots.slices_svg(slicing, metric, self.styles), values
        )

    def of_panel(self, panel: Panel) -> Picture:
        """A figure of one quantity's learning curves."""
        stage = f"stage {panel.stage}" if panel.stage else "last stage"
        last_values = ", ".join(
            f"{curve.cell} ends at {curve.mean[-1]:.4g} after {curve.steps[-1]:.0f} steps"
            for curve in panel.curves
        )
        svg = plots.panel_svg(panel, self.styles)
        return self.picture(f"{panel.quantity}, {stage}", svg, last_values)

    def of_cosines(self, cosines: Cosines) -> Picture:
        """A heat map of the gradient cosines of one cell's stage."""
        names = cosines.objectives
        pairs = [
            f"{names[row]} and {names[column]} {value:+.2f}"
            for row, entries in enumerate(cosines.matrix)
            for column, value in enumerate(entries)
            if column > row and value is not None
        ]
        title = f"{cosines.cell}, stage {cosines.stage} ({cosines.measurements} measured steps)"
        return self.picture(title, plots.heat_svg(cosines), ", ".join(pairs))

    def picture(self, title: str, svg: str, description: str) -> Picture:
        """The figure with ids that no other one of the page has; see `picture_of`."""
        self.drawn += 1
        return picture_of(title, svg, description, f"f{self.drawn}")


def picture_of(title: str, svg: str, description: str, prefix: str) -> Picture:
    """The figure, with `prefix` before its ids and `description` as label for screen readers."""
    opening = Markup('<svg role="img" aria-label="{}"').format(f"{title}. {description}")
    body = plots.with_id_prefix(svg, prefix).removeprefix("<svg")
    return Picture(title, opening + Markup(body))


def dots_text(dots: list[Dot]) -> str:
    """Labels, values and intervals of dots as text."""
    return "; ".join(
        f"{dot.label} {dot.value:.4f} ({dot.low:.4f} to {dot.high:.4f})" for dot in dots
    )


def thousands(number: float | None) -> str:
    """A count with commas as thousands separators; empty for None."""
    return "" if number is None else f"{number:,.0f}"


def minus(text: str) -> str:
    """The text with hyphens replaced by the minus sign, which is as wide as a plus."""
    return text.replace("-", "−")
