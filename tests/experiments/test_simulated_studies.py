"""Studies simulated by the hundred: how often they find what is not there, and what is."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from research.evaluation.resampling import sign_flip_p
from research.evaluation.statistics import Comparison, compare, holm
from tests.evaluation.reference_statistics import table_of, tables_of

pytestmark = pytest.mark.long


def with_a_common_base(draws: np.random.Generator) -> list[np.ndarray]:
    """A base and three cells of one seed, with correlated MRR and nothing between them."""
    users = draws.uniform(0.3, 0.7, 40)
    return [users + draws.uniform(-0.2, 0.2, (1, 40)) for _ in range(4)]


def with_hits(draws: np.random.Generator) -> list[np.ndarray]:
    """HR@1: hit or missed, with users who are easy for all cells."""
    chances = draws.beta(1, 2, 40)
    return [(draws.random((1, 40)) < chances).astype(np.float64) for _ in range(4)]


def with_seeds_that_vary(draws: np.random.Generator) -> list[np.ndarray]:
    """Three seeds, each of which shifts all users of its cell; no cell is better than another."""
    users = draws.uniform(0.3, 0.7, 40)
    return [
        users + 0.05 * draws.standard_normal((3, 1)) + draws.uniform(-0.05, 0.05, (3, 40))
        for _ in range(4)
    ]


@pytest.mark.parametrize(
    ("study", "metric"),
    [(with_a_common_base, "mrr"), (with_hits, "hr@1"), (with_seeds_that_vary, "mrr")],
)
def test_without_a_difference_a_study_finds_one_at_most_at_its_level(
    study: Callable[[np.random.Generator], list[np.ndarray]], metric: str
) -> None:
    draws = np.random.default_rng(8)
    wrong = wrong_among_users = 0
    for number in range(300):
        base, *cells = study(draws)
        found = [
            compare(tables_of(cell), tables_of(base), metric, resamples=400, seed=number)
            for cell in cells
        ]
        corrected = holm([each.p for each in found])
        wrong += any(each.significant(p) for each, p in zip(found, corrected))
        alone = [sign_flip_p((cell - base).mean(0), 400, draws) for cell in cells]
        wrong_among_users += min(holm(alone)) < 0.05
    # 5 % of 300 are 15; 28 is the 99.9 % point of their number.
    assert wrong <= stats.binom.ppf(0.999, 300, 0.05) == 28
    # What the users alone say is true of these runs only.
    assert (wrong_among_users > 100) == (study is with_seeds_that_vary)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_smallest_difference_is_found_in_four_of_five_studies(seeds: int) -> None:
    draws = np.random.default_rng(9)
    studies, users = 300, 60
    noise = [
        (draws.uniform(-0.2, 0.2, (seeds, users)), 0.02 * draws.standard_normal((seeds, 1)))
        for _ in range(studies)
    ]
    base = table_of(np.full(users, 0.5))

    def all_compared(difference: float) -> list[Comparison]:
        return [
            compare(
                tables_of(0.5 + difference + of_users + (of_seeds if seeds > 1 else 0.0)),
                [base],
                "mrr",
                resamples=400,
            )
            for of_users, of_seeds in noise
        ]

    smallest = float(np.mean([each.smallest for each in all_compared(0.0)]))
    found = np.mean([each.p < 0.05 for each in all_compared(smallest)])
    # Three standard errors of 300 studies; with three seeds each knows the smallest but roughly.
    assert found == pytest.approx(0.8, abs=0.07 if seeds == 1 else 0.1)
