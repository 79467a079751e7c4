"""Mixed negatives: each target competes with the step's targets and with items drawn uniformly.

In-batch negatives alone are never items that nobody in the step has met, so a model is not told how
to score those. "Mixed negative sampling" (Yang et al. 2020, section 3.2) adds N items drawn
uniformly from the catalogue, which all tokens of the step share. With n_j how many tokens of the
step, over all processes and micro-batches, have target j, n the number of all tokens, and m_j how
often j was drawn, the loss is

    -log( exp s'(+) / (exp s'(+) + sum over j != + of (n_j + m_j) exp s'(j)) ),
    s'(j) = s(j) - log q(j),  q(j) = (n p(j) + N / V) / (n + N),

where p(j) is j's share of all training interactions and q the probability that a candidate of the
mixture is j. The draws are keyed by the smallest random state of the step's rows, so that they
differ between seeds and epochs, and are the same for any number of processes and micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.item_table import ItemTable
from research.objectives.base import WHOLE, Targets, View
from research.objectives.corrected_log_q import check_corrected
from research.objectives.head import Head
from research.objectives.in_batch_softmax import SharedCandidates, training_shares
from research.objectives.losses import ItemLoss, ItemLossConfig, ItemTargets
from research.randomness import below, fold, seed_of


@dataclass(frozen=True, kw_only=True)
class MixedSoftmax(ItemLossConfig):
    """-log softmax over the target, the step's other targets, and N items drawn uniformly."""

    number: int = 1024
    """N, the number of items drawn for a step, which all its tokens share."""
    log_q: bool = True
    """Whether log q(j), q being the probability that a candidate is j, is subtracted from the score
    of j."""
    corrected: bool = False
    """Whether log q is subtracted from the negatives alone, and the loss is weighted by
    1 - P(target) (Khrylchenko et al. 2025; `research/objectives/corrected_log_q.py`); needs
    `log_q`."""

    def __post_init__(self) -> None:
        check_types(self)
        check_corrected(self.corrected, self.log_q)
        if self.number < 1:
            raise InputError(f"loss.number is {self.number}; it must be at least 1")

    def build(self, catalogue: Catalogue, purpose: str) -> MixedSoftmaxLoss:
        """The module."""
        return MixedSoftmaxLoss(self, catalogue, purpose)


@dataclass(frozen=True, eq=False, kw_only=True)
class MixedTargets(ItemTargets):
    """Target items, and the candidates that all of them share."""

    candidates_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q], ascending: the distinct items that are a target of the step or were drawn."""
    target_numbers_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q]: how many tokens of all processes have each candidate as their target."""
    drawn_numbers_Q: Tensor = field(metadata=WHOLE)
    """int64 [Q]: how often each candidate was drawn."""


class MixedSoftmaxLoss(ItemLoss):
    """Draws the step's shared negatives, and compares each target with them and the others'."""

    training_share_V: Tensor
    """float32 [V]: each item's share of the training interactions."""

    def __init__(self, config: MixedSoftmax, catalogue: Catalogue, purpose: str) -> None:
        super().__init__()
        self.config = config
        self.purpose = purpose
        self.num_items = catalogue.num_items
        self.register_buffer("training_share_V", training_shares(catalogue), persistent=False)

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By items: each row's targets are candidates of all rows."""
        return "items"

    @property
    def may_be_negative(self) -> bool:
        """Whether the loss of a token can be below 0: `corrected`."""
        return self.config.corrected

    @property
    def shared_negatives(self) -> int:
        """N: the number of items drawn for all tokens of a step."""
        return self.config.number

    def offered_items(self, view: View, batch: Batch) -> Tensor:
        """int64: this process's target items, and V plus what it knows of the step's draws.

        That is the smallest of its rows' random states, as a number below 2^62; the smallest of all
        processes keys the draws.
        """
        states_R = batch.random_states_S.bitwise_and((1 << 62) - 1)
        smallest = states_R.sort().values[:1]
        return torch.cat([view.items_P, smallest + self.num_items])

    def targets(self, view: View, batch: Batch) -> MixedTargets:
        """The target items, and the candidates: all processes' targets and the step's draws."""
        offered = batch.offered_items
        assert offered is not None, "the model gathers what its rows offer"
        is_item = offered < self.num_items
        targets_N = offered[is_item]
        # Without any row there is no state, and nothing is drawn.
        state = offered[~is_item].sort().values[:1] - self.num_items
        columns_N = torch.arange(self.config.number if len(state) else 0, device=offered.device)
        streams_N = fold(fold(state, seed_of("mixed negatives", self.purpose)), columns_N)
        drawn_N = below(streams_N, self.num_items)
        candidates_Q, places = torch.cat([targets_N, drawn_N]).unique(return_inverse=True)
        number = len(targets_N)
        return MixedTargets(
            **vars(ItemTargets.of(view)),
            candidates_Q=candidates_Q,
            target_numbers_Q=places[:number].bincount(minlength=len(candidates_Q)),
            drawn_numbers_Q=places[number:].bincount(minlength=len(candidates_Q)),
        )

    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum over read tokens of the formula above."""
        assert isinstance(targets, MixedTargets)
        scores_PQ = head.candidate_scores(states_PD, targets.candidates_Q, items)
        from_step_Q = targets.target_numbers_Q.to(scores_PQ.dtype)
        numbers_Q = from_step_Q + targets.drawn_numbers_Q.to(scores_PQ.dtype)
        weights_Q, q_Q = numbers_Q, None
        if self.config.log_q:
            share_Q = self.training_share_V[targets.candidates_Q].to(scores_PQ.dtype)
            expected_Q = from_step_Q.sum() * share_Q + self.config.number / self.num_items
            q_Q = expected_Q / numbers_Q.sum()
            weights_Q = numbers_Q / q_Q
        candidates = SharedCandidates(targets.candidates_Q, numbers_Q, weights_Q, q_Q)
        return candidates.loss(scores_PQ, targets.items_P, corrected=self.config.corrected)
