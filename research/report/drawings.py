"""The figures of a report: what each shows, its name, and how it is drawn.

The page embeds them, `files.py` saves them beside it, and `report --figure NAME` writes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure as Canvas

from research.report import plots
from research.report.formatting import gap_of, panel_title
from research.report.names import numbered, slug, whole_name
from research.report.plots import Dot, Style
from research.report.schema import (
    Axis,
    CorpusPart,
    Cosines,
    Figure,
    Interaction,
    Panel,
    ProtocolTable,
    Report,
    Slicing,
)
from research.report.tuning import TunedCorpus, TunedRow, budget_words, importance_words
from research.report.tuning_plots import budget_figure, importances_figure


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    name: str
    """Its name within a corpus and that of its file, such as `metric` or `curve-val-ndcg-10`."""
    title: str
    description: str
    """Its values in words, for screen readers."""
    draw: Callable[[bool], Canvas]
    """Draws it; True: with a legend of its own if it needs one, for a figure that stands alone."""
    saved: bool = True
    """Whether it is saved beside the page; learning curves are, over steps alone."""


@dataclass(frozen=True)
class CorpusDrawings:
    """The figures of one corpus, in the page's order."""

    tables: tuple[tuple[Drawing, ...], ...]
    """For each table the means by cell, the differences where something is compared, and
    validation against test where both are known."""
    effects: tuple[tuple[Drawing, ...], ...]
    """For each table a figure of its effects, and one for each two factors."""
    slices: tuple[tuple[Drawing, ...], ...]
    """For each table one figure for each slicing."""
    curves: Mapping[Axis, tuple[Drawing, ...]]
    """Validation and losses, by the axis that they are drawn over."""
    more_curves: Mapping[Axis, tuple[Drawing, ...]]
    """Accuracies and learning rates."""
    cosines: tuple[Drawing, ...]
    tuning: tuple[Drawing, ...] = ()
    """How the cells were tuned, which the page shows at its end."""

    def __iter__(self) -> Iterator[Drawing]:
        """All figures, each once."""
        for group in (*self.tables, *self.effects, *self.slices, *self.curves.values()):
            yield from group
        for group in (*self.more_curves.values(), self.cosines, self.tuning):
            yield from group


def drawings_of(report: Report, corpus: CorpusPart) -> CorpusDrawings:
    """All figures of a corpus."""
    styles = plots.styles_of(report.cells)
    taken: Counter[str] = Counter()

    def unique(drawing: Drawing) -> Drawing:
        """The drawing under a name that no other one has, as names of cells may differ in signs."""
        taken[drawing.name] += 1
        count = taken[drawing.name]
        return drawing if count == 1 else replace(drawing, name=f"{drawing.name}-{count}")

    curves: dict[Axis, tuple[Drawing, ...]] = {}
    more_curves: dict[Axis, tuple[Drawing, ...]] = {}
    for panel in corpus.panels:
        first = panel.quantity.startswith(("val/", "loss/"))
        target = curves if first else more_curves
        target[panel.axis] = (
            *target.get(panel.axis, ()),
            unique(panel_drawing(panel, styles)),
        )
    return CorpusDrawings(
        tables=tuple(
            table_drawings(report, table, styles, numbered("", number))
            for number, table in enumerate(corpus.tables, 1)
        ),
        effects=tuple(
            tuple(map(unique, factorial_drawings(report, table, number)))
            for number, table in enumerate(corpus.tables, 1)
        ),
        slices=tuple(
            tuple(
                unique(slicing_drawing(report, slicing, styles, number))
                for slicing in table.slicings
                if slicing.buckets
            )
            for number, table in enumerate(corpus.tables, 1)
        ),
        curves=curves,
        more_curves=more_curves,
        cosines=tuple(unique(cosines_drawing(part)) for part in corpus.cosines),
        tuning=tuple(
            unique(drawing)
            for tuned in (() if report.tuning is None else report.tuning.corpora)
            if tuned.name == corpus.name
            for drawing in tuning_drawings(report, tuned)
        ),
    )


def find_drawing(report: Report, name: str) -> Drawing:
    """The figure named `CORPUS/FIGURE`, or `FIGURE` where the study has one corpus.

    Raises `InputError` for a name that the report has not, with those that it has.
    """
    drawings = {
        f"{corpus.name}/{drawing.name}": drawing
        for corpus in report.corpora
        for drawing in drawings_of(report, corpus)
    }
    return drawings[whole_name(report, name, drawings, "figure")]


def tuning_drawings(report: Report, corpus: TunedCorpus) -> tuple[Drawing, ...]:
    """The figures of the trials on a corpus: budget curves, then importances by cell."""
    tuning, styles = report.tuning, plots.styles_of(report.cells)
    assert tuning is not None, "the corpus is of a tuning"
    drawn = [row for row in corpus.rows if row.budget]
    drawings = []
    if drawn:
        drawings.append(
            Drawing(
                name="tuning",
                title=f"Best validation {tuning.metric.upper()} after n trials",
                description="; ".join(
                    f"{row.cell}: {budget_words(row, tuning.trials)}" for row in drawn
                ),
                draw=lambda alone: budget_figure(tuning, drawn, styles, legend=alone),
            )
        )
    for row in corpus.rows:
        if row.importances:
            drawings.append(
                Drawing(
                    name=f"importance-{slug(row.cell)}",
                    title=f"Importance of parameters, {row.cell}",
                    description=importance_words(row),
                    draw=partial(_importances, row, styles[row.cell]),
                )
            )
    return tuple(drawings)


def _importances(row: TunedRow, style: Style, alone: bool) -> Canvas:
    return importances_figure(row, style)


def table_drawings(
    report: Report, table: ProtocolTable, styles: Mapping[str, Style], suffix: str
) -> tuple[Drawing, ...]:
    """The figures of a table: means, differences to the base, validation against test."""
    metric = report.compared.upper()
    means, differences = [], []
    base = table.figures(report.compared).get(report.base)
    for cell, figure in table.figures(report.compared).items():
        estimate, style = figure.estimate, styles[cell]
        seeds = tuple(figure.by_seed.values())
        means.append(Dot(cell, estimate.mean, estimate.low, estimate.high, style, seeds))
        if (comparison := figure.comparison) is not None:
            low, high = comparison.low, comparison.high
            seeds = () if base is None else differences_by_seed(figure, base, comparison.seeds)
            dot = Dot(cell + figure.mark, comparison.difference, low, high, style, seeds)
            differences.append(dot)
    rings = ", a ring for each seed" if any(len(dot.seeds) > 1 for dot in means) else ""
    drawings = [
        Drawing(
            f"metric{suffix}",
            f"{metric} by cell, with 95 % intervals{rings}",
            dots_text(means),
            lambda legend: plots.dots_figure(means, f"{metric} ({report.part})"),
        )
    ]
    if differences:
        drawings.append(
            Drawing(
                f"difference{suffix}",
                f"Difference to {report.base} (95 % intervals, before correction)",
                dots_text(differences),
                lambda legend: plots.dots_figure(
                    differences, f"{metric} minus the base's ({report.part})", zero=True
                ),
            )
        )
    if table.gaps:
        drawings.append(
            Drawing(
                f"gap{suffix}",
                f"{metric} on validation and on test",
                "; ".join(
                    f"{gap.cell} {gap.validation.mean:.4f} on validation, {gap.test.mean:.4f} on "
                    f"test, {gap_of(gap)}"
                    for gap in table.gaps
                ),
                lambda legend: plots.gap_figure(table.gaps, metric, styles),
            )
        )
    return tuple(drawings)


def differences_by_seed(figure: Figure, base: Figure, compared: int) -> tuple[float, ...]:
    """The differences to the base of the seeds that both have; a counting ranker stands for all.

    Empty where these are not the `compared` seeds of the comparison, as where a trained side has
    one seed so far.
    """
    ours, theirs = dict(figure.by_seed), dict(base.by_seed)
    if len(theirs) == 1:
        theirs = dict.fromkeys(ours, next(iter(theirs.values())))
    elif len(ours) == 1:
        ours = dict.fromkeys(theirs, next(iter(ours.values())))
    found = tuple(value - theirs[seed] for seed, value in ours.items() if seed in theirs)
    return found if len(found) == compared else ()


def factorial_drawings(report: Report, table: ProtocolTable, number: int) -> tuple[Drawing, ...]:
    """A figure of the effects on the compared metric, and one for each two factors."""
    if table.factorial is None:
        return ()
    metric, drawings = report.compared.upper(), []
    effects = table.factorial.effects[report.compared]
    # A factor of two levels has one main effect, which its name alone tells.
    names = Counter(effect.name for effect in effects)
    main, interaction = plots.styles_of(["main", "interaction"]).values()
    dots = [
        Dot(
            (
                effect.name
                if names[effect.name] == 1
                else f"{effect.name}: {', '.join(effect.levels)}"
            )
            + effect.mark,
            effect.comparison.difference,
            effect.comparison.low,
            effect.comparison.high,
            main if len(effect.factors) == 1 else interaction,
        )
        for effect in effects
        if effect.comparison is not None
    ]
    if dots:
        drawings.append(
            Drawing(
                numbered("effects", number),
                "Effects of the factors (95 % intervals, before correction)",
                dots_text(dots),
                lambda legend: plots.dots_figure(dots, f"difference in {metric}", zero=True),
            )
        )
    return (
        *drawings,
        *(interaction_drawing(part, metric) for part in table.factorial.interactions),
    )


def interaction_drawing(interaction: Interaction, metric: str) -> Drawing:
    """Means by the levels of one factor, with a line for each level of another."""
    values = "; ".join(
        f"{interaction.lines} {level}: "
        + ", ".join(
            f"{interaction.along} {place} "
            + ("missing" if estimate is None else f"{estimate.mean:.4f}")
            for place, estimate in estimates.items()
        )
        for level, estimates in interaction.estimates.items()
    )
    return Drawing(
        f"interaction-{slug(interaction.along)}-{slug(interaction.lines)}",
        f"{metric} by {interaction.along} and {interaction.lines}, with 95 % intervals",
        values,
        lambda legend: plots.interaction_figure(interaction, metric),
    )


def slicing_drawing(
    report: Report, slicing: Slicing, styles: Mapping[str, Style], number: int
) -> Drawing:
    """The compared metric by cell, in each bucket (range) of held-out items of table `number`."""
    metric = report.compared.upper()
    values = "; ".join(
        f"{bucket.label}: {', '.join(f'{c} {e.mean:.4f}' for c, e in bucket.estimates.items())}"
        for bucket in slicing.buckets
    )
    return Drawing(
        numbered(f"slices-{slug(slicing.by)}", number),
        f"{metric} by {slicing.by}",
        values,
        lambda legend: plots.slices_figure(slicing, metric, styles, legend=legend),
    )


def panel_drawing(panel: Panel, styles: Mapping[str, Style]) -> Drawing:
    """One quantity's learning curves."""
    last_values = ", ".join(
        f"{curve.cell} ends at {curve.mean[-1]:.4g} after {curve.progress[-1]:,.0f} {panel.axis}"
        for curve in panel.curves
    )
    axis = "" if panel.axis == "steps" else f"-{panel.axis}"
    return Drawing(
        f"curve-{slug('-'.join(panel.stages))}-{slug(panel.quantity)}{axis}",
        panel_title(panel),
        last_values,
        lambda legend: plots.panel_figure(panel, styles, legend=legend),
        saved=panel.axis == "steps",
    )


def cosines_drawing(cosines: Cosines) -> Drawing:
    """A heat map of the gradient cosines of one cell's stage."""
    names = cosines.objectives
    pairs = [
        f"{names[row]} and {names[column]} {value:+.2f}"
        for row, entries in enumerate(cosines.matrix)
        for column, value in enumerate(entries)
        if column > row and value is not None
    ]
    return Drawing(
        f"cosines-{slug(cosines.cell)}-{slug(cosines.stage)}",
        f"{cosines.cell}, stage {cosines.stage} ({cosines.measurements} measured steps)",
        ", ".join(pairs),
        lambda legend: plots.heat_figure(cosines),
    )


def dots_text(dots: list[Dot]) -> str:
    """Labels, values and intervals of dots as text."""
    return "; ".join(
        f"{dot.label} {dot.value:.4f} ({dot.low:.4f} to {dot.high:.4f})" for dot in dots
    )
