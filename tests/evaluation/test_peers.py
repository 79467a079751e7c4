"""Metrics and Holm's correction are those of ranx and statsmodels, where these are installed.

The extra `peers` has both; ranx compiles what it computes, which takes seconds.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from research.evaluation.metrics import per_user
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import holm

USERS, CANDIDATES = 40, 60
# By our name, ranx's. It divides average precision by the number of relevant items.
NAMES = {
    "hr@10": "hit_rate@10",
    "ndcg@10": "ndcg@10",
    "ndcg@3": "ndcg@3",
    "mrr": "mrr",
    "mrr@5": "mrr@5",
    "recall@10": "recall@10",
    "precision@10": "precision@10",
    "map-r@10": "map@10",
    "map-r@3": "map@3",
}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_metrics_of_random_lists_with_several_relevant_items_are_those_of_ranx() -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is not installed (extra `peers`)")
    draws = np.random.default_rng(0)
    scores = draws.permuted(np.tile(np.arange(1.0, CANDIDATES + 1), (USERS, 1)), axis=1)
    relevant = [
        draws.choice(CANDIDATES, draws.integers(1, 13), replace=False) for _ in range(USERS)
    ]
    qrels = {f"u{u:02}": {f"i{i}": 1 for i in items} for u, items in enumerate(relevant)}
    run = {
        f"u{u:02}": {f"i{i}": score for i, score in enumerate(row)}
        for u, row in enumerate(scores.tolist())
    }
    known = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), list(NAMES.values()), return_mean=False)
    user = np.repeat(np.arange(USERS, dtype=np.int32), [len(items) for items in relevant])
    item = np.concatenate(relevant).astype(np.int32)
    ones = np.ones(len(user), np.int32)
    table = RankTable(
        user=user,
        item=item,
        rank=CANDIDATES + 1 - scores[user, item],
        ties=ones - 1,
        history_length=ones,
        item_count=ones,
        protocol={},
    )
    for ours, theirs in NAMES.items():
        assert per_user(table, ours)[1].tolist() == pytest.approx(known[theirs].tolist()), ours
    # With at most as many relevant items as places, both divide by the same number.
    few = np.bincount(user) <= 10
    assert per_user(table, "map@10")[1][few] == pytest.approx(known["map@10"][few])
    assert (per_user(table, "map@3")[1] >= known["map@3"]).all()


def test_corrected_p_values_are_those_of_statsmodels() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        multitest = pytest.importorskip("statsmodels.stats.multitest")
    draws = np.random.default_rng(1)
    for number in (1, 2, 5, 12):
        p_values = np.r_[draws.uniform(0, 0.1, number), draws.uniform(0, 1, number // 2)]
        p_values[-1] = p_values[0]
        known = multitest.multipletests(p_values, method="holm")[1]
        assert holm(p_values.tolist()) == pytest.approx(known.tolist(), rel=1e-12)
