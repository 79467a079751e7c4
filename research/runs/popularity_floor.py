"""The comparison of a trained run to popularity, the floor that its figures must exceed.

Where the split is at points in time, popularity of the last days of training is a second floor: it
is above transformers on some data (ML-20M in Tikhonovich et al. 2025, "eSASRec", arXiv 2508.06450).
`finish.py` writes both into summary.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from research.data.splits import TEMPORAL
from research.data.time_units import units_of_a_second
from research.evaluation.candidates import CandidateSet
from research.evaluation.metrics import metrics, of_ranks
from research.evaluation.popularity import Popularity, counts_of_last_days
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import compare
from research.runs.config import RunConfig
from research.runs.parts import RunParts
from research.storage.evaluation_records import FloorRecord

RESAMPLES = 1000
# Days of the second floor, those of the published baseline Pop-7-days.
RECENT_DAYS = 7
NO_DAYS = (
    f"popularity of the last {RECENT_DAYS} days was not ranked beside the run: the times of the "
    "corpus are no seconds since 1970, and have no days"
)


def popularity_floors(
    run_parts: RunParts, tables: Mapping[str, RankTable], sets: Sequence[CandidateSet]
) -> tuple[FloorRecord | None, FloorRecord | None, tuple[str, ...]]:
    """Metrics on the test part of (popularity, popularity of the last days of training), with the
    run's paired difference from each; and notes on what was not ranked.

    `tables` are the run's, by candidate set, as `sets` are; the difference is under the first of
    them. None: the run only counts, leaves its test alone, or the test has a single user; the
    second also where the split is not at points in time, as training then ends after many tests, or
    where times have no days. Special tokens that compete in the run's full ranking do not in
    popularity's, as they have no counts.
    """
    if not (run_parts.config.stages and tables) or run_parts.num_test_users < 2:
        return None, None, ()
    floor = _floor(run_parts, tables, sets, run_parts.catalogue.training.counts_V, None)
    if not has_recent_floor(run_parts):
        at_points_in_time = isinstance(run_parts.config.split, TEMPORAL)
        return floor, None, (NO_DAYS,) if at_points_in_time else ()
    counts_V = counts_of_last_days(run_parts.events, run_parts.split.training, RECENT_DAYS)
    return floor, _floor(run_parts, tables, sets, counts_V, RECENT_DAYS), ()


def has_recent_floor(run_parts: RunParts) -> bool:
    """Whether the last days of training are ranked by too: the split is at points in time, in times
    that have days."""
    times = run_parts.events.timestamps
    if times is None or not isinstance(run_parts.config.split, TEMPORAL):
        return False
    return units_of_a_second(int(times.max())) is not None


def _floor(
    run_parts: RunParts,
    tables: Mapping[str, RankTable],
    sets: Sequence[CandidateSet],
    counts_V: Tensor,
    newest_days: int | None,
) -> FloorRecord:
    """The metrics of a ranking by `counts_V` [V], and the run's difference from them."""
    config, name = run_parts.config, next(iter(tables))
    popularity_tables = run_parts.tables(Popularity(counts_V), "test", sets)
    names, ties = of_ranks(config.evaluation.metrics), config.evaluation.ties
    metric = deciding_metric(config)
    run_table = tables[name]
    popularity_table = replace(popularity_tables[name], protocol=run_table.protocol)
    comparison = compare([run_table], [popularity_table], metric, ties=ties, resamples=RESAMPLES)
    return FloorRecord(
        newest_days=newest_days,
        test={
            set_name: metrics(table, names, ties) for set_name, table in popularity_tables.items()
        },
        candidates=name,
        metric=metric,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
    )


def deciding_metric(config: RunConfig) -> str:
    """The metric by which a run is compared to popularity.

    It is the one that the last stage selects by, or else the first of ranks that the run reports.
    """
    rule = config.stages[-1].validation
    return of_ranks(config.evaluation.metrics)[0] if rule is None else rule.metric
