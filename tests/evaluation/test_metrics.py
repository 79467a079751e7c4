"""Metrics of rank tables: numbers worked out by hand, and twins that sort each user's list."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import comb, fsum, inf, log2
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import InputError
from research.evaluation import ties as ties_module
from research.evaluation.metrics import metrics, missed_share, parse_metric, per_user
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import TiePolicy, discounts, reciprocals
from tests.evaluation.reference_ranks import (
    expected_of_user,
    mean_over_users,
    metric_of_user,
    rank_of,
)

KINDS = ("hr", "ndcg", "mrr", "recall", "precision", "map", "map-r")


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
        ("map-r@10", 1 / 3),
    ],
)
def test_one_held_out_item_at_rank_three(name: str, expected: float) -> None:
    assert metrics(table_of([(0, 3.0)]), [name]) == {name: expected}


@pytest.mark.parametrize("ties", ["expected", "mean"])
def test_a_user_with_several_rankings_counts_once_with_their_mean(ties: TiePolicy) -> None:
    # User 0 is asked after three histories, and is first, second and nowhere; user 1 after one.
    table = replace(
        table_of([(0, 1.0), (0, 2.0), (0, inf), (1, 1.0)]),
        history_length=np.array([3, 4, 5, 3], np.int32),
    )
    assert metrics(table, ["hr@1", "mrr", "ndcg@2", "recall@2", "precision@2"], ties) == {
        "hr@1": pytest.approx((1 / 3 + 1) / 2),
        "mrr": pytest.approx(((1 + 1 / 2) / 3 + 1) / 2),
        "ndcg@2": pytest.approx(((1 + 1 / log2(3)) / 3 + 1) / 2),
        "recall@2": pytest.approx((2 / 3 + 1) / 2),
        "precision@2": pytest.approx((2 / 3 / 2 + 1 / 2) / 2),
    }
    users, values = per_user(table, "hr@1", ties)
    assert (users.tolist(), values.tolist()) == ([0, 1], [pytest.approx(1 / 3), 1.0])
    # After one history the same ranks are of one list, of which the best counts.
    assert metrics(table_of([(0, 1.0), (0, 2.0), (1, 1.0)]), ["hr@1"], ties) == {"hr@1": 1.0}


def test_rankings_of_a_user_may_share_a_place(tmp_path: Path) -> None:
    table = replace(table_of([(0, 1.0), (0, 1.0)]), history_length=np.array([1, 2], np.int32))
    table.save(tmp_path / "ranks.npz")
    assert metrics(RankTable.load(tmp_path / "ranks.npz"), ["hr@1"]) == {"hr@1": 1.0}
    table_of([(0, 1.0), (0, 1.0)]).save(tmp_path / "one.npz")
    with pytest.raises(InputError, match="no ranking gives such ranks"):
        RankTable.load(tmp_path / "one.npz")


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
        # By all four held-out items, though two places cannot hold them.
        ("map-r@2", (1 / 2) / 4),
        ("map-r@10", (1 / 2 + 2 / 5 + 3 / 8) / 4),
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


def test_a_mean_rank_between_two_places_is_within_k_only_when_not_above_it() -> None:
    table = table_of([(0, 10.5)], ties=1)
    assert metrics(table, ["hr@10", "hr@11"], "mean") == {"hr@10": 0.0, "hr@11": 1.0}


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
@pytest.mark.parametrize("ties", ["expected", "mean"])
def test_held_out_items_that_tie_with_each_other_do_not_exceed_one(
    name: str, ties: TiePolicy
) -> None:
    table = table_of([(0, 2.0), (0, 2.0), (0, 2.0)], ties=2)
    assert metrics(table, [name], ties)[name] == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # One held-out item and three that tie with it share the places 2 to 5.
        ("hr@1", 0.0),
        ("hr@2", 1 / 4),
        ("hr@4", 3 / 4),
        ("hr@5", 1.0),
        ("recall@3", 1 / 2),
        ("precision@4", 3 / 16),
        ("mrr", (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4),
        ("mrr@3", (1 / 2 + 1 / 3) / 4),
        ("map@3", (1 / 2 + 1 / 3) / 4),
        # (1/log2(3) + 1/log2(4)) / 4.
        ("ndcg@3", 0.28273243839286436),
    ],
)
def test_one_held_out_item_is_uniform_over_the_places_of_those_that_tie(
    name: str, expected: float
) -> None:
    got = metrics(table_of([(0, 3.5)], ties=3), [name])[name]
    assert got == pytest.approx(expected, rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Two of a user's items among three candidates at the places 1 to 3: at 1 and 2, at 1 and
        # 3, or at 2 and 3.
        ("hr@1", 2 / 3),
        ("hr@2", 1.0),
        ("recall@1", 1 / 3),
        ("recall@2", 2 / 3),
        ("precision@2", 2 / 3),
        ("mrr@1", 2 / 3),
        ("mrr", (1 + 1 + 1 / 2) / 3),
        ("map@1", 2 / 3),
        ("map@2", (1 + 1 / 2 + 1 / 4) / 3),
        ("map@3", (1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3),
    ],
)
def test_several_held_out_items_that_tie_are_at_any_of_their_places(
    name: str, expected: float
) -> None:
    got = metrics(table_of([(0, 2.0), (0, 2.0)], ties=2), [name])[name]
    # Sums of a few terms.
    assert got == pytest.approx(expected, rel=1e-14, abs=0)


Questions = tuple[dict[int, float], list[int], int]


@st.composite
def tied_lists(draw: st.DrawFn) -> Questions:
    """(scores of up to seven candidates, which of them are held out, further items missed)."""
    given = draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    scores = dict(enumerate(map(float, given)))
    held_out = draw(st.lists(st.sampled_from(sorted(scores)), min_size=0, max_size=5, unique=True))
    return scores, held_out, draw(st.integers(0 if held_out else 1, 2))


def table_of_lists(lists: Sequence[Questions]) -> RankTable:
    """The rank table of users who have a list each, made by the twin that sorts."""
    rows, ties = [], []
    for user, (scores, held_out, missed) in enumerate(lists):
        for item in held_out:
            rank, others = rank_of(scores, item)
            rows.append((user, rank))
            ties.append(others)
        rows += [(user, inf)] * missed
        ties += [3] * missed
    return replace(table_of(rows), ties=np.array(ties, np.int32))


@settings(max_examples=60, deadline=None)
@given(st.lists(tied_lists(), min_size=1, max_size=3), st.integers(1, 9))
def test_metrics_equal_their_means_over_every_order_of_ties(lists: list[Questions], k: int) -> None:
    table = table_of_lists(lists)
    for kind in KINDS:
        _, values = per_user(table, f"{kind}@{k}")
        expected = [expected_of_user(*each, kind, k) for each in lists]
        # Sums of a few terms, in another order.
        assert values.tolist() == pytest.approx(expected, rel=1e-13, abs=1e-15), kind
    _, values = per_user(table, "mrr")
    expected = [expected_of_user(*each, "mrr", inf) for each in lists]
    assert values.tolist() == pytest.approx(expected, rel=1e-13, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(users_and_ranks(), st.sampled_from(KINDS), st.integers(1, 35))
def test_without_ties_both_policies_are_one(
    rows: list[tuple[int, float]], kind: str, k: int
) -> None:
    table, name = table_of(rows), f"{kind}@{k}"
    assert metrics(table, [name], "expected") == metrics(table, [name], "mean")


def uniform_place(size: int, k: int, worth: Callable[[int], float]) -> float:
    """What one item at any of `size` places with equal chance is worth, those after k nothing."""
    return sum(worth(place) for place in range(1, min(size, k) + 1)) / size


def test_a_constant_scorer_has_no_more_than_chance() -> None:
    # 1,682 candidates, all equal; one held-out item.
    table = table_of([(0, 841.5)], ties=1681)
    names = ["hr@10", "recall@10", "hr@1682"]
    assert metrics(table, names) == {"hr@10": 10 / 1682, "recall@10": 10 / 1682, "hr@1682": 1.0}
    assert metrics(table, ["ndcg@10", "mrr"]) == {
        "ndcg@10": pytest.approx(uniform_place(1682, 10, lambda place: 1 / log2(place + 1))),
        "mrr": pytest.approx(uniform_place(1682, 1682, lambda place: 1 / place)),
    }
    # Three of a user's items: each of them alone has chance 10 / 1682.
    several = table_of([(0, 841.5)] * 3, ties=1681)
    chance = 1 - (1672 / 1682) * (1671 / 1681) * (1670 / 1680)
    assert metrics(several, ["hr@10", "recall@10"]) == {
        "hr@10": pytest.approx(chance, rel=1e-13),
        "recall@10": pytest.approx(10 / 1682, rel=1e-15),
    }


@pytest.mark.parametrize(
    ("first", "number"),
    [(1, 4096), (1, 4097), (4096, 2), (4097, 2), (4000, 1000), (5000, 3), (2, 60_000)],
)
def test_sums_over_many_places_equal_those_of_one_place_after_another(
    first: int, number: int
) -> None:
    places = range(first, first + number)
    given = np.array([float(first)]), np.array([float(number)])
    # Sums that are added one by one round by some 1e-16 of the largest a term.
    assert reciprocals(*given)[0] == pytest.approx(fsum(1 / p for p in places), rel=1e-12)
    assert discounts(*given)[0] == pytest.approx(fsum(1 / log2(p + 1) for p in places), rel=1e-12)


@pytest.mark.parametrize(("first", "size", "number"), [(1, 5000, 2), (700, 3000, 9), (1, 9, 9)])
def test_the_best_of_several_is_found_over_many_places(
    first: int, size: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ties_module, "_BLOCK", 128)
    rank = first + (size - 1) / 2
    table = table_of([(0, rank)] * number, ties=size - 1)
    # Of n among N the best stands at the i-th place in C(N - i, n - 1) of C(N, n) cases.
    chances = [comb(size - i, number - 1) / comb(size, number) for i in range(1, size + 1)]
    found = {k: fsum(chances[: max(0, k - first + 1)]) for k in (1, 200, 9000)}
    names = [f"hr@{k}" for k in found]
    assert metrics(table, names) == pytest.approx(
        {f"hr@{k}": value for k, value in found.items()}, rel=1e-11
    )
    worth = fsum(chance / place for place, chance in enumerate(chances, first))
    assert metrics(table, ["mrr"])["mrr"] == pytest.approx(worth, rel=1e-11)


def test_items_that_each_list_puts_first_share_places_one_after_another() -> None:
    # Scores of one user from two batches may differ in their last bit.
    table = table_of([(0, 1.0), (0, 1.0)])
    names = ["hr@1", "recall@1", "recall@2", "ndcg@2", "map@2"]
    assert metrics(table, names) == {
        "hr@1": 1.0, "recall@1": 0.5, "recall@2": 1.0, "ndcg@2": 1.0, "map@2": 1.0,
    }  # fmt: skip


def test_names_of_metrics_are_a_kind_and_k() -> None:
    assert parse_metric("ndcg@10") == ("ndcg", 10)
    assert parse_metric("mrr") == ("mrr", inf)
    assert parse_metric("mrr@7") == ("mrr", 7)
    assert parse_metric("map-r@10") == ("map-r", 10)


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
        "map-r",
        "-r@10",
        "hr@١",
    ],
)
def test_a_metric_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"does not exist; allowed: hr@K, ndcg@K"):
        parse_metric(name)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match=r"'ncdg@10' does not exist.*did you mean ndcg@K"):
        parse_metric("ncdg@10")


def test_k_may_be_larger_than_the_catalogue() -> None:
    assert metrics(table_of([(0, 4.0)]), ["hr@99999999"]) == {"hr@99999999": 1.0}
