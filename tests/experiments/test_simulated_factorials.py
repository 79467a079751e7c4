"""The simulation of factorial studies: what it plants, and that few effects are found by chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.simulated_factorials import (
    COMBINATIONS,
    Setting,
    found,
    planted_share,
    row_of,
    simulated_effects,
    simulated_ranks,
)


def test_what_is_planted_is_one_effect_alone() -> None:
    shares = {each: planted_share(each) for each in itertools.product("01", repeat=2)}
    # Either factor's levels have the same mean, so neither has a main effect.
    assert shares == {
        ("0", "0"): 0.5, ("0", "1"): -0.5, ("1", "0"): -0.5, ("1", "1"): 0.5
    }  # fmt: skip
    assert [planted_share(["0"]), planted_share(["1"]), planted_share([])] == [0.0, 1.0, 0.0]


def test_a_planted_effect_lowers_ranks_where_it_should() -> None:
    setting = Setting(seeds=3, luck=0.0, planted=("B",), size=2.0)
    ranks = list(simulated_ranks(setting, 50, np.random.default_rng(0)))
    assert {each.shape for each in ranks} == {(3, 50)}
    means = {combination: np.log(own).mean() for combination, own in zip(COMBINATIONS, ranks)}
    assert max(mean for each, mean in means.items() if each[1] == "1") < min(
        mean for each, mean in means.items() if each[1] == "0"
    )


def test_a_row_has_an_entry_for_each_column() -> None:
    row = row_of(Setting(seeds=2, luck=0.1, planted=("A", "B"), size=3.0), 2, 30, seed=0)
    assert row[:3] == ["2", "0.1", "A x B"]
    assert len(row) == 9
    assert row[7].endswith(" %")
    assert row_of(Setting(seeds=1, luck=0.0), 1, 30, seed=0)[6:] == ["", "", ""]


@pytest.mark.long
@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (3, 0.1)])
def test_effects_that_are_not_there_are_found_at_the_level_at_most(seeds: int, luck: float) -> None:
    draws = np.random.default_rng(seeds)
    studies = [simulated_effects(Setting(seeds, luck), 60, draws) for _ in range(100)]
    for size, number in ((1, 300), (2, 300)):
        wrong = sum(
            found(effect)
            for effects in studies
            for effect in effects
            if len(effect.factors) == size
        )
        # The 99.9 % point of their number, were all tests independent.
        assert wrong <= stats.binom.ppf(0.999, number, 0.05) == 28
    corrected = sum(any(effect.significant for effect in effects) for effects in studies)
    assert corrected <= stats.binom.ppf(0.999, 100, 0.05)
