"""Main effects and two-way interactions of a study's factors, for one table of its report.

An effect needs the rank tables of all combinations of levels that it averages over, for seeds that
they have in common. Where one is missing the effect is not estimated from the others, as that would
take the missing cell for the sum of what its levels do elsewhere; the reason is reported instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research.evaluation.contrasts import (
    Combination,
    Contrast,
    contrasts_of,
    range_of_sum,
    weighted_sum,
)
from research.evaluation.metrics import of_ranks, range_of
from research.evaluation.resampling import Values
from research.evaluation.statistics import (
    Comparison,
    Estimate,
    comparison_of,
    estimate_of,
    holm,
    user_values,
)
from research.evaluation.ties import TiePolicy
from research.report.caveats import Group
from research.report.records import StudyRun
from research.report.schema import LEVEL, Effect, Factorial, Interaction
from research.storage.records import StudyRecord
from research.storage.untrusted import printable

# Resamples of the sign-flip test: for the compared metric, and for the other metrics.
COMPARED_RESAMPLES, OTHER_RESAMPLES = 10_000, 2_000
# Most cells that a reason names; it counts the others.
MAX_NAMED_CELLS = 3


def factorial_of(
    study: StudyRecord,
    group: Group,
    runs: Sequence[StudyRun],
    *,
    ties: TiePolicy,
    figures: bool,
) -> Factorial | None:
    """The effects of a study's factors in the table of `group`.

    `runs` are all runs of the corpus; they say what became of a cell that the table lacks. None if
    the study crosses no factors, or no cell of theirs is in the table. With `figures`, also what
    interaction plots show. Raises `InputError` when rank tables cannot be compared.
    """
    design = Design.of(study, group, runs)
    if not design.tables:
        return None
    contrasts = contrasts_of(study.factors, design.references)
    obstacles = [design.obstacle(contrast.weights) for contrast in contrasts]
    possible = [contrast for contrast, obstacle in zip(contrasts, obstacles) if not obstacle]
    effects: dict[str, tuple[Effect, ...]] = {}
    interactions: tuple[Interaction, ...] = ()
    for metric in of_ranks(study.metrics):
        values = design.values(metric, ties)
        draws = COMPARED_RESAMPLES if metric == study.compared else OTHER_RESAMPLES
        comparisons = [
            # The level of Holm's first, strictest step, so `smallest` holds for any effect.
            comparison_of(
                design.weighted(values, contrast.weights),
                resamples=draws,
                alpha=LEVEL / len(possible),
                bounds=range_of_sum(contrast.weights.values(), range_of(metric)),
            )
            for contrast in possible
        ]
        effects[metric] = _effects(contrasts, obstacles, comparisons)
        if figures and metric == study.compared:
            bounds = range_of(metric)
            interactions = tuple(_interactions(study.factors, design, values, bounds))
    return Factorial(
        effects, interactions, (*_notes(effects[study.compared]), *design.seed_notes(possible))
    )


# The values of a metric, float64 [U], by cell and seed.
ValuesByRun = Mapping[tuple[str, int], Values]


@dataclass(frozen=True, eq=False)
class Design:
    """Which cell has which combination of levels, and the rank tables that there are of it."""

    cells: Mapping[Combination, str]
    """The cell of each combination that the study has."""
    references: Mapping[str, str]
    """By factor, the level that others are compared with: the base's, or else the first."""
    tables: Group
    """The rank tables of those cells, by cell and seed."""
    runs: Sequence[StudyRun]
    """All runs of the corpus."""

    @classmethod
    def of(cls, study: StudyRecord, group: Group, runs: Sequence[StudyRun]) -> Design:
        """The design in study.json. A cell with a level that its factor does not have is left out.

        Such a cell is the base beside a grid none of whose combinations equals it.
        """
        cells = {
            tuple(levels[factor] for factor in study.factors): cell
            for cell, levels in study.levels.items()
            if all(levels[factor] in names for factor, names in study.factors.items())
        }
        in_base = study.levels.get(study.base, {})
        references = {
            factor: in_base[factor] if in_base.get(factor) in names else names[0]
            for factor, names in study.factors.items()
        }
        tables = {cell: group[cell] for cell in cells.values() if cell in group}
        return cls(cells, references, tables, runs)

    def obstacle(self, combinations: Collection[Combination]) -> str:
        """Why nothing can be said of these combinations together; empty: something can be."""
        unknown = [each for each in combinations if each not in self.cells]
        if unknown:
            names = [
                ",".join(f"{name}={level}" for name, level in zip(self.references, each))
                for each in unknown
            ]
            return f"the study has no cell {_some(names)}"
        cells = [self.cells[each] for each in combinations]
        absent = [f"{cell} {self._fate(cell)}" for cell in cells if cell not in self.tables]
        if absent:
            return _some(absent)
        return "" if self.seeds(combinations) else "their cells have no seed in common"

    def seeds(self, combinations: Collection[Combination]) -> list[int]:
        """The seeds of which every one of these combinations has a rank table, ascending.

        The one table of a counting ranker serves every seed.
        """
        cells = [self.cells[each] for each in combinations]
        trained = [cell for cell in cells if not self._counts(cell)]
        return sorted(set.intersection(*(set(self.tables[cell]) for cell in trained or cells)))

    def values(self, metric: str, ties: TiePolicy) -> ValuesByRun:
        """A metric's values of all rank tables; `InputError` if they cannot be compared."""
        places = [(cell, seed) for cell, tables in self.tables.items() for seed in tables]
        tables = [self.tables[cell][seed] for cell, seed in places]
        return dict(zip(places, user_values(tables, metric, ties)))

    def weighted(self, values: ValuesByRun, weights: Mapping[Combination, float]) -> Values:
        """The weighted sum over combinations for the seeds of all of them, float64 [S, U]."""
        seeds = self.seeds(weights)

        def of_cell(cell: str) -> Values:
            own = list(self.tables[cell])[:1] if self._counts(cell) else seeds
            return np.stack([values[cell, seed] for seed in own])

        return weighted_sum((weight, of_cell(self.cells[each])) for each, weight in weights.items())

    def seed_notes(self, contrasts: Sequence[Contrast]) -> list[str]:
        """A sentence on each set of seeds that lacks some of those that other cells have."""
        trained = [tables for cell, tables in self.tables.items() if not self._counts(cell)]
        every = sorted(set().union(*trained))
        used = {tuple(self.seeds(contrast.weights)) for contrast in contrasts}
        return [
            f"Effects are over the seeds that all their cells have: {', '.join(map(str, seeds))}"
            + (
                "; over users alone, as one seed says nothing of others."
                if len(seeds) == 1
                else "."
            )
            for seeds in sorted(used)
            if trained and list(seeds) != every
        ]

    def _counts(self, cell: str) -> bool:
        return any(run.counts_only for run in self.runs if run.cell == cell)

    def _fate(self, cell: str) -> str:
        """What became of a cell of which the table has nothing, as the end of a sentence."""
        statuses = {run.status for run in self.runs if run.cell == cell}
        if "finished" in statuses:
            return "was evaluated differently"
        if "failed" in statuses:
            return "failed"
        return "has not finished" if "unfinished" in statuses else "has not begun"


def _effects(
    contrasts: Sequence[Contrast], obstacles: Sequence[str], comparisons: Sequence[Comparison]
) -> tuple[Effect, ...]:
    """An effect for each contrast; `comparisons` are those of the contrasts without obstacle."""
    corrected = holm([comparison.p for comparison in comparisons])
    results = iter(zip(comparisons, corrected))
    effects = []
    for contrast, obstacle in zip(contrasts, obstacles):
        comparison, p = (None, None) if obstacle else next(results)
        effects.append(
            Effect(
                factors=tuple(map(printable, contrast.factors)),
                levels=tuple(map(printable, contrast.levels)),
                references=tuple(map(printable, contrast.references)),
                comparison=comparison,
                corrected=p,
                obstacle=printable(obstacle),
            )
        )
    return tuple(effects)


def _interactions(
    factors: Mapping[str, Sequence[str]],
    design: Design,
    values: ValuesByRun,
    bounds: tuple[float, float],
) -> Iterator[Interaction]:
    """For each two factors the means by their levels; the one of more levels is laid along."""
    for pair in itertools.combinations(factors, 2):
        lines, along = sorted(pair, key=lambda factor: len(factors[factor]))
        estimates: dict[str, dict[str, Estimate | None]] = {}
        for line in factors[lines]:
            for place in factors[along]:
                fixed = {lines: (line,), along: (place,)}
                combinations = list(
                    itertools.product(*(fixed.get(name, factors[name]) for name in factors))
                )
                estimate = None
                if not design.obstacle(combinations):
                    weights = dict.fromkeys(combinations, 1.0 / len(combinations))
                    estimate = estimate_of(design.weighted(values, weights), bounds=bounds)
                estimates.setdefault(printable(line), {})[printable(place)] = estimate
        yield Interaction(printable(along), printable(lines), estimates)


def _notes(effects: Sequence[Effect]) -> Iterator[str]:
    """A sentence for each reason for which effects cannot be estimated."""
    by_obstacle: dict[str, list[str]] = {}
    for effect in effects:
        if effect.obstacle:
            by_obstacle.setdefault(effect.obstacle, []).append(f"{effect.name} ({effect.contrast})")
    for obstacle, names in by_obstacle.items():
        what = "every effect" if len(names) == len(effects) else ", ".join(names)
        yield f"Not estimable: {what}, as {obstacle}."


def _some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    shown = list(names[:MAX_NAMED_CELLS])
    if len(names) > MAX_NAMED_CELLS:
        shown.append(f"{len(names) - MAX_NAMED_CELLS} more")
    return ", ".join(shown[:-1]) + f" and {shown[-1]}" if len(shown) > 1 else shown[0]
