"""The compared metric on parts of a table's held-out items: by popularity, by history length.

The limits of the parts are fixed, so that slices of two studies can be compared. A user with
several held-out items counts in each part with the items that belong to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import estimate
from research.evaluation.ties import TiePolicy
from research.report.schema import Bucket, Slicing

# The lowest value of each bucket, which ends where the next begins; the last has no upper limit.
COUNTS = (0, 1, 5, 20, 100, 500)
LENGTHS = (0, 5, 10, 20, 50, 100, 200)
RESAMPLES = 1000


def slicings(
    tables: Mapping[str, Sequence[RankTable]], metric: str, ties: TiePolicy
) -> tuple[Slicing, ...]:
    """The metric by training interactions of the held-out item, and by history length.

    `tables` has the rank tables by cell, one for each seed; all answer the same questions.
    """
    return (
        _slicing("training interactions of the item", tables, metric, ties, COUNTS, _counts),
        _slicing("items in the history", tables, metric, ties, LENGTHS, _lengths),
    )


def part_of(table: RankTable, selected: NDArray[np.bool_]) -> RankTable:
    """The rank table with only the held-out items where `selected` (bool [Q]) is true."""
    return replace(
        table,
        user=table.user[selected],
        item=table.item[selected],
        rank=table.rank[selected],
        ties=table.ties[selected],
        history_length=table.history_length[selected],
        item_count=table.item_count[selected],
    )


def label_of(starts: Sequence[int], index: int) -> str:
    """A bucket's limits as text, such as `5–19`; a bucket of zeros alone is `0 (cold)`."""
    start, end = starts[index], starts[index + 1] if index + 1 < len(starts) else None
    if start == 0 and end == 1:
        return "0 (cold)"
    return f"{start}+" if end is None else f"{start}–{end - 1}"


def _slicing(
    by: str,
    tables: Mapping[str, Sequence[RankTable]],
    metric: str,
    ties: TiePolicy,
    starts: Sequence[int],
    column: Callable[[RankTable], NDArray[np.int32]],
) -> Slicing:
    def buckets_of(table: RankTable) -> NDArray[np.intp]:
        return np.searchsorted(starts, column(table), side="right") - 1

    buckets, left_out = [], 0
    first = next(iter(tables.values()))[0]
    buckets_of_first = buckets_of(first)
    for bucket in np.unique(buckets_of_first[buckets_of_first >= 0]).tolist():
        in_bucket = buckets_of_first == bucket
        users = len(np.unique(first.user[in_bucket]))
        if users < 2:
            left_out += int(in_bucket.sum())
            continue
        estimates = {
            cell: estimate(
                [part_of(table, buckets_of(table) == bucket) for table in tables_of_cell],
                metric,
                ties=ties,
                resamples=RESAMPLES,
            )
            for cell, tables_of_cell in tables.items()
        }
        buckets.append(Bucket(label_of(starts, bucket), int(in_bucket.sum()), users, estimates))
    return Slicing(by, tuple(buckets), left_out)


def _counts(table: RankTable) -> NDArray[np.int32]:
    return table.item_count


def _lengths(table: RankTable) -> NDArray[np.int32]:
    return table.history_length
