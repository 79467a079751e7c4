"""Contrasts of factors: weights by hand, and values against loops written from the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from research.evaluation.contrasts import Contrast, contrasts_of, range_of_sum, weighted_sum
from research.evaluation.statistics import (
    compare,
    comparison_of,
    estimate,
    estimate_of,
    user_values,
)
from tests.evaluation.reference_statistics import table_of, tables_of

TWO_BY_TWO = {"a": ("0", "1"), "b": ("0", "1")}
THREE = {"a": ("x", "y"), "b": ("1", "2", "3"), "c": ("n", "m")}
FIRST = {"a": "x", "b": "2", "c": "n"}


def test_weights_of_two_by_two_by_hand() -> None:
    assert contrasts_of(TWO_BY_TWO, {"a": "0", "b": "0"}) == [
        Contrast(("a",), ("1",), ("0",), {
            ("1", "0"): 0.5, ("1", "1"): 0.5, ("0", "0"): -0.5, ("0", "1"): -0.5,
        }),
        Contrast(("b",), ("1",), ("0",), {
            ("0", "1"): 0.5, ("1", "1"): 0.5, ("0", "0"): -0.5, ("1", "0"): -0.5,
        }),
        Contrast(("a", "b"), ("1", "1"), ("0", "0"), {
            ("1", "1"): 1.0, ("0", "0"): 1.0, ("1", "0"): -1.0, ("0", "1"): -1.0,
        }),
    ]  # fmt: skip


def test_each_level_is_compared_with_the_reference() -> None:
    found = [(each.factors, each.levels, each.references) for each in contrasts_of(THREE, FIRST)]
    assert found == [
        (("a",), ("y",), ("x",)),
        (("b",), ("1",), ("2",)),
        (("b",), ("3",), ("2",)),
        (("c",), ("m",), ("n",)),
        (("a", "b"), ("y", "1"), ("x", "2")),
        (("a", "b"), ("y", "3"), ("x", "2")),
        (("a", "c"), ("y", "m"), ("x", "n")),
        (("b", "c"), ("1", "m"), ("2", "n")),
        (("b", "c"), ("3", "m"), ("2", "n")),
    ]


def test_a_factor_of_one_level_has_no_effect() -> None:
    one = {"a": ("x",), "b": ("1", "2")}
    (only,) = contrasts_of(one, {"a": "x", "b": "1"})
    assert only.factors == ("b",)


def by_definition(contrast: Contrast, values: dict[tuple[str, ...], float]) -> float:
    """The mean over the other factors of differences, or of differences of differences."""
    names = list(THREE)
    others = [name for name in names if name not in contrast.factors]
    total, count = 0.0, 0
    for rest in itertools.product(*(THREE[name] for name in others)):

        def at(*levels: str, rest: tuple[str, ...] = rest) -> float:
            chosen = dict(zip(others, rest)) | dict(zip(contrast.factors, levels))
            return values[tuple(chosen[name] for name in names)]

        if len(contrast.factors) == 1:
            total += at(contrast.levels[0]) - at(contrast.references[0])
        else:
            (one, two), (first, second) = contrast.levels, contrast.references
            total += (at(one, two) - at(first, two)) - (at(one, second) - at(first, second))
        count += 1
    return total / count


def test_contrasts_are_means_of_differences() -> None:
    draws = np.random.default_rng(0)
    values = {each: float(draws.random()) for each in itertools.product(*THREE.values())}
    for contrast in contrasts_of(THREE, FIRST):
        found = sum(weight * values[each] for each, weight in contrast.weights.items())
        assert found == pytest.approx(by_definition(contrast, values), rel=1e-12)


def test_contrasts_are_the_coefficients_of_a_linear_model() -> None:
    # With two levels of each, coded -1/2 and 1/2, and a term for every product of factors.
    draws = np.random.default_rng(1)
    factors = dict.fromkeys("abc", ("0", "1"))
    cells = list(itertools.product("01", repeat=3))
    values = draws.random(8)
    codes = np.array([[int(level) - 0.5 for level in cell] for cell in cells])
    subsets = [each for size in range(4) for each in itertools.combinations(range(3), size)]
    design = np.stack([codes[:, list(each)].prod(1) for each in subsets], axis=1)
    coefficients = dict(zip(subsets, np.linalg.solve(design, values)))
    for contrast in contrasts_of(factors, dict.fromkeys("abc", "0")):
        found = sum(
            weight * values[cells.index(cell)]  # type: ignore[arg-type]
            for cell, weight in contrast.weights.items()
        )
        places = tuple("abc".index(factor) for factor in contrast.factors)
        assert found == pytest.approx(coefficients[places], rel=1e-10)


def test_a_difference_of_two_cells_is_their_comparison() -> None:
    draws = np.random.default_rng(2)
    own, base = (tables_of(draws.uniform(0.1, 1.0, (3, 40))) for _ in range(2))
    values = weighted_sum([(1.0, user_values(own, "mrr")), (-1.0, user_values(base, "mrr"))])
    assert comparison_of(values, bounds=(-1.0, 1.0)) == compare(own, base, "mrr")
    assert estimate_of(user_values(own, "mrr"), bounds=(0.0, 1.0)) == estimate(own, "mrr")


def test_one_table_serves_all_seeds() -> None:
    own = np.array([[0.5, 0.25], [1.0, 0.75]])
    one = user_values([table_of([0.5, 0.5])], "mrr")
    assert weighted_sum([(2.0, own), (-1.0, one)]).tolist() == [[0.5, 0.0], [1.5, 1.0]]


def test_a_sum_of_bounded_values_has_bounds() -> None:
    assert range_of_sum([0.5, 0.5, -0.5, -0.5], (0.0, 1.0)) == (-1.0, 1.0)
    assert range_of_sum([1.0, -1.0, -1.0, 1.0], (0.0, 1.0)) == (-2.0, 2.0)
    assert range_of_sum([2.0, -1.0], (-1.0, 3.0)) == (-5.0, 7.0)
