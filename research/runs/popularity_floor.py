"""A trained run beside popularity, the floor under all of its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from research.evaluation.candidates import CandidateSet
from research.evaluation.metrics import metrics
from research.evaluation.popularity import Popularity
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import compare
from research.runs.config import RunConfig
from research.runs.parts import Workbench
from research.storage.records import FloorRecord

RESAMPLES = 1000


def beside_popularity(
    bench: Workbench, tables: Mapping[str, RankTable], sets: Sequence[CandidateSet]
) -> FloorRecord | None:
    """Popularity's figures on the test part, and whether the run is above it under `tables`' first.

    None for what there is no comparison of: a run that only counts, a test of one user. Special
    classes that compete in the run's ranking have no counts, and do not in popularity's.
    """
    config, name = bench.config, next(iter(tables))
    if not config.stages or bench.num_test_users < 2:
        return None
    counted = bench.tables(Popularity(bench.catalogue.training.counts_V), "test", sets)
    names, ties = config.evaluation.metrics, config.evaluation.ties
    decides = deciding_metric(config)
    own, base = tables[name], replace(counted[name], protocol=tables[name].protocol)
    comparison = compare([own], [base], decides, ties=ties, resamples=RESAMPLES)
    return FloorRecord(
        test={part: metrics(table, names, ties) for part, table in counted.items()},
        candidates=name,
        metric=decides,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
    )


def deciding_metric(config: RunConfig) -> str:
    """By which metric a run is held against popularity: what its last stage selects by, if any."""
    rule = config.stages[-1].validation
    return config.evaluation.metrics[0] if rule is None else rule.metric
