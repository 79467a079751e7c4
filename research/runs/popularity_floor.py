"""The comparison of a trained run to popularity, the floor that its figures must exceed.

`finish.py` writes it into summary.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from research.evaluation.candidates import CandidateSet
from research.evaluation.metrics import metrics, of_ranks
from research.evaluation.popularity import Popularity
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import compare
from research.runs.config import RunConfig
from research.runs.parts import RunParts
from research.storage.records import FloorRecord

RESAMPLES = 1000


def popularity_floor(
    run_parts: RunParts, tables: Mapping[str, RankTable], sets: Sequence[CandidateSet]
) -> FloorRecord | None:
    """Popularity's metrics on the test part, and the run's paired difference from them.

    `tables` are the run's, by candidate set, as `sets` are; the difference is under the first of
    them. None: the run only counts, or the test has a single user. Special tokens that compete in
    the run's full ranking do not in popularity's, as they have no counts.
    """
    config, name = run_parts.config, next(iter(tables))
    if not config.stages or run_parts.num_test_users < 2:
        return None
    popularity = Popularity(run_parts.catalogue.training.counts_V)
    popularity_tables = run_parts.tables(popularity, "test", sets)
    names, ties = of_ranks(config.evaluation.metrics), config.evaluation.ties
    metric = deciding_metric(config)
    run_table = tables[name]
    popularity_table = replace(popularity_tables[name], protocol=run_table.protocol)
    comparison = compare([run_table], [popularity_table], metric, ties=ties, resamples=RESAMPLES)
    return FloorRecord(
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
