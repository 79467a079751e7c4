"""In-batch softmax: each item is told from the items that the other tokens of the step predict.

    -log( exp s(+) / (exp s(+) + sum over j in B, j != + of n_j exp s(j)) )

B are the different items that all rows of the step predict, over all processes and micro-batches,
n_j how often j is among them (Hidasi et al. 2016, section 3.1.1, there under other losses; the
usual loss of two-tower models). With `log_q` a score loses log(n_j / n), its probability of being
among the batch's, which makes the sampled softmax unbiased (Yi et al. 2019, eq. 3).
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
    """-log softmax over the target and the items that the step's other tokens predict."""

    log_q: bool = False
    """Subtract the log of how often an item is among the step's from its score."""

    def build(self, catalogue: Catalogue, purpose: str) -> InBatchSoftmaxLoss:
        """The loss."""
        return InBatchSoftmaxLoss(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class InBatchTargets(ItemTargets):
    """An item a read token, and the step's different items, among which it stands."""

    candidates_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q], ascending: the items that the rows of all processes predict, each once."""
    numbers_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q]: how often each of them is predicted."""


class InBatchSoftmaxLoss(ItemLoss):
    """Nothing is drawn: the batch itself is the sample."""

    def __init__(self, config: InBatchSoftmax) -> None:
        super().__init__()
        self.log_q = config.log_q

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By the items that every row offers to the others."""
        return "items"

    def offered(self, view: View) -> Tensor:
        """The items that the rows predict."""
        return view.items_P

    def targets(self, view: View, batch: Batch) -> InBatchTargets:
        """The items, and those of the whole step."""
        assert batch.offered is not None, "the model gathers what its rows offer"
        candidates_Q, numbers_Q = batch.offered.unique(return_counts=True)
        base = ItemTargets.of(view)
        return InBatchTargets(**vars(base), candidates_Q=candidates_Q, numbers_Q=numbers_Q)

    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum over read tokens."""
        assert isinstance(targets, InBatchTargets)
        scores_PQ = head.candidate_scores(states_PD, targets.candidates_Q, items)
        right_P1 = torch.searchsorted(targets.candidates_Q, targets.items_P)[:, None]
        positive_P1 = scores_PQ.gather(1, right_P1)
        numbers_Q = targets.numbers_Q.to(scores_PQ.dtype)
        if self.log_q:
            # Each of n_j equal candidates loses log(n_j / n): together they weigh n, as all others.
            total = numbers_Q.sum()
            positive_P1 = positive_P1 - (numbers_Q / total).log()[right_P1]
            others_PQ = scores_PQ + total.log()
        else:
            others_PQ = scores_PQ + numbers_Q.log()
        all_PQ = others_PQ.scatter(1, right_P1, positive_P1)
        return (all_PQ.logsumexp(1) - positive_P1[:, 0]).sum()
