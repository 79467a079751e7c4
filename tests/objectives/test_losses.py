"""Item losses at scores typed in, against figures from a pocket calculator."""

from __future__ import annotations

import pytest
import torch

from research.errors import InputError
from research.objectives.corrected_log_q import corrected_loss, log_sum_of_others
from research.objectives.in_batch_softmax import SharedCandidates
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
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


def test_binary_cross_entropy_with_a_prior_shift_by_hand() -> None:
    loss = BinaryCrossEntropy(number=2, prior_shift=True).of_scores(RIGHT, WRONG, 11)
    # The scores are less by log 2, so that e^s is halved:
    # log(1 + 2) + log(1 + e/2) + log(1 + 1/(2e))
    assert loss.item() == pytest.approx(1.0986123 + 0.8582975 + 0.1688476, abs=1e-7)


def test_gbce_with_a_prior_shift_by_hand() -> None:
    config = GeneralizedBCE(number=2, calibration=0.75, prior_shift=True)
    # beta is 0.4 as above, and e^s a fifth: log(1 + 5), log(1 + e/5), log(1 + 1/(5e)).
    expected = (0.4 * 1.7917595 + 0.4341539 + 0.0709950) / 3
    assert config.of_scores(RIGHT, WRONG, 11).item() == pytest.approx(expected, abs=1e-7)


def gradient_of_a_common_score(config: BinaryCrossEntropy | GeneralizedBCE, score: float) -> float:
    """The derivative of the loss in one score that targets and negatives share."""
    common = torch.tensor(score, dtype=torch.float64, requires_grad=True)
    config.of_scores(common.expand(3), common.expand(3, config.number), 100).backward()
    assert common.grad is not None
    return common.grad.item()


@pytest.mark.parametrize("loss", [BinaryCrossEntropy, GeneralizedBCE])
def test_with_a_prior_shift_the_gradient_of_a_common_score_is_0_at_0(
    loss: type[BinaryCrossEntropy] | type[GeneralizedBCE],
) -> None:
    shifted = loss(number=16, prior_shift=True)
    assert gradient_of_a_common_score(shifted, -1.0) < 0.0
    assert gradient_of_a_common_score(shifted, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert gradient_of_a_common_score(shifted, 1.0) > 0.0


@pytest.mark.parametrize("loss", [BinaryCrossEntropy, GeneralizedBCE])
def test_without_a_prior_shift_many_negatives_push_a_common_score_down_at_0(
    loss: type[BinaryCrossEntropy] | type[GeneralizedBCE],
) -> None:
    assert gradient_of_a_common_score(loss(number=16), 0.0) > 0.0


def test_a_sampled_loss_checks_its_fields_when_it_is_made() -> None:
    with pytest.raises(InputError, match="prior_shift"):
        BinaryCrossEntropy(prior_shift="no")
    with pytest.raises(InputError, match="number"):
        BayesianPersonalizedRanking(number=1.5)


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


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_label_smoothing_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"loss\.label_smoothing is .*; it must be in \[0, 1\)"):
        FullSoftmax(label_smoothing=share)


def test_a_correction_without_log_q_is_refused() -> None:
    with pytest.raises(InputError, match=r"loss\.corrected is True and loss\.log_q is False"):
        SampledSoftmax(corrected=True)


def test_the_corrected_sampled_softmax_by_hand() -> None:
    # q: 0.5 of item 0, 0.25 of items 1 and 2. The target is item 0, whose draw is left out; q' of
    # items 1 and 2 is 0.25 / 0.5, so that exp(s - log q') is 2 e and 2 / e. With P = 1 / (1 + (e +
    # 1/e) 2/2) = 0.2447285, the loss is 0.7552715 log(2 (e + 1/e)) = 0.7552715 * 1.8200751.
    config = SampledSoftmax(number=3, log_q=True, corrected=True)
    loss = config.of_candidates(
        torch.tensor([[0.0, 1.0, -1.0, 5.0]], dtype=torch.float64),
        torch.tensor([[0, 1, 2, 0]]),
        torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log(),
        3,
    )
    assert loss.item() == pytest.approx(1.3746508, abs=1e-6)


def test_nothing_but_the_target_drawn_is_a_loss_of_0_with_finite_gradients() -> None:
    scores_PN = torch.tensor([[1.0, 3.0, 3.0], [0.5, 1.0, 2.0]], requires_grad=True)
    config = SampledSoftmax(number=2, log_q=True, corrected=True)
    log_q_V = torch.full((9,), 1 / 9).log()
    ids_PN = torch.tensor([[4, 4, 4], [4, 4, 5]])
    config.of_candidates(scores_PN, ids_PN, log_q_V, 9).backward()
    assert scores_PN.grad.isfinite().all()
    assert not scores_PN.grad[0].any()
    assert not scores_PN.grad[1, 1]
    assert scores_PN.grad[1, [0, 2]].all()


# Scores of six items, of which item 1 is the target, and how often each is drawn.
SCORES_V = torch.tensor([0.3, 1.0, -0.5, 0.8, 0.0, -1.2], dtype=torch.float64)
Q_V = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], dtype=torch.float64)


def mean_gradient(corrected: bool, number: int, steps: int) -> torch.Tensor:
    """The gradient for the scores, over many samples of `number` items."""
    drawn = torch.multinomial(
        Q_V, steps * number, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    ids = torch.cat([torch.ones(steps, 1, dtype=torch.int64), drawn.view(steps, number)], dim=1)
    scores_V = SCORES_V.clone().requires_grad_()
    config = SampledSoftmax(number=number, log_q=True, corrected=corrected)
    (config.of_candidates(scores_V[ids], ids, Q_V.log(), 6) / steps).backward()
    return scores_V.grad


def test_the_corrected_gradient_is_nearer_to_that_of_the_full_softmax() -> None:
    full_V = SCORES_V.softmax(0)
    full_V[1] -= 1
    usual_V, corrected_V = (mean_gradient(each, 20, 20_000) for each in (False, True))
    off = [(gradient_V - full_V).abs().max().item() for gradient_V in (usual_V, corrected_V)]
    # The usual correction counts the target as a draw with weight 1 / q, and is off by 0.042; the
    # other one by 0.017, the bias of a quotient of means. Standard errors are below 0.002.
    assert off[0] > 0.035
    assert off[1] < 0.022


def test_the_mixture_stands_for_the_whole_catalogue() -> None:
    # Twice item 0 and once items 1 and 2 from the step; items 1 and 3 drawn, of q typed in.
    candidates = SharedCandidates(
        items_Q=torch.tensor([0, 1, 2, 3]),
        numbers_Q=torch.tensor([2.0, 2.0, 1.0, 1.0]),
        weights_Q=torch.tensor([2.0, 2.0, 1.0, 1.0]) / torch.tensor([0.4, 0.2, 0.2, 0.1]),
        q_Q=torch.tensor([0.4, 0.2, 0.2, 0.1]),
    )
    scores_PQ = torch.zeros(1, 4)
    usual = candidates.loss(scores_PQ, torch.tensor([2]), corrected=False)
    # The target weighs 1 / 0.2, the others 5, 10 and 10: log(30 / 5).
    assert usual.item() == pytest.approx(1.7917595, abs=1e-6)
    corrected = candidates.loss(scores_PQ, torch.tensor([2]), corrected=True)
    # 0.8 (5 + 10 + 10) = 20 in sum, 4 in the mean of 5 draws: P = 1 / 5, and 0.8 log 20.
    assert corrected.item() == pytest.approx(0.8 * 2.9957323, abs=1e-6)


def test_a_sum_over_no_other_candidate_is_counted_as_none() -> None:
    sums_P, numbers_P = log_sum_of_others(
        torch.tensor([[5.0, 6.0]]), torch.tensor([[False, False]])
    )
    assert numbers_P.tolist() == [0.0]
    assert sums_P.isfinite().all()
    loss = corrected_loss(torch.tensor([1.0]), sums_P, numbers_P, torch.tensor([1.0]))
    assert loss.item() == 0.0
