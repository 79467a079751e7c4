"""Do intervals of coverage and of the Gini index hold, and how often do equal models differ?

Lists are drawn from a known distribution, so the expected metric of as many users is known (the
mean over all draws), and two draws are two equal models. For each skew of popularity the table
says how often an interval contains that expectation: the one that `statistics.estimate` gives, and
the percentiles of the metric of resampled users, which is what one might try first. It also says
how often the paired test finds a difference at the level of 5 %, though there is none.

    python -m experiments.list_intervals          # a minute on one core
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from research.console import wide_console
from research.evaluation.list_table import ListTable
from research.evaluation.metrics import metrics
from research.evaluation.statistics import compare, estimate

USERS, ITEMS, LENGTH = 150, 300, 5
DRAWS, RESAMPLES = 400, 400
SKEWS = (0.5, 1.0, 1.5)
METRICS = (f"coverage@{LENGTH}", f"gini@{LENGTH}")


@dataclass(frozen=True)
class Shares:
    """What came of one metric at one skew; shares are from 0 to 1."""

    expected: float
    """The mean of the metric over all draws."""
    held: float
    """Share of the intervals of `estimate` that contain it."""
    held_by_resampling: float
    """Share of the intervals of resampled users' metrics that contain it."""
    found: float
    """Share of comparisons of two draws with p below 0.05."""


def drawn_lists(skew: float, seed: int) -> NDArray[np.int64]:
    """[USERS, LENGTH] lists of different items; item v has the popularity (v + 1) ** -skew."""
    draws = np.random.default_rng(seed)
    keys_UV = draws.exponential(size=(USERS, ITEMS)) * np.arange(1, ITEMS + 1) ** skew
    lists: NDArray[np.int64] = np.argsort(keys_UV, axis=1)[:, :LENGTH]
    return lists


def table_of(lists: NDArray[np.int64]) -> ListTable:
    """The list table of these lists; nothing else is known of their items."""
    items, place = np.unique(lists, return_inverse=True)
    nothing = np.zeros(len(items), dtype=np.int32)
    return ListTable(
        user=np.arange(len(lists), dtype=np.int32),
        place=place.reshape(lists.shape).astype(np.int32),
        repeated=np.zeros(lists.shape, dtype=bool),
        history_popularity=np.zeros(len(lists)),
        item=items.astype(np.int32),
        item_count=nothing,
        item_users=nothing,
        attribute_offsets=np.zeros(len(items) + 1, dtype=np.int64),
        attribute_ids=np.zeros(0, dtype=np.int32),
        num_items=ITEMS,
        num_users=1,
        num_attributes=0,
        protocol={"seen": "excluded"},
    )


def resampling_interval(lists: NDArray[np.int64], metric: str, seed: int) -> tuple[float, float]:
    """(low, high): percentiles of the metric of users drawn with replacement."""
    draws = np.random.default_rng(seed)
    picked = (draws.integers(0, len(lists), len(lists)) for _ in range(RESAMPLES))
    values = [metrics(table_of(lists[users]), [metric])[metric] for users in picked]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def shares_of(metric: str, skew: float, draws: int = DRAWS) -> Shares:
    """Simulate one metric; a tenth of the draws are resampled, as each takes long."""
    lists = [drawn_lists(skew, seed) for seed in range(draws)]
    tables = [table_of(each) for each in lists]
    expected = float(np.mean([metrics(table, [metric])[metric] for table in tables]))
    found = [estimate([table], metric, resamples=RESAMPLES) for table in tables]
    naive = [resampling_interval(each, metric, 0) for each in lists[: max(1, draws // 10)]]
    pairs = zip(tables[::2], tables[1::2])
    p_values = [compare([one], [two], metric, resamples=RESAMPLES).p for one, two in pairs]
    return Shares(
        expected=expected,
        held=float(np.mean([each.low <= expected <= each.high for each in found])),
        held_by_resampling=float(np.mean([low <= expected <= high for low, high in naive])),
        found=float(np.mean([p < 0.05 for p in p_values])),
    )


def main() -> None:
    """Print the table."""
    table = Table("skew", "metric", "expected", "held", "held by resampling", "found at 5 %")
    for skew in SKEWS:
        for metric in METRICS:
            shares = shares_of(metric, skew)
            values = (shares.expected, shares.held, shares.held_by_resampling, shares.found)
            table.add_row(f"{skew:g}", metric, *(f"{value:.3f}" for value in values))
    wide_console().print(table)


if __name__ == "__main__":
    main()
