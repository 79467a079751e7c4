"""The simulation of intervals of coverage: what it draws, and what comes of a few draws."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import list_intervals as module
from experiments.list_intervals import drawn_lists, shares_of, table_of
from research.evaluation.metrics import metrics


def test_lists_have_different_items_and_popular_ones_more_often() -> None:
    lists = drawn_lists(1.5, 0)
    assert lists.shape == (module.USERS, module.LENGTH)
    assert all(len(set(row)) == module.LENGTH for row in lists.tolist())
    assert (lists < 10).mean() > (lists >= 290).mean()
    assert not np.array_equal(lists, drawn_lists(1.5, 1))
    covered = len(np.unique(lists)) / module.ITEMS
    found = metrics(table_of(lists), ["coverage@5"])["coverage@5"]
    assert found == pytest.approx(covered, rel=1e-12)


def test_resampled_users_cover_too_little() -> None:
    shares = shares_of("coverage@5", 1.0, draws=10)
    assert shares.held >= 0.9
    assert shares.held_by_resampling == 0.0
    assert shares.found <= 0.4
