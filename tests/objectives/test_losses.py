"""Item losses at scores typed in, against figures from a pocket calculator."""

from __future__ import annotations

import pytest
import torch

from research.errors import InputError
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    GeneralizedBCE,
    SampledSoftmax,
)

# log(1 + e^x) at -1, 0 and 1 is 0.3132617, 0.6931472 and 1.3132617.
RIGHT = torch.tensor([0.0], dtype=torch.float64)
WRONG = torch.tensor([[1.0, -1.0]], dtype=torch.float64)


def test_sampled_softmax_by_hand() -> None:
    loss = SampledSoftmax(number=2).of_scores(RIGHT, WRONG, 11)
    assert loss.item() == pytest.approx(1.4076060, abs=1e-7)  # log(1 + e + 1/e)


def test_binary_cross_entropy_by_hand() -> None:
    loss = BinaryCrossEntropy(number=2).of_scores(RIGHT, WRONG, 11)
    # log 2 + log(1 + e) + log(1 + 1/e)
    assert loss.item() == pytest.approx(0.6931472 + 1.3132617 + 0.3132617, abs=1e-7)


def test_gbce_by_hand() -> None:
    loss = GeneralizedBCE(number=2, calibration=0.75).of_scores(RIGHT, WRONG, 11)
    # alpha = 2/10; beta = 0.2 (0.75 (1 - 5) + 5) = 0.4; three terms are averaged.
    expected = (0.4 * 0.6931472 + 1.3132617 + 0.3132617) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 0.2), (0.5, 0.6)])
def test_beta_runs_from_one_to_the_sampling_rate(calibration: float, beta: float) -> None:
    config = GeneralizedBCE(number=2, calibration=calibration)
    without = torch.full((1, 2), -torch.inf, dtype=torch.float64)
    loss = config.of_scores(RIGHT, without, 11)
    assert loss.item() == pytest.approx(beta * 0.6931472 / 3, abs=1e-7)


def test_bpr_by_hand() -> None:
    loss = BayesianPersonalizedRanking(number=2).of_scores(RIGHT, WRONG, 11)
    assert loss.item() == pytest.approx((1.3132617 + 0.3132617) / 2, abs=1e-7)


def test_bpr_of_squashed_scores_by_hand() -> None:
    # Sigmoids of -1, 0 and 1 are 0.2689414, 0.5 and 0.7310586, so that the gaps are 0.2310586:
    # log(1 + e^0.2310586) and log(1 + e^-0.2310586).
    config = BayesianPersonalizedRanking(number=2, inner_sigmoid=True)
    loss = config.of_scores(RIGHT, WRONG, 11)
    assert loss.item() == pytest.approx((0.8153352 + 0.5842766) / 2, abs=1e-6)


@pytest.mark.parametrize(("right", "expected"), [(1e3, 0.3132617), (-1e3, 1.3132617)])
def test_squashed_scores_bound_the_loss(right: float, expected: float) -> None:
    config = BayesianPersonalizedRanking(inner_sigmoid=True)
    loss = config.of_scores(torch.tensor([right]), torch.tensor([[-right]]), 11)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("calibration", [-0.1, 1.5])
def test_a_calibration_out_of_range_is_refused(calibration: float) -> None:
    with pytest.raises(InputError, match=r"loss\.calibration is .*; gBCE's t must be in \[0, 1\]"):
        GeneralizedBCE(calibration=calibration)
