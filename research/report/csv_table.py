"""report.csv: all figures of a report, one row for each corpus, protocol, cell and metric."""

from __future__ import annotations

import pandas as pd

from research.evaluation.statistics import Comparison
from research.report.schema import CorpusPart, Figure, ListsTable, ProtocolTable, Report, Row


def frame_of(report: Report) -> pd.DataFrame:
    """The report's figures at full precision; a value that does not exist is missing.

    `candidates` ("lists" for metrics of recommended lists), `seen`, `split` and `ties` name the
    protocol; rows that differ in any of them are not comparable. `place` counts from the cell that
    is best by this metric on validation, and `validation` is that metric there. Differences are the
    cell minus `base`; `p_corrected` is p after Holm's correction over the cells of a table, for
    each metric apart. `p_no_worse` and `p_equivalent` are those of the tests within `margin`,
    corrected likewise. Costs are means over the finished runs of a cell.
    """
    return pd.DataFrame(
        [
            {
                "study": report.name,
                "corpus": corpus.name,
                **protocol_columns(table),
                "ties": report.ties,
                "cell": row.cell,
                **{f"factor_{name}": row.levels.get(name) for name in report.factors},
                "base": report.base,
                "metric": metric,
                "compared": metric == report.compared,
                **figure_columns(row.figures[metric]),
                **cost_columns(corpus, row),
            }
            for corpus in report.corpora
            for table in corpus.all_tables
            for row in table.rows
            for metric in row.figures
        ]
    )


def effects_frame_of(report: Report) -> pd.DataFrame:
    """The effects of factors: a row for each corpus, protocol, effect and metric; may be empty.

    Columns are as in `frame_of`; `p_corrected` is corrected over the effects of a table. Of an
    effect that cannot be estimated, `obstacle` says why.
    """
    return pd.DataFrame(
        [
            {
                "study": report.name,
                "corpus": corpus.name,
                **protocol_columns(table),
                "ties": report.ties,
                "kind": "main" if len(effect.factors) == 1 else "interaction",
                "factors": effect.name,
                "levels": effect.contrast,
                "metric": metric,
                "compared": metric == report.compared,
                **comparison_columns(effect.comparison),
                "p_corrected": effect.corrected,
                "significant": effect.significant,
                "obstacle": effect.obstacle,
            }
            for corpus in report.corpora
            for table in corpus.tables
            if table.factorial is not None
            for metric in report.metrics
            for effect in table.factorial.effects[metric]
        ]
    )


def slices_of(report: Report) -> pd.DataFrame:
    """The slices of a report at full precision, one row for each bucket and cell.

    `by` says how held-out items are divided, `slice` which of them the row is about, `items` and
    `slice_users` how many they are; mean, low and high are of `metric` on them.
    """
    return pd.DataFrame(
        [
            {
                "study": report.name,
                "corpus": corpus.name,
                **protocol_columns(table),
                "ties": report.ties,
                "metric": report.compared,
                "by": slicing.by,
                "slice": bucket.label,
                "items": bucket.questions,
                "slice_users": bucket.users,
                "cell": cell,
                "mean": estimate.mean,
                "sd": estimate.deviation,
                "low": estimate.low,
                "high": estimate.high,
                "seeds": estimate.seeds,
            }
            for corpus in report.corpora
            for table in corpus.tables
            for slicing in table.slicings
            for bucket in slicing.buckets
            for cell, estimate in bucket.estimates.items()
        ]
    )


def protocol_columns(table: ProtocolTable | ListsTable) -> dict[str, object]:
    """The columns that tell one protocol from another, as text."""
    split = table.protocol.get("split")
    kind = str(split.get("class")) if isinstance(split, dict) else str(split)
    return {
        "fingerprint": str(table.protocol.get("fingerprint")),
        "split": kind.rpartition(":")[2],
        "part": str(table.protocol.get("part")),
        "candidates": table.candidates if isinstance(table, ProtocolTable) else "lists",
        "seen": str(table.protocol.get("seen")),
    }


def figure_columns(figure: Figure) -> dict[str, object]:
    """The columns of a figure: mean, confidence interval, and comparison to the base."""
    estimate = figure.estimate
    test = figure.margin_test
    return {
        "mean": estimate.mean,
        "sd": estimate.deviation,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": estimate.seeds,
        "users": estimate.users,
        "place": figure.place,
        "validation": figure.validation,
        **comparison_columns(figure.comparison),
        "p_corrected": figure.corrected,
        "significant": figure.significant,
        "margin": None if test is None else test.margin,
        "p_no_worse": None if test is None else test.no_worse,
        "p_equivalent": None if test is None else test.equivalent,
    }


def comparison_columns(comparison: Comparison | None) -> dict[str, object]:
    """The columns of a comparison or an effect but for its corrected p; None: without values."""
    names = {"difference": "difference", "difference_low": "low", "difference_high": "high"}
    names |= {"p": "p", "effect": "effect", "smallest": "smallest", "compared_seeds": "seeds"}
    values = {} if comparison is None else vars(comparison)
    return {column: values.get(field) for column, field in names.items()}


def cost_columns(corpus: CorpusPart, row: Row) -> dict[str, object]:
    """The columns of what the row's cell cost."""
    cost = next(cost for cost in corpus.costs if cost.cell == row.cell)
    return {
        "seconds": cost.seconds,
        "shared_seconds": cost.shared_seconds,
        "tokens": cost.items,
        "parameters": cost.parameters,
        "failed": len(cost.failed),
        "missing": len(cost.missing) + len(cost.unfinished),
    }
