"""report.html: a single page that loads nothing from elsewhere, for a desktop, a phone and paper.

The template (page.html, with style.css) escapes all text that it is given. Figures are inline SVG
from `plots`, in which matplotlib has escaped the text. The page has no script, and its content
security policy forbids every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from research.report import formatting as words
from research.report import plots, tuning
from research.report.drawings import CorpusDrawings, Drawing, drawings_of, tuning_drawings
from research.report.names import STEMS
from research.report.schema import Axis, Report
from research.storage.untrusted import short_text

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    title: str
    svg: Markup
    """The figure, with its values as an `aria-label` for screen readers."""


@dataclass(frozen=True)
class CorpusPictures:
    """The figures of one corpus; see `CorpusDrawings`."""

    tables: tuple[tuple[Picture, ...], ...]
    effects: tuple[tuple[Picture, ...], ...]
    slices: tuple[tuple[Picture, ...], ...]
    curves: Mapping[Axis, tuple[Picture, ...]]
    more_curves: Mapping[Axis, tuple[Picture, ...]]
    cosines: tuple[Picture, ...]


def page_of(report: Report) -> str:
    """The whole page as HTML text."""
    gallery = Gallery()
    # Figures are drawn in the page's order, so that their ids are the same in every build.
    pictures = {
        corpus.name: gallery.of_corpus(drawings_of(report, corpus)) for corpus in report.corpora
    }
    tuned = () if report.tuning is None else report.tuning.corpora
    return template("page.html").render(
        report=report,
        styles=plots.styles_of(report.cells),
        marker_paths=MARKER_PATHS,
        axis_labels=plots.AXIS_LABELS,
        pictures=pictures,
        tuning_pictures=[gallery.pictures(tuning_drawings(report, corpus)) for corpus in tuned],
        tuning_words=tuning,
        words=words,
        figures_folder=f"{STEMS[report.part]}-figures",
    )


def template(name: str, folder: Path = FOLDER) -> Template:
    """A template of `folder`, which escapes all text that it is given.

    It may include what stands beside it, and style.css.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = thousands
    environment.filters["short"] = short_text
    environment.filters["minus"] = minus
    environment.filters["breakable"] = breakable
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


class Gallery:
    """Draws the figures of a page; ids in the SVG are unique over all of them."""

    def __init__(self) -> None:
        self.drawn = 0

    def of_corpus(self, drawings: CorpusDrawings) -> CorpusPictures:
        """All figures of a corpus, in the page's order."""
        return CorpusPictures(
            tables=tuple(map(self.pictures, drawings.tables)),
            effects=tuple(map(self.pictures, drawings.effects)),
            slices=tuple(map(self.pictures, drawings.slices)),
            curves={axis: self.pictures(group) for axis, group in drawings.curves.items()},
            more_curves={
                axis: self.pictures(group) for axis, group in drawings.more_curves.items()
            },
            cosines=self.pictures(drawings.cosines),
        )

    def pictures(self, drawings: Iterable[Drawing]) -> tuple[Picture, ...]:
        """The figures with ids that no other one of the page has; see `picture_of`."""
        pictures = []
        for drawing in drawings:
            self.drawn += 1
            svg = plots.svg_of(drawing.draw(False))
            pictures.append(picture_of(drawing.title, svg, drawing.description, f"f{self.drawn}"))
        return tuple(pictures)


def picture_of(title: str, svg: str, description: str, prefix: str) -> Picture:
    """The figure, with `prefix` before its ids and `description` as label for screen readers."""
    opening = Markup('<svg role="img" aria-label="{}"').format(f"{title}. {description}")
    body = plots.with_id_prefix(svg, prefix).removeprefix("<svg")
    return Picture(title, opening + Markup(body))


def thousands(number: float | None) -> str:
    """A count with commas as thousands separators; empty for None."""
    return "" if number is None else f"{number:,.0f}"


def minus(text: str) -> str:
    """The text with hyphens replaced by the minus sign, which is as wide as a plus."""
    return text.replace("-", "−")


# After the signs that join words in names, and before a capital within one. A decimal point is
# followed by a digit.
BREAKS = re.compile(r"(?<=[-_/,=+:])(?=\w)|(?<=\.)(?=[^\W\d])|(?<=[a-z])(?=[A-Z])")


def breakable(text: str) -> Markup:
    """The escaped text, in which a line may break where the words of a name meet."""
    return Markup("<wbr>").join(BREAKS.split(text))
