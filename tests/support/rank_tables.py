"""A rank table written by hand."""

from __future__ import annotations

from math import inf

import numpy as np

from research.evaluation.rank_table import RankTable


def small_table() -> RankTable:
    """Return a table of three held-out items of two users, one with an infinite rank."""
    return RankTable(
        user=np.array([0, 1, 1], np.int32),
        item=np.array([3, 0, 2], np.int32),
        rank=np.array([1.0, 2.5, inf]),
        ties=np.array([0, 1, 0], np.int32),
        history_length=np.array([4, 2, 2], np.int32),
        item_count=np.array([7, 0, 1], np.int32),
        protocol={"part": "test", "candidates_seed": 0, "split": {"class": "Split"}},
    )
