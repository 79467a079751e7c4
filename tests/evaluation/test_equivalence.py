"""Tests within a margin against SciPy's t test, statsmodels' TOST, hand numbers and simulation."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from scipy import stats

from research.errors import InputError
from research.evaluation.equivalence import MarginTest, compare_within, holm_within
from tests.evaluation.reference_statistics import table_of, tables_of


def test_with_one_seed_it_is_the_z_test_of_the_users() -> None:
    draws = np.random.default_rng(0)
    base = draws.uniform(0.3, 0.7, 50)
    values = base + draws.normal(0.002, 0.05, 50)
    found = compare_within([table_of(values)], [table_of(base)], "mrr", 0.01)
    differences = values - base
    error = stats.sem(differences)
    assert found.no_worse == pytest.approx(
        stats.norm.sf((differences.mean() + 0.01) / error), rel=1e-9
    )
    assert found.equivalent == pytest.approx(
        max(found.no_worse, stats.norm.sf((0.01 - differences.mean()) / error)), rel=1e-9
    )


def test_with_one_seed_it_is_the_tost_of_statsmodels() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    draws = np.random.default_rng(1)
    base = draws.uniform(0.3, 0.7, 80)
    for shift in (-0.02, 0.0, 0.004):
        values = base + draws.normal(shift, 0.03, 80)
        found = compare_within([table_of(values)], [table_of(base)], "mrr", 0.01)
        p, (_, lower), _ = weightstats.ztost(values - base, -0.01, 0.01)
        assert (found.no_worse, found.equivalent) == pytest.approx((lower, p), rel=1e-9)


@pytest.mark.parametrize("shift", [-0.03, 0.0, 0.01])
def test_where_all_users_agree_it_is_the_t_test_of_the_seeds(shift: float) -> None:
    values = 0.5 + shift + np.array([0.004, -0.01, 0.008, 0.002])
    base = np.full((4, 60), 0.5)
    tables = tables_of(np.repeat(values[:, None], 60, 1))
    found = compare_within(tables, tables_of(base), "mrr", 0.02)
    differences = values - 0.5
    above = stats.ttest_1samp(differences, -0.02, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, 0.02, alternative="less").pvalue
    # A sum over 4,096 values stands for an integral.
    assert found.no_worse == pytest.approx(above, rel=2e-3)
    assert found.equivalent == pytest.approx(max(above, below), rel=2e-3)


def test_one_side_is_no_worse_and_not_equivalent() -> None:
    draws = np.random.default_rng(2)
    base = draws.uniform(0.3, 0.7, 200)
    better = base + draws.normal(0.05, 0.05, 200)
    found = compare_within([table_of(better)], [table_of(base)], "mrr", 0.01)
    assert found.no_worse < 1e-6
    assert found.equivalent > 0.99
    turned = compare_within([table_of(base)], [table_of(better)], "mrr", 0.01)
    assert turned.no_worse > 0.99


def test_equal_tables_are_equivalent_within_any_margin() -> None:
    table = table_of([0.5, 0.25, 1.0])
    assert compare_within([table], [table], "mrr", 1e-6) == MarginTest(1e-6, 0.0, 0.0)


def test_each_question_is_corrected_over_the_cells() -> None:
    tests = [MarginTest(0.1, 0.01, 0.02), MarginTest(0.1, 0.02, 0.6)]
    assert holm_within(tests) == [MarginTest(0.1, 0.02, 0.04), MarginTest(0.1, 0.02, 0.6)]
    assert holm_within([]) == []


@pytest.mark.parametrize("margin", [0.0, -0.002, nan, inf])
def test_a_margin_that_is_not_above_0_is_refused(margin: float) -> None:
    table = table_of([0.5, 0.25, 1.0])
    with pytest.raises(InputError, match=r"margin is .*; it must be above 0: the largest"):
        compare_within([table], [table], "mrr", margin)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_cell_that_is_worse_by_the_margin_passes_at_most_at_the_level(seeds: int) -> None:
    draws = np.random.default_rng(3)
    base, passed = [table_of(np.full(40, 0.5))], 0
    for _ in range(200):
        of_seeds = 0.01 * draws.standard_normal((seeds, 1)) * (seeds > 1)
        values = (
            0.45 + of_seeds + draws.uniform(-0.2, 0.2, 40) + draws.uniform(-0.1, 0.1, (seeds, 40))
        )
        passed += compare_within(tables_of(values), base, "mrr", 0.05).no_worse < 0.05
    # 5 % of 200 are 10; 21 is the 99.9 % point of their number.
    assert passed <= stats.binom.ppf(0.999, 200, 0.05) == 21
