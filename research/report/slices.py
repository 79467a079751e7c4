"""The compared metric on parts of a table's held-out items, of which the ranks tell more.

They are divided by how often the item was trained on, by the length of the history, by whether the
item is new, by the time since the history's newest event, and by attributes. The limits of counts
and lengths are fixed, so that slices of two studies can be compared; those of times are quartiles
of the study's own. A user with several held-out items counts in each part with the items that
belong to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import estimate
from research.evaluation.ties import TiePolicy
from research.report.schema import Bucket, Slicing
from research.storage.untrusted import printable

# The lowest value of each bucket, which ends where the next begins; the last has no upper limit.
COUNTS = (0, 1, 5, 20, 100, 500)
LENGTHS = (0, 5, 10, 20, 50, 100, 200)
# Seconds of each unit of time, the largest first.
UNITS = {"years": 365.25 * 86400, "days": 86400.0, "hours": 3600.0, "minutes": 60.0}
RESAMPLES = 1000
# (label, bool [Q]) of each bucket: the held-out items of a table that belong to it.
Parts = Callable[[RankTable], Sequence[tuple[str, NDArray[np.bool_]]]]


@dataclass(frozen=True)
class Division:
    """A way to divide the held-out items of tables that answer the same questions."""

    by: str
    """The quantity by which they are divided, in words."""
    parts: Parts
    always: bool
    """Whether it is shown even when all held-out items are in one bucket."""


def slicings(
    tables: Mapping[str, Sequence[RankTable]], metric: str, ties: TiePolicy
) -> tuple[Slicing, ...]:
    """The metric by training interactions of the held-out item, by history length, and so on.

    `tables` has the rank tables by cell, one for each seed; all answer the same questions.
    """
    all_tables = [table for tables_of_cell in tables.values() for table in tables_of_cell]
    slices = [_slicing(division, tables, metric, ties) for division in divisions_of(all_tables)]
    return tuple(slicing for slicing in slices if slicing is not None)


def divisions_of(tables: Sequence[RankTable]) -> list[Division]:
    """How the held-out items of these tables can be divided.

    By time only where all tables have times, and by attributes only where all tell of the same.
    """
    counts = partial(_in_ranges, COUNTS, lambda table: table.item_count)
    lengths = partial(_in_ranges, LENGTHS, lambda table: table.history_length)
    divisions = [
        Division("training interactions of the item", counts, always=True),
        Division("items in the history", lengths, always=True),
        Division("whether the item is new", _by_newness, always=False),
    ]
    times = [table.since_last for table in tables if table.since_last is not None]
    if len(times) == len(tables):
        quartiles = np.quantile(times[0], [0.25, 0.5, 0.75], method="higher")
        limits = np.unique(quartiles.astype(np.int64))
        by_time = partial(_in_quartiles, limits)
        by = "time since the newest event of the history, in quartiles"
        divisions.append(Division(by, by_time, always=False))
    names = {table.attribute_names for table in tables}
    if len(names) == 1 and any(names):
        by = "attribute of the item (an item counts in each that it has)"
        divisions.append(Division(by, _by_attribute, always=True))
    return divisions


def label_of(starts: Sequence[int], index: int) -> str:
    """A bucket's limits as text, such as `5–19`; a bucket of zeros alone is `0 (cold)`."""
    start, end = starts[index], starts[index + 1] if index + 1 < len(starts) else None
    if start == 0 and end == 1:
        return "0 (cold)"
    return f"{start}+" if end is None else f"{start}–{end - 1}"


def time_text(seconds: float) -> str:
    """A time in the largest unit of which it has at least two, such as `3.5 days`."""
    for unit, length in UNITS.items():
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _slicing(
    division: Division,
    tables: Mapping[str, Sequence[RankTable]],
    metric: str,
    ties: TiePolicy,
) -> Slicing | None:
    """The metric in each bucket that has at least two users; None: there is nothing to compare."""
    parts = {
        cell: [division.parts(table) for table in tables_of_cell]
        for cell, tables_of_cell in tables.items()
    }
    first, parts_of_first = next(iter(tables.values()))[0], next(iter(parts.values()))[0]
    filled = [place for place, (_, in_bucket) in enumerate(parts_of_first) if in_bucket.any()]
    if len(filled) < 2 and not division.always:
        return None
    buckets, left_out = [], 0
    for place in filled:
        label, in_bucket = parts_of_first[place]
        users = len(np.unique(first.user[in_bucket]))
        if users < 2:
            left_out += int(in_bucket.sum())
            continue
        estimates = {
            cell: estimate(
                [table.select(parts_[place][1]) for table, parts_ in zip(of_cell, parts[cell])],
                metric,
                ties=ties,
                resamples=RESAMPLES,
            )
            for cell, of_cell in tables.items()
        }
        buckets.append(Bucket(label, int(in_bucket.sum()), users, estimates))
    return Slicing(division.by, tuple(buckets), left_out)


def _in_ranges(
    starts: Sequence[int], column: Callable[[RankTable], NDArray[np.int32]], table: RankTable
) -> list[tuple[str, NDArray[np.bool_]]]:
    bucket_Q = np.searchsorted(starts, column(table), side="right") - 1
    return [(label_of(starts, place), bucket_Q == place) for place in range(len(starts))]


def _by_newness(table: RankTable) -> list[tuple[str, NDArray[np.bool_]]]:
    """Items without any training interaction, and all others."""
    new_Q = table.item_count == 0
    return [("never trained on", new_Q), ("trained on", ~new_Q)]


def _in_quartiles(
    limits: NDArray[np.int64], table: RankTable
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Buckets that begin at each of the limits, in seconds, and one before the first."""
    assert table.since_last is not None, "all tables have times"
    bucket_Q = np.searchsorted(limits, table.since_last, side="right")
    texts = [time_text(float(limit)) for limit in limits]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    labels = [f"under {texts[0]}", *between, f"{texts[-1]} or more"]
    return [(label, bucket_Q == place) for place, label in enumerate(labels)]


def _by_attribute(table: RankTable) -> list[tuple[str, NDArray[np.bool_]]]:
    names = enumerate(table.attribute_names)
    return [(printable(name), table.has_attribute(place)) for place, name in names]
