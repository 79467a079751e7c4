"""What a report says by validation: which cell is best, and how validation and test differ.

Cells are ranked by validation in every table, in one of test figures too: who picks the cell with
the best test figure has fitted to the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from research.errors import InputError
from research.evaluation.metrics import metrics
from research.evaluation.protocol import check_comparable
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import Estimate, estimate
from research.evaluation.ties import TiePolicy
from research.report.caveats import Group
from research.report.records import StudyRun
from research.report.schema import Gap, Part, ProtocolTable
from research.storage.untrusted import printable

# By cell, the rank tables of the validation part, one for each seed that has one.
Validation = Mapping[str, Sequence[RankTable]]


def validation_of(runs: Iterable[StudyRun], group: Group) -> Validation:
    """The validation tables of the cells and seeds in a group of rank tables.

    A cell without one has no entry, nor has one that lacks a seed of another cell: means over other
    seeds would be compared. A counting ranker has one table for all seeds. Empty where the cells
    were validated differently, as then none can be called the best.
    """
    tables: dict[str, list[RankTable]] = {}
    seeds: dict[str, set[int]] = {}
    counting = set()
    for run in runs:
        if run.validation is not None and run.seed in group.get(run.cell, {}):
            tables.setdefault(run.cell, []).append(run.validation)
            seeds.setdefault(run.cell, set()).add(run.seed)
            counting |= {run.cell} if run.counts_only else set()
    every = set().union(*(found for cell, found in seeds.items() if cell not in counting))
    whole = {
        cell: of_cell
        for cell, of_cell in tables.items()
        if cell in counting or seeds[cell] == every
    }
    return whole if _are_comparable(whole) else {}


def validation_notes(
    runs: Iterable[StudyRun], group: Group, validation: Validation, part: Part
) -> list[str]:
    """Notes on cells that validation does not rank, and on what validation figures are for."""
    notes = []
    if part == "validation":
        notes.append(
            "These are validation figures, by which each run also kept its best checkpoint: they "
            "are for choosing, and higher than what to expect of new data. No test figure is used."
        )
    if not validation and any(run.validation is not None for run in runs if run.cell in group):
        notes.append("No cell is called the best: they were validated under different protocols.")
    without = [printable(cell) for cell in group if validation and cell not in validation]
    if without:
        notes.append(
            f"Not ranked by validation, for want of one or of a seed: {', '.join(without)}."
        )
    return notes


def mean_of(tables: Sequence[RankTable], metric: str, ties: TiePolicy) -> float:
    """A metric's mean over rank tables, one for each seed, and their users."""
    return sum(metrics(table, [metric], ties)[metric] for table in tables) / len(tables)


def places_of(means: Mapping[str, float]) -> dict[str, int]:
    """By cell 1 for the highest mean, 2 for the next; equal means share a place.

    Empty for a single cell, which is not the best of anything.
    """
    if len(means) < 2:
        return {}
    return {cell: 1 + sum(other > mean for other in means.values()) for cell, mean in means.items()}


def best_by_validation(table: ProtocolTable, metric: str) -> tuple[str, float] | None:
    """The cell of a table with the best mean on validation, and that mean.

    None: fewer than two cells have a validation, so none can be called the best.
    """
    values = {
        cell: figure.validation
        for cell, figure in table.figures(metric).items()
        if figure.validation is not None
    }
    if len(values) < 2:
        return None
    best = max(values, key=values.__getitem__)
    return best, values[best]


def gaps_of(
    validation: Validation, test: Mapping[str, Estimate], metric: str, ties: TiePolicy
) -> tuple[Gap, ...]:
    """Validation against test for each cell that has both; `test` are estimates by cell."""
    return tuple(
        Gap(printable(cell), estimate(validation[cell], metric, ties=ties), on_test)
        for cell, on_test in test.items()
        if cell in validation
    )


def _are_comparable(tables: Validation) -> bool:
    """Whether all tables answer the same questions under the same protocol."""
    every = [table for of_cell in tables.values() for table in of_cell]
    try:
        for table in every:
            check_comparable(every[0], table)
    except InputError:
        return False
    return True
