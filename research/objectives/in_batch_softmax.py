"""In-batch softmax: each target competes with the targets of the step's other tokens.

    -log( exp s(+) / (exp s(+) + sum over j in B, j != + of n_j exp s(j)) )

B is the set of all target items of the step, over all processes and micro-batches, n_j is how many
tokens have target j, and n is the number of all tokens with a target (Hidasi et al. 2016, section
3.1.1, there under other losses; the usual loss of two-tower models). With `log_q`, log q(j) is
subtracted from every score s(j), q(j) being the probability that a target of the step is j (Yi et
al. 2019, eq. 3). It is taken for the share n_j / n of the step's own targets, or for j's share of
all training interactions, as `q_from` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.item_table import ItemTable
from research.model.kernels.target_and_others import target_and_others
from research.objectives.base import WHOLE, Targets, View
from research.objectives.corrected_log_q import check_corrected, corrected_loss
from research.objectives.head import Head
from research.objectives.losses import ItemLoss, ItemLossConfig, ItemTargets


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmax(ItemLossConfig):
    """-log softmax over the target and the targets of the step's other tokens."""

    log_q: bool = False
    """Whether log q(j), the log of the probability that a target of the step is j, is subtracted
    from the score of j."""
    q_from: Literal["step", "training"] = "step"
    """What q(j) is: j's share of the step's targets, or of all training interactions. With "step"
    every item that is in the step weighs the same, however rare it is, so popular items, which are
    in more steps, are still over-weighted; "training" is the correction of Yi et al."""
    corrected: bool = False
    """Whether log q is subtracted from the other targets alone, and the loss is weighted by
    1 - P(target) (Khrylchenko et al. 2025; `research/objectives/corrected_log_q.py`); needs
    `log_q`."""

    def __post_init__(self) -> None:
        check_types(self)
        check_corrected(self.corrected, self.log_q)
        if self.q_from == "training" and not self.log_q:
            raise InputError("loss.q_from is 'training' and loss.log_q is False; set both")

    def build(self, catalogue: Catalogue, purpose: str) -> InBatchSoftmaxLoss:
        """The loss's module; it has nothing to draw."""
        return InBatchSoftmaxLoss(self, catalogue)


@dataclass(frozen=True, eq=False, kw_only=True)
class InBatchTargets(ItemTargets):
    """Target items, and the candidates that all of them share: the step's distinct targets."""

    candidates_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q], ascending: the distinct target items of all processes."""
    numbers_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q]: how many tokens of all processes have each candidate as their target."""


class InBatchSoftmaxLoss(ItemLoss):
    """The in-batch softmax: it draws nothing, as the step's targets are the sample."""

    training_share_V: Tensor
    """float32 [V]: each item's share of the training interactions."""

    def __init__(self, config: InBatchSoftmax, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        if config.q_from == "training":
            self.register_buffer("training_share_V", training_shares(catalogue), persistent=False)

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By items: each row's targets are candidates of all rows."""
        return "items"

    @property
    def may_be_negative(self) -> bool:
        """Whether the loss of a token can be below 0: `corrected`."""
        return self.config.corrected

    def offered_items(self, view: View, batch: Batch) -> Tensor:
        """int64 [P]: the target items of this process, with repetitions."""
        return view.items_P

    def targets(self, view: View, batch: Batch) -> InBatchTargets:
        """The target items, and the candidates, counted over all processes
        (`batch.offered_items`)."""
        assert batch.offered_items is not None, "the model gathers what its rows offer"
        candidates_Q, numbers_Q = batch.offered_items.unique(return_counts=True)
        base = ItemTargets.of(view)
        return InBatchTargets(**vars(base), candidates_Q=candidates_Q, numbers_Q=numbers_Q)

    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum over read tokens of the formula above."""
        assert isinstance(targets, InBatchTargets)
        scores_PQ = head.candidate_scores(states_PD, targets.candidates_Q, items)
        numbers_Q, q_Q = targets.numbers_Q.to(scores_PQ.dtype), None
        weights_Q = numbers_Q
        if self.config.log_q and self.config.q_from == "step":
            # n_j equal candidates, log(n_j / n) subtracted from each, weigh n exp s(j) together.
            weights_Q = numbers_Q.sum()
            q_Q = numbers_Q / weights_Q
        elif self.config.log_q:
            q_Q = self.training_share_V[targets.candidates_Q].to(scores_PQ.dtype)
            weights_Q = numbers_Q / q_Q
        candidates = SharedCandidates(targets.candidates_Q, numbers_Q, weights_Q, q_Q)
        return candidates.loss(scores_PQ, targets.items_P, corrected=self.config.corrected)


def training_shares(catalogue: Catalogue) -> Tensor:
    """float32 [V]: each item's share of the training interactions; 0 for one that is no target."""
    counts_V = catalogue.training.counts_V.double()
    return (counts_V / counts_V.sum()).float()


@dataclass(frozen=True, eq=False)
class SharedCandidates:
    """A sample of items that all targets compete with; each target is one of them."""

    items_Q: Tensor
    """int64 [Q], ascending: the distinct items."""
    numbers_Q: Tensor
    """[Q]: how often each is in the sample, in the dtype of scores."""
    weights_Q: Tensor
    """[Q] or scalar: what exp(score) of an item counts for: `numbers_Q`, or that over `q_Q`."""
    q_Q: Tensor | None
    """[Q]: the probability that a draw is each item; None: scores are not corrected for it."""

    def loss(self, scores_PQ: Tensor, targets_P: Tensor, *, corrected: bool) -> Tensor:
        """Scalar: the sum over P of -log softmax, of the target against all other candidates.

        `scores_PQ` are of the distinct items. `corrected`: the target is not corrected for q.
        """
        columns_P = torch.searchsorted(self.items_Q, targets_P)
        bias_Q = self.weights_Q.log().expand(len(self.items_Q))
        positive_P, others_P = target_and_others(scores_PQ, bias_Q, columns_P)
        if corrected:
            assert self.q_Q is not None, "the config has been checked"
            numbers_P = self.numbers_Q.sum() - self.numbers_Q[columns_P]
            others_P = torch.where(numbers_P > 0, others_P, 0.0)
            return corrected_loss(positive_P, others_P, numbers_P, self.q_Q[columns_P])
        if self.q_Q is not None:
            positive_P = positive_P - self.q_Q.log()[columns_P]
        return -F.logsigmoid(positive_P - others_P).sum()
