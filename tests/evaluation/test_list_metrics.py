"""Metrics of recommended lists: hand numbers, slow twins, and what their intervals say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import InputError
from research.evaluation import list_metrics as module
from research.evaluation.list_metrics import LIST_METRICS, LIST_RANGES
from research.evaluation.list_table import ListTable
from research.evaluation.metrics import metrics, of_lists, of_ranks, per_user, range_of
from research.evaluation.statistics import compare, estimate
from tests.evaluation.reference_list_metrics import (
    Lists,
    coverage,
    gini,
    lift,
    table_of,
    values_of_users,
)
from tests.support.rank_tables import small_table

# Four users; item 0 is trained on four times by three users, 3 never. Items 0 and 1 share one of
# three attributes, 2 and 3 have none.
TRAINED = [[0, 0, 1], [0, 1], [0, 2], [2]]
ATTRIBUTES = [[0, 1], [1, 2], [], [], [3]]
HAND = table_of([[1, 3], [0, 3], [0, 1], [2, 3]], 5, trained=TRAINED, attributes=ATTRIBUTES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Items 0 to 3 of 5; the first of each list: 1, 0, 0, 2.
        ("coverage@2", 4 / 5),
        ("coverage@1", 3 / 5),
        # Frequencies 0, 1, 2, 2, 3 in order: (-4 * 0 - 2 * 1 + 0 * 2 + 2 * 2 + 4 * 3) / (5 * 8).
        ("gini@2", 14 / 40),
        # 0, 0, 1, 1, 2: (0 * 1 + 2 * 1 + 4 * 2) / (5 * 4).
        ("gini@1", 10 / 20),
        # Item 1 has two users of four: 1 bit. Item 0 has three, 2 two, 3 none, so that it counts
        # like one with a single user: 2 bits.
        ("novelty@1", (1 + 2 * np.log2(4 / 3) + 1) / 4),
        ("novelty@2", (1.5 + (np.log2(4 / 3) + 2) / 2 + (np.log2(4 / 3) + 1) / 2 + 1.5) / 4),
        # Item 0 four times, 1 twice, 2 twice, 3 never.
        ("arp@1", (2 + 4 + 4 + 2) / 4),
        ("arp@2", (1 + 2 + 3 + 1) / 4),
        # The histories: (4 + 4 + 2) / 3, 3, 3, 2.
        ("lift@2", (7 / 4) / ((10 / 3 + 3 + 3 + 2) / 4) - 1),
        # Pairs 1 and 3, 0 and 3: nothing shared. 0 and 1 share one of three. 2 and 3: none has any.
        ("diversity@2", (1 + 1 + 2 / 3 + 0) / 4),
        ("diversity@1", 0.0),
        # Item 1 is in user 0's history, 0 in those of 1 and 2, 2 in that of 3.
        ("repeat@1", 1.0),
        ("repeat@2", (1 / 2 + 1 / 2 + 1 / 2 + 1 / 2) / 4),
        ("explore@2", 1 / 2),
        ("explore@1", 0.0),
    ],
)
def test_hand_numbers(name: str, expected: float) -> None:
    # Sums of a few terms: some units in the last place.
    assert metrics(HAND, [name])[name] == pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("novelty@1", [1.0, 0.4150374992788438, 0.4150374992788438, 1.0]),
        ("novelty@2", [1.5, 1.207518749639422, 0.707518749639422, 1.5]),
        ("arp@1", [2.0, 4.0, 4.0, 2.0]),
        ("arp@2", [1.0, 2.0, 3.0, 1.0]),
    ],
)
def test_values_of_users_are_those_of_rectools(name: str, values: list[float]) -> None:
    # MeanInvUserFreq and AvgRecPopularity of RecTools 0.19 on the same lists and histories; its
    # CatalogCoverage, normalized, is 0.6 and 0.8, as above.
    assert per_user(HAND, name)[1] == pytest.approx(values, rel=1e-14)


def test_users_who_lose_nothing_have_no_influence_on_coverage() -> None:
    # Items 1 and 2 stand in one list each, 0 and 3 in several.
    users, values = per_user(table_of([[0, 3], [0, 3], [0, 1], [2, 3]], 5), "coverage@2")
    assert users.tolist() == [0, 1, 2, 3]
    # Without user 2 or 3, 3 items of 5 are covered, else 4: their mean is 7 / 10.
    assert values == pytest.approx([4 / 5 + 3 * (7 / 10 - each / 5) for each in (4, 4, 3, 3)])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Lists, Lists, Lists, int]:
    """(lists, training histories, attributes of items, number of items)."""
    num_items = draw(st.integers(2, 9))
    num_users = draw(st.integers(2, 7))
    items = st.integers(0, num_items - 1)
    lists = draw(
        st.lists(
            st.lists(items, max_size=num_items, unique=True),
            min_size=num_users,
            max_size=num_users,
        ).filter(any)
    )
    trained = draw(
        st.lists(st.lists(items, min_size=1, max_size=6), min_size=num_users, max_size=num_users)
    )
    attributes = draw(
        st.lists(
            st.lists(st.integers(0, 4), max_size=4, unique=True).map(sorted),
            min_size=num_items,
            max_size=num_items,
        ).filter(any)
    )
    return lists, trained, attributes, num_items


@given(worlds(), st.integers(1, 9), st.sampled_from([1, 3, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_every_metric_is_that_of_its_twin(
    world: tuple[Lists, Lists, Lists, int], k: int, pairs: int
) -> None:
    lists, trained, attributes, num_items = world
    table = table_of(lists, num_items, trained=trained, attributes=attributes, length=num_items)
    cut = [each[:k] for each in lists]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS", pairs)
        for kind, expected in values_of_users(cut, num_items, trained, attributes).items():
            _, values = per_user(table, f"{kind}@{k}")
            assert values == pytest.approx(expected, rel=1e-12, abs=1e-12), kind


@given(worlds(), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_mean_of_users_is_the_metric_of_all_lists(
    world: tuple[Lists, Lists, Lists, int], k: int
) -> None:
    lists, trained, attributes, num_items = world
    table = table_of(lists, num_items, trained=trained, attributes=attributes, length=num_items)
    cut = [each[:k] for each in lists]
    expected = {
        f"coverage@{k}": coverage(cut, num_items),
        f"gini@{k}": gini(cut, num_items),
        f"lift@{k}": lift(cut, trained, trained),
    }
    assert metrics(table, list(expected)) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    for kind in LIST_METRICS:
        low, high = LIST_RANGES.get(kind, (0.0, 1.0))
        assert low - 1e-12 <= metrics(table, [f"{kind}@{k}"])[f"{kind}@{k}"] <= high + 1e-12


def test_the_influence_on_a_ratio_is_its_derivative() -> None:
    # A user's weight grows by 1 / 10^6 of all users: the ratio moves by that times the influence.
    lists, step = [[1, 3], [0, 3], [0, 1], [2, 3]], 1e-6
    _, values = per_user(HAND, "lift@2")
    popularity = {0: 4, 1: 2, 2: 2, 3: 0}
    of_lists = np.array([np.mean([popularity[item] for item in each]) for each in lists])
    for user in range(4):
        weights = np.full(4, (1 - step) / 4)
        weights[user] += step
        moved = (weights @ of_lists) / (weights @ HAND.history_popularity) - 1
        before = of_lists.mean() / HAND.history_popularity.mean() - 1
        assert (moved - before) / step == pytest.approx(values[user] - before, rel=1e-4, abs=1e-6)


def test_names_are_of_ranks_or_of_lists() -> None:
    names = ["ndcg@10", "coverage@5", "mrr", "novelty@20"]
    assert of_ranks(names) == ("ndcg@10", "mrr")
    assert of_lists(names) == ("coverage@5", "novelty@20")
    for name in ("coverage", "gini@0", "novelty@-1", "arp@"):
        with pytest.raises(InputError, match=f"metric '{name}' does not exist; allowed: hr@K"):
            of_lists([name])
    with pytest.raises(InputError, match="did you mean coverage@K"):
        of_lists(["covrage@10"])


def test_a_metric_of_the_other_kind_of_table_is_refused() -> None:
    with pytest.raises(InputError, match="ndcg@2 is computed from a rank table, not from this one"):
        metrics(HAND, ["coverage@2", "ndcg@2"])
    with pytest.raises(InputError, match="gini@2 is computed from a list table, not from this one"):
        per_user(small_table(), "gini@2")


def test_lists_that_are_too_short_are_refused_unless_they_have_all_items() -> None:
    with pytest.raises(InputError, match="the lists have 2 items, too few for a cutoff of 3"):
        metrics(HAND, ["coverage@3"])
    whole = table_of([[1, 0], [0, 1]], 2, trained=[[0], [1]])
    assert metrics(whole, ["coverage@3"]) == {"coverage@3": 1.0}


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"protocol": {"seen": "excluded"}}, "repeat@2", "evaluate with evaluation.seen=kept"),
        ({"protocol": {"seen": "excluded"}}, "explore@2", "these lists exclude seen items"),
        ({"num_attributes": 0}, "diversity@2", "the corpus has no attributes"),
        ({"history_popularity": np.zeros(4)}, "lift@2", "no item of any history has a training"),
    ],
)
def test_what_the_lists_cannot_tell_is_refused(
    change: dict[str, object], name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        metrics(replace(HAND, **change), [name])  # type: ignore[arg-type]


# Intervals and tests


def drawn(users: int, seed: int, *, skew: float = 1.0, num_items: int = 300) -> ListTable:
    """Lists of five items, which are drawn by popularity; the higher the skew, the fewer items."""
    draws = np.random.default_rng(seed)
    weights = np.arange(1, num_items + 1) ** -skew
    keys = draws.exponential(size=(users, num_items)) / weights
    return table_of(np.argsort(keys, axis=1)[:, :5].tolist(), num_items, trained=[[0]])


def lists_of(table: ListTable) -> list[list[int]]:
    return [table.item[row].tolist() for row in table.place]


@pytest.mark.parametrize("metric", ["coverage@5", "gini@5"])
def test_the_interval_is_that_of_resampled_lists_where_these_are_not_off(metric: str) -> None:
    table = drawn(400, 0)
    found = estimate([table], metric)
    whole = coverage if metric == "coverage@5" else gini
    lists, draws = lists_of(table), np.random.default_rng(1)
    resamples = []
    for _ in range(200):
        picked = draws.integers(0, len(lists), len(lists))
        frequency = np.bincount(np.array(lists)[picked].ravel(), minlength=300)
        if metric == "coverage@5":
            resamples.append((frequency > 0).mean())
        else:
            signed = (2 * np.arange(1, 301) - 301) * np.sort(frequency)
            resamples.append(signed.sum() / (300 * frequency.sum()))
    assert whole(lists, 300) == pytest.approx(found.mean, rel=1e-12)
    width, known = found.high - found.low, np.subtract(*np.quantile(resamples, [0.975, 0.025]))
    # Resampled lists cover fewer items and are less even than all lists; their spread is narrower
    # for coverage, where the jackknife's is on the wide side, by a factor of 2 at most.
    if metric == "coverage@5":
        assert np.quantile(resamples, 0.975) < found.mean
        assert known < width < 2 * known
    else:
        assert np.quantile(resamples, 0.025) > found.low
        assert width == pytest.approx(known, rel=0.25)


def test_more_popular_lists_are_found_to_cover_less() -> None:
    even, skewed = drawn(300, 0, skew=0.5), drawn(300, 0, skew=1.5)
    found = compare([skewed], [even], "coverage@5")
    assert found.high < 0
    assert found.p < 0.001
    assert found.difference == pytest.approx(
        coverage(lists_of(skewed), 300) - coverage(lists_of(even), 300), rel=1e-12
    )
    assert compare([skewed], [even], "gini@5").low > 0


def test_lists_of_several_seeds_are_paired_by_user_and_seed() -> None:
    tables = [drawn(100, seed) for seed in range(3)]
    base = [drawn(100, seed + 10, skew=0.7) for seed in range(3)]
    found = compare(tables, base, "novelty@5")
    assert (found.seeds, found.users) == (3, 100)
    assert estimate(tables, "gini@5").deviation is not None


@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_stay_in_the_range_of_a_metric(seeds: int) -> None:
    # Nearly all items are covered, by one seed more than by the other; half of them are alone.
    lists = [[[user] for user in range(18 - 9 * seed)] for seed in range(seeds)]
    lists = [[*some, *[[19]] * (20 - len(some))] for some in lists]
    tables = [table_of(some, 20, trained=[[0], [1, 2]]) for some in lists]
    for kind in ("coverage", "gini", "novelty", "arp"):
        found = estimate(tables, f"{kind}@1")
        low, high = range_of(f"{kind}@1")
        assert low <= found.low <= found.high <= high


def test_lists_of_other_users_or_rules_are_not_compared() -> None:
    with pytest.raises(InputError, match="differ in users"):
        compare([drawn(20, 0)], [drawn(21, 0)], "gini@5")
    other = replace(drawn(20, 0), protocol={"part": "test", "seen": "excluded"})
    with pytest.raises(InputError, match="differ in protocol: seen is 'excluded' and 'kept'"):
        compare([other], [drawn(20, 0)], "gini@5")


@pytest.mark.long
@pytest.mark.parametrize("metric", ["coverage@5", "gini@5"])
def test_intervals_hold_the_expected_metric_of_as_many_users(metric: str) -> None:
    tables = [drawn(150, seed) for seed in range(400)]
    expected = np.mean([metrics(table, [metric])[metric] for table in tables])
    held = 0
    for table in tables:
        found = estimate([table], metric, resamples=400)
        held += found.low <= expected <= found.high
    # 95 %, with a standard error of 1.1 %; that of coverage is on the wide side.
    assert 0.925 <= held / 400 <= 1.0


@pytest.mark.long
@pytest.mark.parametrize("metric", ["coverage@5", "gini@5"])
def test_lists_of_equal_models_are_seldom_found_to_differ(metric: str) -> None:
    found = [
        compare([drawn(150, 2 * seed)], [drawn(150, 2 * seed + 1)], metric, resamples=400).p
        for seed in range(400)
    ]
    # 5 %, with a standard error of 1.1 %.
    assert np.mean(np.array(found) < 0.05) <= 0.08


def test_every_metric_is_explained() -> None:
    assert all(f"`{kind}@K`" in (module.__doc__ or "") for kind in LIST_METRICS)
