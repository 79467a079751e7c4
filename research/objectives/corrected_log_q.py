"""The log q correction that knows the target to be given, not sampled (Khrylchenko et al. 2025).

A softmax over a sample stands for one over the catalogue once log q(j), the log of the probability
that a draw is item j, is subtracted from the score s(j) of each candidate. The usual correction
treats the target + as if it had been drawn too. "Correcting the LogQ Correction" (RecSys 2025,
arXiv 2507.09331) leaves it out of the sample. With j = 1..n the sampled items other than the
target (repetitions included), and q'(j) = q(j) / (1 - q(+)) the probability that such a draw is j,
the loss of a token is

    (1 - P) ( log sum_j exp(s(j) - log q'(j)) - s(+) ),
    P = exp s(+) / (exp s(+) + 1/n sum_j exp(s(j) - log q'(j)),

where P estimates the full softmax's probability of the target, and no gradient goes through it.
The expectation of the gradient is then near that of the full softmax. The loss itself is no
log-likelihood: it falls as a model becomes sure, and can be below 0. Without a sampled item other
than the target it is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from research.errors import InputError


def check_corrected(corrected: bool, log_q: bool) -> None:
    """`InputError` for a loss whose `corrected` is True without `log_q`."""
    if corrected and not log_q:
        raise InputError(
            "loss.corrected is True and loss.log_q is False; there is no correction to correct: "
            "set both, or neither"
        )


def log_sum_of_others(scores_PN: Tensor, counts_PN: Tensor) -> tuple[Tensor, Tensor]:
    """(log sums [P], numbers [P]) of those candidates that differ from the target.

    The sums are of exp(`scores_PN`) where `counts_PN` (bool) is True; a number is how many a sum
    covers, in the dtype of the scores. A sum of nothing is taken for exp 0, so that its gradient is
    finite.
    """
    numbers_P = counts_PN.to(scores_PN.dtype).sum(1)
    absent_PN = torch.where(numbers_P > 0, -torch.inf, 0.0)[:, None].to(scores_PN.dtype)
    return torch.where(counts_PN, scores_PN, absent_PN).logsumexp(1), numbers_P


def corrected_loss(
    positive_P: Tensor, others_P: Tensor, numbers_P: Tensor, target_q_P: Tensor
) -> Tensor:
    """Scalar: the sum over P of the loss above.

    `positive_P` are the targets' scores, `others_P` the log sums of exp of the others' scores less
    log q, `numbers_P` how many draws a sum covers, and `target_q_P` the probabilities q(+).
    """
    exists_P = numbers_P > 0
    # Where nothing else was sampled q(+) may be 1.
    others_P = others_P + torch.where(exists_P, torch.log1p(-target_q_P), 0.0)
    log_odds_P = positive_P - others_P + numbers_P.clamp(min=1.0).log()
    losses_P = (-log_odds_P).sigmoid().detach() * (others_P - positive_P)
    return torch.where(exists_P, losses_P, 0.0).sum()
