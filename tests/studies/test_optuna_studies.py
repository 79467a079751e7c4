"""What Optuna is asked: draws, rules of pruning and importances, beside ours written out."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from research.errors import InputError
from research.studies.optuna_studies import (
    Curve,
    StoredTrial,
    drawing,
    drop_cut_line,
    importances_of,
    pruning_rule,
)
from research.studies.search import ASHA, TPE, MedianPruner, RandomSearch, SamplerConfig
from research.studies.space import Choice, Distribution, FloatRange

pytest.importorskip("optuna")
RATE = {"rate": FloatRange(0.0, 1.0)}


def past(number: int, rate: float, value: float) -> StoredTrial:
    """A complete trial with a single parameter."""
    return StoredTrial(
        number=number,
        state="complete",
        value=value,
        parameters={"rate": rate},
        distributions=RATE,
        curve=Curve(((1, value),), value),
    )


def drawn_rates(sampler: SamplerConfig, known: list[StoredTrial], number: int) -> list[float]:
    return [
        float(drawing(sampler, seed, known, [])("rate", RATE["rate"])) for seed in range(number)
    ]


def test_random_draws_cover_a_range_and_are_repeated_by_their_seed() -> None:
    rates = drawn_rates(RandomSearch(), [], 200)
    assert rates == drawn_rates(RandomSearch(), [], 200)
    # The mean of 200 uniform numbers is within 4 standard errors of a half.
    assert abs(statistics.mean(rates) - 0.5) < 4 * np.sqrt(1 / 12 / 200)
    assert min(rates) < 0.05
    assert max(rates) > 0.95


def test_tpe_draws_where_the_best_trials_were() -> None:
    known = [past(number, number / 20, -abs(number / 20 - 0.8)) for number in range(21)]
    rates = drawn_rates(TPE(startup_trials=5), known, 40)
    assert abs(statistics.median(rates) - 0.8) < 0.1
    # Below its number of startup trials it is random search.
    assert drawn_rates(TPE(startup_trials=50), known, 10) == drawn_rates(RandomSearch(), known, 10)


def test_a_parameter_whose_range_has_changed_is_not_drawn() -> None:
    draw = drawing(RandomSearch(), 0, [past(0, 0.5, 0.5)], [])
    with pytest.raises(InputError, match="'rate' is drawn from"):
        draw("rate", Choice(("a", "b")))


CURVES = [
    Curve(((1, 0.10), (2, 0.20), (3, 0.30)), 0.30),
    Curve(((1, 0.20), (2, 0.40), (3, 0.35)), 0.40),
    Curve(((1, 0.05),), None),
    Curve(((1, 0.30), (2, 0.30), (3, 0.50)), 0.50),
]


def below_median(earlier: list[Curve], own: list[tuple[int, float]]) -> bool:
    """The rule of `MedianPruner` with one startup trial, written out."""
    epoch, _ = own[-1]
    others = [dict(curve.points)[epoch] for curve in earlier if curve.value is not None]
    return max(value for _, value in own) < statistics.median(others)


@pytest.mark.parametrize("seed", range(20))
def test_the_median_rule_is_the_one_that_is_written_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.uniform(0.0, 0.6, 3).round(2)
    rule = pruning_rule(MedianPruner(startup_trials=1, startup_epochs=0), CURVES)
    own: list[tuple[int, float]] = []
    for epoch, value in enumerate(values, 1):
        own.append((epoch, float(value)))
        assert rule(epoch, float(value)) == below_median(CURVES, own)


def asha_passes(earlier: list[Curve], epoch: int, value: float, factor: int) -> bool:
    """Whether a trial is among the best 1/factor at a rung (at least the best), written out."""
    there = [dict(curve.points)[epoch] for curve in earlier if epoch in dict(curve.points)]
    ranked = sorted([*there, value], reverse=True)
    return value >= ranked[max(1, len(ranked) // factor) - 1]


@pytest.mark.parametrize("seed", range(20))
def test_successive_halving_is_the_one_that_is_written_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.uniform(0.0, 0.6, 3).round(2)
    rule = pruning_rule(ASHA(first_epoch=1, factor=2), CURVES)
    for epoch, value in enumerate(values, 1):
        # Rungs are at epochs 1 and 2; epoch 3 is between rungs.
        expected = epoch in (1, 2) and not asha_passes(CURVES, epoch, float(value), 2)
        assert rule(epoch, float(value)) == expected
        if expected:
            break


def test_startup_trials_and_epochs_are_not_pruned() -> None:
    assert not pruning_rule(MedianPruner(startup_trials=4, startup_epochs=0), CURVES)(1, 0.0)
    rule = pruning_rule(MedianPruner(startup_trials=3, startup_epochs=2), CURVES)
    assert [rule(1, 0.0), rule(2, 0.0)] == [False, True]


def test_the_parameter_that_matters_is_the_important_one() -> None:
    random = np.random.default_rng(0)
    distributions: dict[str, Distribution] = {
        "matters": FloatRange(0.0, 1.0), "idle": FloatRange(0.0, 1.0)
    }  # fmt: skip
    trials = []
    for number, (matters, idle) in enumerate(random.uniform(0.0, 1.0, (60, 2))):
        parameters = {"matters": float(matters), "idle": float(idle)}
        value = -float((matters - 0.3) ** 2)
        trials.append(
            StoredTrial(
                number=number,
                state="complete",
                value=value,
                parameters=parameters,
                distributions=distributions,
                curve=Curve((), value),
            )
        )
    importances = importances_of(trials)
    assert importances is not None
    assert list(importances) == ["matters", "idle"]
    assert importances["matters"] > 0.8
    assert sum(importances.values()) == pytest.approx(1.0)
    assert importances_of(trials[:3]) is None


def test_an_empty_journal_has_no_cut_line(tmp_path: Path) -> None:
    for text, kept in ((b"", b""), (b"{}", b""), (b"{}\n", b"{}\n"), (b"{}\n{", b"{}\n")):
        (tmp_path / "log").write_bytes(text)
        drop_cut_line(tmp_path / "log")
        assert (tmp_path / "log").read_bytes() == kept
    drop_cut_line(tmp_path / "none")
