"""report.csv: all figures of a report, one row for each corpus, protocol, cell and metric."""

from __future__ import annotations

import pandas as pd

from research.report.schema import CorpusPart, Figure, ProtocolTable, Report, Row


def frame_of(report: Report) -> pd.DataFrame:
    """The report's figures at full precision; a value that does not exist is missing.

    `candidates`, `seen`, `split` and `ties` name the protocol; rows that differ in any of them are
    not comparable. `place` counts from the cell that is best by this metric on validation, and
    `validation` is that metric there. Differences are the cell minus `base`; `p_corrected` is p
    after Holm's correction over the cells of a table, for each metric apart. `p_no_worse` and
    `p_equivalent` are those of the tests within `margin`, corrected likewise. Costs are means over
    the finished runs of a cell.
    """
    return pd.DataFrame(
        [
            {
                "study": report.name,
                "corpus": corpus.name,
                **protocol_columns(table),
                "ties": report.ties,
                "cell": row.cell,
                "base": report.base,
                "metric": metric,
                "compared": metric == report.compared,
                **figure_columns(row.figures[metric]),
                **cost_columns(corpus, row),
            }
            for corpus in report.corpora
            for table in corpus.tables
            for row in table.rows
            for metric in report.metrics
        ]
    )


def protocol_columns(table: ProtocolTable) -> dict[str, object]:
    """The columns that tell one protocol from another, as text."""
    split = table.protocol.get("split")
    kind = str(split.get("class")) if isinstance(split, dict) else str(split)
    return {
        "fingerprint": str(table.protocol.get("fingerprint")),
        "split": kind.rpartition(":")[2],
        "part": str(table.protocol.get("part")),
        "candidates": table.candidates,
        "seen": str(table.protocol.get("seen")),
    }


def figure_columns(figure: Figure) -> dict[str, object]:
    """The columns of a figure: mean, confidence interval, and comparison to the base."""
    estimate, comparison = figure.estimate, figure.comparison
    columns: dict[str, object] = {
        "mean": estimate.mean,
        "sd": estimate.deviation,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": estimate.seeds,
        "users": estimate.users,
        "place": figure.place,
        "validation": figure.validation,
        "difference": None,
        "difference_low": None,
        "difference_high": None,
        "p": None,
        "p_corrected": figure.corrected,
        "significant": figure.significant,
        "effect": None,
        "smallest": None,
        "compared_seeds": None,
        "margin": None,
        "p_no_worse": None,
        "p_equivalent": None,
    }
    if comparison is not None:
        columns |= {
            "difference": comparison.difference,
            "difference_low": comparison.low,
            "difference_high": comparison.high,
            "p": comparison.p,
            "effect": comparison.effect,
            "smallest": comparison.smallest,
            "compared_seeds": comparison.seeds,
        }
    if (test := figure.margin_test) is not None:
        columns |= {
            "margin": test.margin,
            "p_no_worse": test.no_worse,
            "p_equivalent": test.equivalent,
        }
    return columns


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
