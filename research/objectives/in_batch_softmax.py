"""In-batch softmax: each target competes with the targets of the step's other tokens.

    -log( exp s(+) / (exp s(+) + sum over j in B, j != + of n_j exp s(j)) )

B is the set of all target items of the step, over all processes and micro-batches, n_j is how many
tokens have target j, and n is the number of all tokens with a target (Hidasi et al. 2016, section
3.1.1, there under other losses; the usual loss of two-tower models). With `log_q`, log(n_j / n) is
subtracted from every score s(j), the log of the probability that a target of the step is j; this
makes the sampled softmax unbiased (Yi et al. 2019, eq. 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.model.item_table import ItemTable
from research.objectives.base import WHOLE, Targets, View
from research.objectives.head import Head
from research.objectives.losses import ItemLoss, ItemLossConfig, ItemTargets


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmax(ItemLossConfig):
    """-log softmax over the target and the targets of the step's other tokens."""

    log_q: bool = False
    """Whether the log of an item's share of the step's targets is subtracted from its score."""

    def build(self, catalogue: Catalogue, purpose: str) -> InBatchSoftmaxLoss:
        """The loss's module; it has nothing to draw or to count."""
        return InBatchSoftmaxLoss(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class InBatchTargets(ItemTargets):
    """Target items, and the candidates that all of them share: the step's distinct targets."""

    candidates_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q], ascending: the distinct target items of all processes."""
    numbers_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q]: how many tokens of all processes have each candidate as their target."""


class InBatchSoftmaxLoss(ItemLoss):
    """The in-batch softmax: it draws nothing, as the step's targets are the sample."""

    def __init__(self, config: InBatchSoftmax) -> None:
        super().__init__()
        self.log_q = config.log_q

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By items: each row's targets are candidates of all rows."""
        return "items"

    def offered_items(self, view: View) -> Tensor:
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
        target_columns_P1 = torch.searchsorted(targets.candidates_Q, targets.items_P)[:, None]
        positive_P1 = scores_PQ.gather(1, target_columns_P1)
        numbers_Q = targets.numbers_Q.to(scores_PQ.dtype)
        if self.log_q:
            # n_j equal candidates, log(n_j / n) subtracted from each, weigh n exp s(j) together.
            total = numbers_Q.sum()
            positive_P1 = positive_P1 - (numbers_Q / total).log()[target_columns_P1]
            adjusted_PQ = scores_PQ + total.log()
        else:
            adjusted_PQ = scores_PQ + numbers_Q.log()
        all_PQ = adjusted_PQ.scatter(1, target_columns_P1, positive_P1)
        return (all_PQ.logsumexp(1) - positive_P1[:, 0]).sum()
