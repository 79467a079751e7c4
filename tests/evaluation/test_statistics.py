"""Estimates, comparisons and Holm's correction against SciPy, hand numbers and slow twins."""

from dataclasses import replace
from itertools import permutations
from math import inf

import numpy as np
import pytest
from scipy import stats

from research.errors import InputError
from research.evaluation.metrics import per_user
from research.evaluation.statistics import Comparison, compare, estimate, holm
from research.evaluation.variance_components import interval_of
from tests.evaluation.reference_statistics import bootstrap_of_users_and_seeds, table_of, tables_of

# MRR 1, 1/2, 0, 1/4 and 1/2, 1/2, 1/4, 1/4: differences 1/2, 0, -1/4, 0.
FIRST, SECOND = table_of([1.0, 0.5, 0.0, 0.25]), table_of([0.5, 0.5, 0.25, 0.25])


def test_hand_numbers_of_an_estimate() -> None:
    found = estimate([FIRST, SECOND], "mrr")
    # Means 7/16 and 6/16; their deviation is (1/16) / sqrt 2.
    assert (found.mean, found.seeds, found.users) == (0.40625, 2, 4)
    assert found.deviation == pytest.approx(0.0441942, abs=1e-7)
    assert found.low < 0.40625 < found.high


def test_one_seed_has_no_deviation() -> None:
    assert estimate([FIRST], "mrr").deviation is None


def test_hand_numbers_of_a_comparison() -> None:
    found = compare([FIRST], [SECOND], "mrr")
    # Variance of the differences 76/768, of their mean a quarter of it; z are 1.95996 and 0.84162.
    assert (found.difference, found.seeds, found.users) == (0.0625, 1, 4)
    assert found.effect == pytest.approx(0.198680, abs=1e-6)
    assert found.smallest == pytest.approx(0.440650, abs=1e-5)
    # |1/2 - 1/4| is reached by all four patterns of two signs.
    assert found.p == 1.0


def test_a_smallest_difference_beyond_the_metrics_range_is_infinite() -> None:
    # As above, z of 1 - alpha / 2 is 5.32672, then 5.73073.
    assert compare([FIRST], [SECOND], "mrr", alpha=1e-7).smallest == pytest.approx(0.9702, abs=1e-4)
    assert compare([FIRST], [SECOND], "mrr", alpha=1e-8).smallest == np.inf


def test_differences_of_several_seeds_are_averaged_by_user() -> None:
    own = tables_of(np.array([[1.0, 0.5, 0.5], [0.5, 0.5, 1.0]]))
    base = tables_of(np.array([[0.5, 0.5, 0.25], [0.5, 0.25, 0.25]]))
    found = compare(own, base, "mrr")
    # By user 1/4, 1/8, 1/2: mean 7/24, variance 7/192.
    assert found.difference == pytest.approx(7 / 24, rel=1e-15)
    assert found.effect == pytest.approx((7 / 24) / 0.190941, rel=1e-5)


@pytest.mark.parametrize("metric", ["mrr", "hr@2"])
def test_the_interval_of_one_seed_is_scipys(metric: str) -> None:
    values = np.random.default_rng(0).beta(1, 3, 200)
    taken = values if metric == "mrr" else (values >= 0.5).astype(np.float64)
    known = stats.bootstrap(
        (taken,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    )
    found = estimate([table_of(values)], metric, resamples=5000)
    # Ends of 5,000 resamples are certain to 4 % of a standard error, on both sides.
    near = 0.2 * taken.std() / 200**0.5
    assert found.low == pytest.approx(known.confidence_interval.low, abs=near)
    assert found.high == pytest.approx(known.confidence_interval.high, abs=near)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.02, 0.2])
def test_the_interval_of_several_seeds_is_that_of_the_slow_twin(seeds: int, shift: float) -> None:
    draws = np.random.default_rng(seeds)
    values = 0.5 + 0.02 * draws.uniform(-1, 1, 31) + 0.1 * draws.uniform(-1, 1, (seeds, 31))
    values += shift * np.linspace(-1, 1, seeds)[:, None]
    level = 0.8
    found = estimate(tables_of(values), "mrr", level=level, resamples=20_000)
    slow = bootstrap_of_users_and_seeds(values, 10_000, seed=1)
    # Of 10,000 draws a 10 % point is certain to a hundredth of the interval, more or less.
    low, high = np.quantile(slow, [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_interval_of_a_difference_is_that_of_the_slow_twin(seeds: int) -> None:
    draws = np.random.default_rng(seeds)
    own, base = draws.uniform(0.3, 0.9, (2, seeds, 31))
    own += np.linspace(-0.1, 0.1, seeds)[:, None]
    found = compare(tables_of(own), tables_of(base), "mrr", level=0.8, resamples=2000)
    slow = bootstrap_of_users_and_seeds(own - base, 10_000, seed=1, least=-1.0)
    low, high = np.quantile(slow, [0.1, 0.9])
    # A 10 % point of 2,000 draws is certain to a 20th of the interval.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))


@pytest.mark.parametrize("metric", ["mrr", "hr@1", "ndcg@10", "map-r@5"])
@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_intervals_of_two_seeds_far_apart_stay_in_range(metric: str, level: float) -> None:
    ranks = np.random.default_rng(0).integers(1, 12, (2, 40)) * np.array([[1], [3]])
    tables, base = tables_of(1.0 / ranks), [table_of(np.full(40, 1 / 2))]
    values = np.stack([per_user(table, metric)[1] for table in tables])
    wide = interval_of(values, level, 2000, np.random.default_rng(0))
    assert wide[0] < 0.0
    found = estimate(tables, metric, level=level)
    assert 0.0 <= found.low < found.mean < found.high <= 1.0
    compared = compare(tables, base, metric, level=level)
    assert -1.0 <= compared.low < compared.difference < compared.high <= 1.0


def test_an_interval_of_one_bound_alone_has_no_width() -> None:
    for value in (0.0, 1.0):
        found = estimate(tables_of(np.full((3, 20), value)), "mrr")
        assert (found.low, found.high) == (value, value)
    found = estimate(tables_of(np.repeat([[0.0], [1.0]], 20, 1)), "mrr")
    assert (found.low, found.high) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_an_interval_turned_round_is_that_of_the_misses() -> None:
    hits = (np.random.default_rng(1).random((2, 50)) < [[0.1], [0.3]]).astype(np.float64)
    low, high = interval_of(hits, 0.9, 20_000, np.random.default_rng(0), (0.0, 1.0))
    turned = interval_of(1.0 - hits, 0.9, 20_000, np.random.default_rng(1), (0.0, 1.0))
    # A 5 % point of 20,000 draws is certain to 2 % of the interval, also with heavy tails.
    assert (1.0 - turned[1], 1.0 - turned[0]) == pytest.approx((low, high), abs=0.04 * (high - low))
    # The scale does not matter either.
    tenfold = interval_of(10 * hits, 0.9, 20_000, np.random.default_rng(0), (0.0, 10.0))
    assert tenfold == pytest.approx((10 * low, 10 * high), rel=1e-9)


def test_where_all_users_agree_the_seeds_are_a_t_test() -> None:
    # All that varies are the seeds; 60 users could be flipped 2^60 ways.
    values = np.array([0.50, 0.46, 0.55, 0.49])
    base = np.full((4, 60), 0.45)
    found = compare(tables_of(np.repeat(values[:, None], 60, 1)), tables_of(base), "mrr")
    # A sum over 4,096 values stands for an integral.
    assert found.p == pytest.approx(stats.ttest_1samp(values - 0.45, 0).pvalue, rel=1e-3)
    assert found.p > 0.05
    assert not found.significant(found.p)


@pytest.mark.parametrize("seeds", [1, 3])
def test_exchanging_the_sides_keeps_the_p_and_turns_the_sign(seeds: int) -> None:
    draws = np.random.default_rng(3)
    own, base = (tables_of(draws.uniform(0.1, 1.0, (seeds, 50))) for _ in range(2))
    one, other = compare(own, base, "mrr"), compare(base, own, "mrr")
    assert (one.p, one.smallest) == (other.p, other.smallest)
    assert (one.difference, one.effect) == (-other.difference, -other.effect)


@pytest.mark.parametrize("step", [0.05, -0.05])
def test_a_difference_is_found_in_either_direction(step: float) -> None:
    draws = np.random.default_rng(4)
    base = draws.uniform(0.3, 0.7, 80)
    found = compare([table_of(base + step + draws.normal(0, 0.02, 80))], [table_of(base)], "mrr")
    assert np.sign(found.difference) == np.sign(step)
    assert found.p == 1 / 10_001
    assert found.significant(found.p)


def test_users_are_paired() -> None:
    # Users differ much, and the cells by little, but for nearly every user.
    draws = np.random.default_rng(5)
    base = draws.uniform(0.1, 0.9, 100)
    own = base + draws.normal(0.01, 0.01, 100)
    assert stats.ttest_ind(own, base).pvalue > 0.7
    found = compare([table_of(own)], [table_of(base)], "mrr")
    assert found.p < 0.001
    shuffled = replace(table_of(base), rank=1.0 / draws.permutation(base))
    assert compare([table_of(own)], [shuffled], "mrr").p > 0.1


def test_users_are_paired_by_id_and_not_by_row() -> None:
    turned = replace(
        FIRST, user=FIRST.user[::-1], item=FIRST.item[::-1], rank=FIRST.rank[::-1].copy()
    )
    assert compare([FIRST], [turned], "mrr").effect == 0.0


def test_equal_tables_differ_by_nothing() -> None:
    found = compare([FIRST, SECOND], [FIRST, SECOND], "mrr")
    assert found == Comparison(0.0, 0.0, 0.0, p=1.0, effect=0.0, smallest=0.0, seeds=2, users=4)
    assert not found.significant(found.p)


def test_one_step_for_every_user_is_an_infinite_effect() -> None:
    assert compare([table_of([0.25] * 9)], [table_of([0.5] * 9)], "mrr").effect == -inf


def test_steps_that_are_equal_but_for_rounding_do_no_harm() -> None:
    base = np.random.default_rng(10).uniform(0.1, 0.5, 40)
    found = compare(tables_of(np.stack([base + 0.1] * 3)), tables_of(np.stack([base] * 3)), "mrr")
    assert found.effect > 1e10
    assert 0.0 <= found.smallest < 1e-10
    assert found.low == pytest.approx(0.1, rel=1e-12)


def test_one_table_serves_all_seeds() -> None:
    own = tables_of(np.random.default_rng(6).uniform(0.1, 1.0, (3, 30)))
    base = table_of(np.full(30, 0.5))
    assert compare(own, [base], "mrr") == compare(own, [base] * 3, "mrr")
    assert compare([base], own, "mrr").difference == -compare(own, [base], "mrr").difference


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    tables = tables_of(np.random.default_rng(7).uniform(0.1, 1.0, (3, 30)))
    assert estimate(tables, "mrr", seed=1) == estimate(tables, "mrr", seed=1)
    assert estimate(tables, "mrr", seed=1) != estimate(tables, "mrr", seed=2)


def test_a_finding_needs_the_p_and_the_interval() -> None:
    found = Comparison(0.1, 0.05, 0.15, p=0.01, effect=0.2, smallest=0.05, seeds=3, users=100)
    assert found.significant(0.04)
    assert not found.significant(0.05)
    assert not found.significant(0.04, alpha=0.01)
    assert not replace(found, low=-0.01).significant(0.04)
    assert replace(found, low=-0.2, high=-0.1).significant(0.04)


def test_holm_by_hand() -> None:
    # Sorted 0.005 * 4, 0.01 * 3, 0.03 * 2 and 0.04 * 1, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-15)
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.25]) == [0.25]
    assert holm([]) == []


def test_holm_keeps_the_order() -> None:
    for given in permutations([0.001, 0.02, 0.2, 0.02]):
        corrected = {0.001: 0.004, 0.02: 0.06, 0.2: 0.2}
        assert holm(given) == pytest.approx([corrected[each] for each in given], rel=1e-15)


def test_a_stricter_level_sees_less() -> None:
    found = [compare([FIRST], [SECOND], "mrr", alpha=alpha).smallest for alpha in (0.05, 0.01)]
    # (2.57583 + 0.84162) / (1.95996 + 0.84162).
    assert found[1] / found[0] == pytest.approx(1.21983, abs=1e-4)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"candidates": "uniform-100"}, "candidates is 'full' and 'uniform-100'"),
        ({"filters": {"user_core": 5}}, "filters is None and {'user_core': 5}"),
    ],
)
def test_tables_of_two_protocols_are_refused(protocol: dict[str, object], message: str) -> None:
    other = table_of([0.5, 0.5, 0.25, 0.25], **protocol)
    for call in (
        lambda: compare([FIRST], [other], "mrr"),
        lambda: compare([FIRST, other], [FIRST], "mrr"),
        lambda: estimate([FIRST, other], "mrr"),
    ):
        with pytest.raises(InputError, match=f"differ in protocol: {message}"):
            call()


def test_missing_and_repeated_users_are_refused() -> None:
    with pytest.raises(InputError, match="differ in users: 1 are only in the first and 0 only"):
        compare([FIRST], [table_of([1.0, 1.0, 1.0])], "mrr")
    twice = replace(FIRST, user=np.array([0, 1, 2, 2]), item=np.array([100, 101, 102, 102]))
    with pytest.raises(InputError, match="has 1 questions more than once"):
        estimate([twice], "mrr")


def test_one_user_and_no_table_are_refused() -> None:
    with pytest.raises(InputError, match="1 user cannot give an interval"):
        estimate([table_of([0.5])], "mrr")
    with pytest.raises(InputError, match="there is no rank table"):
        estimate([], "mrr")
    with pytest.raises(InputError, match="there is no rank table"):
        compare([], [], "mrr")


def test_seeds_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(InputError, match="3 rank tables cannot be paired with 2"):
        compare([FIRST] * 3, [SECOND] * 2, "mrr")
