"""A column of a report's table: one metric of all cells, and their comparisons to the base.

`build` has it computed for tables of ranks, `lists` for tables of recommended lists.
"""

from __future__ import annotations

from collections.abc import Mapping

from research.errors import InputError
from research.evaluation.equivalence import MarginTest, compare_within, holm_within
from research.evaluation.list_table import Table
from research.evaluation.metrics import metrics
from research.evaluation.statistics import Comparison, Estimate, compare, estimate, holm
from research.evaluation.ties import TiePolicy
from research.report.effects import COMPARED_RESAMPLES, OTHER_RESAMPLES
from research.report.schema import LEVEL, Figure
from research.report.validation import Validation, mean_of, places_of
from research.storage.records import StudyRecord


def metric_column(
    study: StudyRecord,
    group: Mapping[str, Mapping[int, Table]],
    validation: Validation,
    counting: set[str],
    metric: str,
    corpus: str,
    *,
    ties: TiePolicy,
    margin: float | None,
) -> dict[str, Figure]:
    """One metric by cell: mean, place by validation, and the comparison to the base.

    The p of comparisons are corrected over the cells. Places are of the cells in `validation`. The
    compared metric is also tested within the margin, if there is one. Raises `InputError` when
    a cell's tables cannot be compared with each other or the base's.
    """
    base: Mapping[int, Table] = group.get(study.base, {})
    cells = [cell for cell in study.cells if cell in group]
    pairs = {
        cell: paired_tables(group[cell], base, counts=bool({cell, study.base} & counting))
        for cell in cells
        if cell != study.base
    }
    pairs = {cell: pair for cell, pair in pairs.items() if all(pair)}
    comparisons: dict[str, Comparison] = {}
    estimates: dict[str, Estimate] = {}
    margin_tests: dict[str, MarginTest] = {}
    for cell in cells:
        try:
            estimates[cell] = estimate(list(group[cell].values()), metric, ties=ties)
            if cell in pairs:
                # The level of Holm's first, strictest step, so `smallest` holds for any cell.
                level = LEVEL / len(pairs)
                draws = COMPARED_RESAMPLES if metric == study.compared else OTHER_RESAMPLES
                comparisons[cell] = compare(
                    *pairs[cell], metric, ties=ties, resamples=draws, alpha=level
                )
                if margin is not None and metric == study.compared:
                    margin_tests[cell] = compare_within(*pairs[cell], metric, margin, ties=ties)
        except InputError as error:
            raise InputError(f"{corpus}, {cell} and its base {study.base}: {error}") from error
    corrected = dict(zip(comparisons, holm([result.p for result in comparisons.values()])))
    margin_tests = dict(zip(margin_tests, holm_within(list(margin_tests.values()))))
    means = {cell: mean_of(validation[cell], metric, ties) for cell in cells if cell in validation}
    places = places_of(means)
    return {
        cell: Figure(
            result,
            comparisons.get(cell),
            corrected.get(cell),
            place=places.get(cell),
            validation=means.get(cell),
            by_seed={
                seed: metrics(table, [metric], ties)[metric] for seed, table in group[cell].items()
            },
            margin_test=margin_tests.get(cell),
        )
        for cell, result in estimates.items()
    }


def paired_tables(
    tables: Mapping[int, Table], base: Mapping[int, Table], *, counts: bool
) -> tuple[list[Table], list[Table]]:
    """The tables of a cell and of the base for the seeds that both have; may be empty.

    `counts`: one of the two is a counting ranker, and its one table is compared with every seed of
    the other.
    """
    if counts:
        return list(tables.values()), list(base.values())
    seeds = [seed for seed in tables if seed in base]
    return [tables[seed] for seed in seeds], [base[seed] for seed in seeds]
