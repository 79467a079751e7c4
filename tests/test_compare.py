"""The paired difference of two rank tables, and what may not be compared."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from scipy import stats

from research.errors import InputError
from research.evaluation.compare import paired_difference
from research.evaluation.metrics import per_user
from research.evaluation.rank import RankTable


def table_of(users: list[int], ranks: list[float], **protocol: object) -> RankTable:
    return RankTable(
        user=np.array(users, np.int32),
        item=np.arange(len(users), dtype=np.int32),
        rank=np.array(ranks, np.float64),
        ties=np.zeros(len(users), np.int32),
        history_length=np.ones(len(users), np.int32),
        protocol={"part": "test", "candidates": "full", **protocol},
    )


def test_hand_numbers() -> None:
    # MRR 1, 1/2, 0, 1/4 against 1/2, 1/2, 1/4, 1/4: differences 1/2, 0, -1/4, 0 with mean 1/16,
    # squares about it 49/256, 1/256, 25/256, 1/256: variance 76/768, standard error its root / 2.
    first = table_of([0, 1, 2, 3], [1.0, 2.0, inf, 4.0])
    second = table_of([0, 1, 2, 3], [2.0, 2.0, 4.0, 4.0])
    mean, error = paired_difference(first, second, "mrr")
    assert mean == 0.0625
    assert error == pytest.approx((76 / 768) ** 0.5 / 2, rel=1e-15)


def test_equal_tables_differ_by_nothing() -> None:
    table = table_of([0, 1, 2], [1.0, 5.0, 20.0])
    assert paired_difference(table, table, "ndcg@10") == (0.0, 0.0)


def test_exchanging_the_tables_changes_the_sign() -> None:
    first = table_of([0, 1, 2], [1.0, 3.0, 11.0])
    second = table_of([0, 1, 2], [2.0, 1.0, 7.0])
    mean, error = paired_difference(first, second, "mrr")
    assert paired_difference(second, first, "mrr") == (-mean, error)


@pytest.mark.parametrize("metric", ["hr@10", "ndcg@10", "mrr", "recall@5", "map@20"])
def test_mean_over_standard_error_is_the_paired_t_statistic(metric: str) -> None:
    draws = np.random.default_rng(0)
    users = draws.integers(0, 60, 150).tolist()
    first = table_of(users, draws.integers(1, 40, 150).tolist())
    second = table_of(users, draws.integers(1, 60, 150).tolist())
    mean, error = paired_difference(first, second, metric)
    values = [per_user(table, metric)[1] for table in (first, second)]
    test = stats.ttest_rel(*values)
    # The same formula in another order: rounding alone.
    assert mean / error == pytest.approx(test.statistic, rel=1e-12)
    assert mean == pytest.approx(values[0].mean() - values[1].mean(), rel=1e-12)


def test_users_are_paired_by_id_and_not_by_row() -> None:
    first = table_of([0, 1, 2], [1.0, 2.0, 4.0])
    second = replace(
        first, user=first.user[::-1], item=first.item[::-1], rank=first.rank[::-1].copy()
    )
    assert paired_difference(first, second, "mrr") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"candidates": "uniform-100"}, "candidates is 'full' and 'uniform-100'"),
        ({"part": "validation"}, "part is 'test' and 'validation'"),
        ({"seen": "kept"}, "seen is None and 'kept'"),
        ({"fingerprint": "a"}, "fingerprint is None and 'a'"),
    ],
)
def test_tables_of_two_protocols_are_refused(protocol: dict[str, object], message: str) -> None:
    first = table_of([0, 1], [1.0, 2.0])
    with pytest.raises(InputError, match=f"differ in protocol: {message}"):
        paired_difference(first, table_of([0, 1], [1.0, 2.0], **protocol), "mrr")


def test_tables_of_two_sets_of_users_are_refused() -> None:
    first = table_of([0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="differ in users: 1 stand only in the first and 1 only"):
        paired_difference(first, table_of([0, 1, 7], [1.0, 2.0, 3.0]), "mrr")


def test_tables_of_other_held_out_items_are_refused() -> None:
    first = table_of([0, 1], [1.0, 2.0])
    second = replace(first, item=np.array([0, 5], np.int32))
    with pytest.raises(InputError, match="differ in the held-out items"):
        paired_difference(first, second, "mrr")


def test_one_user_has_no_standard_error() -> None:
    table = table_of([3, 3], [1.0, 2.0])
    with pytest.raises(InputError, match="1 user cannot give a standard error"):
        paired_difference(table, table, "mrr")


def test_a_metric_that_does_not_exist_is_refused() -> None:
    table = table_of([0, 1], [1.0, 2.0])
    with pytest.raises(InputError, match="'ncdg@10' does not exist"):
        paired_difference(table, table, "ncdg@10")
