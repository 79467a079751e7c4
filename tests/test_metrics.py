"""Metrics of rank tables: numbers worked out by hand, and the twin that sorts each user's list."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import InputError
from research.evaluation.metrics import metrics, missed_share, parse, per_user
from research.evaluation.rank import RankTable
from tests.reference_ranks import mean_over_users, metric_of_user

KINDS = ("hr", "ndcg", "mrr", "recall", "precision", "map")


def table_of(rows: list[tuple[int, float]], ties: int = 0) -> RankTable:
    """A table from (user, rank) rows."""
    count = len(rows)
    return RankTable(
        user=np.array([user for user, _ in rows], np.int32),
        item=np.arange(count, dtype=np.int32),
        rank=np.array([rank for _, rank in rows], np.float64),
        ties=np.full(count, ties, np.int32),
        history_length=np.ones(count, np.int32),
        item_count=np.ones(count, np.int32),
        protocol={},
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hr@2", 0.0),
        ("hr@3", 1.0),
        ("hr@10", 1.0),
        ("ndcg@2", 0.0),
        ("ndcg@3", 0.5),
        ("ndcg@10", 0.5),
        ("mrr", 1 / 3),
        ("mrr@2", 0.0),
        ("mrr@3", 1 / 3),
        ("recall@2", 0.0),
        ("recall@10", 1.0),
        ("precision@2", 0.0),
        ("precision@10", 0.1),
        ("map@2", 0.0),
        ("map@10", 1 / 3),
    ],
)
def test_one_held_out_item_at_rank_three(name: str, expected: float) -> None:
    assert metrics(table_of([(0, 3.0)]), [name]) == {name: expected}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Four held-out items, at ranks 2, 5 and 8; the fourth stood in the history.
        ("hr@1", 0.0),
        ("hr@2", 1.0),
        ("recall@2", 1 / 4),
        ("recall@5", 2 / 4),
        ("recall@100", 3 / 4),
        ("precision@2", 1 / 2),
        ("precision@5", 2 / 5),
        ("precision@10", 3 / 10),
        ("mrr@1", 0.0),
        ("mrr", 1 / 2),
        # 1/log2(3) over 1 + 1/log2(3): the ideal is cut at k.
        ("ndcg@2", 0.38685280723454159),
        # 1/log2(3) + 1/log2(6) over 1 + 1/log2(3) + 1/log2(4) + 1/log2(5).
        ("ndcg@5", 0.39732200696853520),
        # 1/log2(3) + 1/log2(6) + 1/log2(9) over the same.
        ("ndcg@10", 0.52047320133890018),
        ("map@2", (1 / 2) / 2),
        ("map@5", (1 / 2 + 2 / 5) / 4),
        ("map@10", (1 / 2 + 2 / 5 + 3 / 8) / 4),
    ],
)
def test_several_held_out_items_of_one_user(name: str, expected: float) -> None:
    table = table_of([(7, 5.0), (7, inf), (7, 2.0), (7, 8.0)])
    # Sums of at most four terms: a few units in the last place.
    assert metrics(table, [name])[name] == pytest.approx(expected, rel=1e-15, abs=0)


def test_a_mean_over_users_is_not_a_mean_over_rows() -> None:
    table = table_of([(0, 1.0), (1, 50.0), (1, 60.0), (1, 70.0)])
    assert metrics(table, ["hr@10", "recall@10"]) == {"hr@10": 0.5, "recall@10": 0.5}


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [(2, 3.0), (0, 1.0), (2, 1.0), (1, inf), (0, 9.0)]
    names = [f"{kind}@5" for kind in KINDS]
    assert metrics(table_of(rows), names) == metrics(table_of(rows[::-1]), names)


def test_values_of_users_come_in_ascending_order_of_users() -> None:
    users, values = per_user(table_of([(9, 1.0), (2, 3.0), (4, inf)]), "mrr")
    assert users.tolist() == [2, 4, 9]
    assert values.tolist() == [1 / 3, 0.0, 1.0]


def test_a_rank_between_two_places_is_within_k_only_when_not_above_it() -> None:
    table = table_of([(0, 10.5)], ties=1)
    assert metrics(table, ["hr@10", "hr@11"]) == {"hr@10": 0.0, "hr@11": 1.0}


def test_a_miss_counts_in_no_metric() -> None:
    names = [*(f"{kind}@1000000" for kind in KINDS), "mrr"]
    assert metrics(table_of([(0, inf)]), names) == dict.fromkeys(names, 0.0)


def test_missed_share_is_the_share_of_infinite_ranks() -> None:
    assert missed_share(table_of([(0, inf), (0, 1.0), (1, 2.0), (2, 1e6)])) == 0.25


def test_the_best_order_has_the_value_one() -> None:
    table = table_of([(0, 1.0), (0, 2.0), (0, 3.0)])
    names = ["hr@2", "ndcg@2", "mrr", "precision@2", "map@2", "ndcg@5", "recall@3", "map@5"]
    assert metrics(table, names) == dict.fromkeys(names, 1.0)


@st.composite
def users_and_ranks(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Rows of users whose ranks differ, some of them missed."""
    rows = []
    for user in draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)):
        ranks = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True))
        rows += [(user, float(rank)) for rank in ranks]
        rows += [(user, inf)] * draw(st.integers(0, 2))
    return draw(st.permutations(rows))


@settings(max_examples=100, deadline=None)
@given(users_and_ranks(), st.sampled_from(KINDS), st.integers(1, 35))
def test_metrics_equal_those_of_sorted_lists(
    rows: list[tuple[int, float]], kind: str, k: int
) -> None:
    got = metrics(table_of(rows), [f"{kind}@{k}"])[f"{kind}@{k}"]
    # Sums of at most 40 terms in float64, in another order.
    assert got == pytest.approx(mean_over_users(rows, kind, k), rel=1e-13, abs=1e-15)
    assert 0.0 <= got <= 1.0 + 1e-12


@settings(max_examples=30, deadline=None)
@given(users_and_ranks())
def test_values_of_users_equal_those_of_sorted_lists(rows: list[tuple[int, float]]) -> None:
    users, values = per_user(table_of(rows), "map@7")
    for user, value in zip(users.tolist(), values.tolist()):
        ranks = [rank for owner, rank in rows if owner == user]
        assert value == pytest.approx(metric_of_user(ranks, "map", 7), rel=1e-13)


@pytest.mark.parametrize("name", ["precision@2", "ndcg@2", "map@2"])
def test_held_out_items_that_tie_with_each_other_do_not_exceed_one(name: str) -> None:
    table = table_of([(0, 2.0), (0, 2.0), (0, 2.0)], ties=2)
    assert metrics(table, [name])[name] <= 1.0


def test_names_of_metrics_are_a_kind_and_k() -> None:
    assert parse("ndcg@10") == ("ndcg", 10)
    assert parse("mrr") == ("mrr", inf)
    assert parse("mrr@7") == ("mrr", 7)


@pytest.mark.parametrize(
    "name",
    [
        "hr",
        "hr@0",
        "hr@-1",
        "hr@1.5",
        "hr@",
        "hr@10 ",
        "HR@10",
        "hr10",
        "auc@10",
        "",
        "mrr@",
        "hr@١",
    ],
)
def test_a_metric_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"does not exist; allowed: hr@K, ndcg@K"):
        parse(name)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match=r"'ncdg@10' does not exist.*did you mean 'ndcg@10'"):
        parse("ncdg@10")


def test_k_may_be_larger_than_the_catalogue() -> None:
    assert metrics(table_of([(0, 4.0)]), ["hr@99999999"]) == {"hr@99999999": 1.0}
