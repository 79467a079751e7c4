"""Sign flips and resampled means against hand numbers, SciPy and their slow twins."""

import numpy as np
import pytest
from scipy import stats

from research.evaluation.resampling import resampled_means, sign_flip_p
from tests.evaluation.reference_statistics import every_sign_p, flipped_sums, index_means


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # Of eight patterns only +++ and --- reach 6.
        ([1.0, 2.0, 3.0], 0.25),
        # 3 + 1 + 1 and 3 + 1 - 1 (twice) and their negatives reach 3; 3 - 1 - 1 does not.
        ([3.0, 1.0, -1.0], 0.75),
        # A sum of 0 is reached by every pattern.
        ([1.0, 2.0, -3.0], 1.0),
        # Users without a difference do not matter.
        ([0.0, 1.0, 0.0, 2.0, 3.0, 0.0], 0.25),
        ([0.0, 0.0], 1.0),
        ([], 1.0),
        ([0.5], 1.0),
    ],
)
def test_few_differences_are_counted_out(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences), 10_000, generator()) == p


@pytest.mark.parametrize("number", [2, 3, 7, 10])
def test_all_patterns_give_the_p_of_scipy_and_of_the_definition(number: int) -> None:
    draws = generator(number)
    own, base = draws.random(number), draws.random(number)
    known = stats.permutation_test(
        (own, base),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    found = sign_flip_p(own - base, 10_000, generator())
    assert found == pytest.approx(known.pvalue, abs=1e-12)
    assert found == every_sign_p((own - base).tolist())


def test_random_patterns_agree_with_all_patterns() -> None:
    differences = np.array([0.3, 0.1, -0.2, 0.5, 0.1, -0.4, 0.2, 0.6, -0.1, 0.3, 0.2, 0.1])
    every = every_sign_p(differences.tolist())
    drawn = sign_flip_p(differences, 4000, generator())
    # 4,096 patterns are more than 4,000: drawn. Four standard errors of a share.
    assert drawn != every
    assert drawn == pytest.approx(every, abs=4 * (every * (1 - every) / 4000) ** 0.5)


@pytest.mark.parametrize("number", [13, 16, 100, 2049])
def test_signs_looked_up_by_bytes_add_up_as_signs_drawn_one_by_one(number: int) -> None:
    differences = generator(number).normal(0.3 / number**0.5, 1.0, number)
    sums = np.abs(flipped_sums(np.abs(differences), 4000, seed=1))
    slow = (sums >= abs(differences.sum())).mean()
    fast = sign_flip_p(differences, 8000, generator(2))
    # Five standard errors of the difference of two shares.
    error = (slow * (1 - slow) * (1 / 4000 + 1 / 8000)) ** 0.5
    assert fast == pytest.approx(slow, abs=5 * error)


def test_sums_that_tie_with_the_observed_one_count() -> None:
    # 30 tenths, 20 of them positive: |sum| = 10 tenths is 20 or more of 30 signs alike.
    differences = np.array([0.1] * 20 + [-0.1] * 10)
    known = stats.binomtest(20, 30).pvalue
    # 0.1 added up has no exact sum; at 20,000 draws four standard errors are 0.006.
    assert sign_flip_p(differences, 20_000, generator()) == pytest.approx(known, abs=0.006)


def test_differences_that_are_zero_but_for_rounding_are_zero() -> None:
    assert sign_flip_p(np.full(9, 0.1 + 0.2 - 0.3), 10_000, generator()) == 1.0


def test_the_smallest_p_is_one_over_the_draws_and_one() -> None:
    assert sign_flip_p(np.full(100, 0.01), 999, generator()) == 0.001


def test_the_p_is_symmetric() -> None:
    differences = generator(3).normal(0.1, 1.0, 100)
    one, other = (sign_flip_p(each, 1000, generator()) for each in (differences, -differences))
    assert one == other


@pytest.mark.parametrize(
    "values",
    [
        np.repeat([0.0, 1.0], [70, 30]),
        np.repeat([-1.0, 0.0, 0.5], [1, 96, 3]),
        generator(4).random(101),
        # More different values than places: neighbours share one.
        generator(5).exponential(size=3001),
    ],
    ids=["two values", "few differences", "all different", "shared places"],
)
def test_resampled_means_spread_as_means_of_drawn_users(values: np.ndarray) -> None:
    fast = resampled_means(values, 5000, generator())
    slow = index_means(values, 5000, seed=1)
    error = values.std() / len(values) ** 0.5
    # Standard errors of 5,000 draws: of their mean 1/70 of a standard error, of a 2.5 % point 1/27.
    assert fast.mean() == pytest.approx(values.mean(), abs=0.05 * error)
    assert fast.std() == pytest.approx(error, rel=0.04)
    points = [0.025, 0.25, 0.5, 0.75, 0.975]
    # Few values make the means a grid, where a point may fall to either side.
    near = 0.2 * error + (1 / len(values) if len(np.unique(values)) < 4 else 0.0)
    assert np.quantile(fast, points) == pytest.approx(np.quantile(slow, points), abs=near)


def test_resampling_one_value_gives_it() -> None:
    assert resampled_means(np.full(7, 0.25), 5, generator()).tolist() == [0.25] * 5
