"""The simulations of tests and intervals: their tests by definition, and their tables."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import seed_intervals, seed_tests
from experiments.seed_tests import Setting, bootstrap_p, differences, mixed_model_p, seeds_p
from research.errors import InputError
from tests.evaluation.reference_statistics import table_of

Capture = pytest.CaptureFixture[str]
SETTING = Setting(name="small", num_users=30, users=0.1, seeds=0.05, rest=0.1)


def values_of(seeds: int, seed: int = 0, true_difference: float = 0.02) -> np.ndarray:
    return differences(SETTING, seeds, true_difference, np.random.default_rng(seed))


def test_the_t_test_of_the_seeds_is_scipys() -> None:
    values = values_of(5)
    known = stats.ttest_1samp(values.mean(1), 0.0).pvalue
    assert seeds_p(values, np.random.default_rng(0)) == pytest.approx(known, rel=1e-12)


def test_the_mixed_model_is_the_quasi_f_of_hand_numbers() -> None:
    # Users' means 2, 4, 6 and seeds' means 3, 5; the rests are +-1, 0, -+1.
    values = np.array([[2.0, 3.0, 4.0], [2.0, 5.0, 8.0]])
    # Mean squares: users 2 * 8 / 2 = 8, seeds 3 * 2 / 1 = 6, rest 4 / 2 = 2; error 8 + 6 - 2 of 6.
    free = 12**2 / (8**2 / 2 + 6**2 / 1 + 2**2 / 2)
    known = 2 * stats.t.sf(4 / 2**0.5, free)
    assert mixed_model_p(values, np.random.default_rng(0)) == pytest.approx(known, rel=1e-12)


def test_without_a_variance_of_seeds_the_mixed_model_is_the_t_test_of_users() -> None:
    values = values_of(3)
    values -= values.mean(1, keepdims=True) - values.mean()
    known = stats.ttest_1samp(values.mean(0), 0.0).pvalue
    assert mixed_model_p(values, np.random.default_rng(0)) == pytest.approx(known, rel=1e-12)


@pytest.mark.long
def test_the_variances_of_the_mixed_model_are_those_of_statsmodels_by_reml() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api = pytest.importorskip("statsmodels.api")
    values = values_of(4)
    frame = pd.DataFrame(
        [(value, f"s{s}", f"u{u}", 0) for (s, u), value in np.ndenumerate(values)],
        columns=["value", "seed", "user", "all"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = api.MixedLM.from_formula(
            "value ~ 1",
            data=frame,
            groups="all",
            vc_formula={"user": "0 + C(user)", "seed": "0 + C(seed)"},
        ).fit(reml=True)
    spread = seed_tests.spread_of(values)
    known = fitted.bse_fe["Intercept"]
    # Its optimizer stops near the optimum.
    found = (spread.users + spread.between - spread.within) ** 0.5
    assert found == pytest.approx(known, rel=1e-3)


def test_the_bootstrap_draws_seeds_and_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_tests, "RESAMPLES", 4000)
    seed_tests.user_weights.cache_clear()
    values, draws = values_of(3), np.random.default_rng(5)
    means = []
    for _ in range(4000):
        seeds, users = draws.integers(0, 3, 3), draws.integers(0, 30, 30)
        means.append(values[np.ix_(seeds, users)].mean())
    share = 2 * min((np.array(means) <= 0).mean(), (np.array(means) >= 0).mean())
    found = bootstrap_p(values, np.random.default_rng(6))
    seed_tests.user_weights.cache_clear()
    # Five standard errors of two shares of 4,000 draws.
    assert found == pytest.approx(share, abs=2 * 5 * (share / 2 / 2000) ** 0.5)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_simulated_differences_have_the_variances_asked_for(share: float) -> None:
    setting = replace(SETTING, num_users=4000, share=share)
    values = differences(setting, 40, 0.3, np.random.default_rng(0))
    by_user, by_seed = values.mean(0), values.mean(1)
    rest = values - by_user - by_seed[:, None] + values.mean()
    # 4,000 users: 2 to 4 %; 40 seeds: three standard errors of a deviation.
    assert rest.std() == pytest.approx(0.1 * (39 / 40) ** 0.5, rel=0.02)
    assert by_user.std() == pytest.approx((0.1**2 + 0.1**2 / 40) ** 0.5, rel=0.08)
    assert by_seed.std(ddof=1) == pytest.approx(0.05, rel=0.34)
    assert values.mean() == pytest.approx(0.3, abs=3 * 0.05 / 40**0.5)


def test_both_tables_have_a_row_for_each_setting_and_number_of_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(seed_tests, "SETTINGS", (SETTING,))
    seed_tests.main(["--studies", "3"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| small")]
    assert [row.split(" | ")[1] for row in rows] == ["1", "2", "3", "5", "10"] * 2
    # With one seed only the tests of users have an answer.
    assert [entry == "" for entry in rows[0][2:-2].split(" | ")[2:]] == [0, 1, 0, 1, 1, 0]


def test_variances_between_two_cells_are_measured(capsys: Capture, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for cell in ("a", "b"):
        for seed in range(3):
            folder = tmp_path / cell / str(seed) / "ranks"
            folder.mkdir(parents=True)
            table_of(1 / draws.integers(1, 9, 50)).save(folder / "test-full.npz")
    cells = [str(tmp_path / cell) for cell in ("a", "b")]
    seed_tests.main(["--measure", *cells, "--metric", "mrr"])
    assert re.fullmatch(
        r"3 seeds num_users 50 users [\d.]+ seeds [\d.]+ rest [\d.]+\n", capsys.readouterr().out
    )
    with pytest.raises(InputError, match="share 0 seeds; at least two are needed"):
        seed_tests.main(["--measure", cells[0], str(tmp_path)])


@pytest.mark.long
def test_intervals_are_compared_in_each_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(seed_intervals, "SETTINGS", seed_intervals.SETTINGS[:1])
    seed_intervals.main(["--studies", "3"])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| true mean | users | seeds' deviation | seeds | linear outside (%) |")
    assert len(rows) == len(seed_intervals.SEEDS)


def test_the_true_mean_is_that_of_many_users_and_seeds() -> None:
    setting = seed_intervals.Setting(num_users=40_000, constant=-2.0, users=1.0, seeds=0.3)
    hits = setting.hits(200, np.random.default_rng(0))
    # 200 seeds of deviation .3 * about .12: three standard errors.
    assert hits.mean() == pytest.approx(setting.true_mean, abs=0.009)
