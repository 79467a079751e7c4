"""Losses over items at picked tokens: full and sampled softmax, BCE, gBCE, BPR.

Shared by next-item, cloze and MIP. Each is a frozen config and one function of scores; h is the
head's transformed state, s(i) = e_i . h + b_i, + the target, j = 1..N the negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.data.negatives import Negatives, NegativesConfig
from research.errors import InputError
from research.model.backbone import Backbone
from research.objectives.base import Accuracy, View
from research.objectives.head import Head
from research.randomness import fold, seed_of


@dataclass(frozen=True, kw_only=True)
class FullSoftmax:
    """-log softmax over all V items (BERT4Rec eq. 7-8; SASRec+ of Klenitskiy and Vasilev 2023)."""


@dataclass(frozen=True, kw_only=True)
class SampledSoftmax:
    """-log softmax over the target and N negatives (Jean et al. 2015)."""

    negatives: NegativesConfig = NegativesConfig()
    """How negatives are drawn."""
    number: int = 256
    """N, negatives a target."""
    log_q: bool = False
    """Subtract log q of each item's draw probability from its score (Bengio and Senecal 2008)."""
    share: Literal["token", "sequence"] = "token"
    """Whether each token draws its own negatives or a sequence's tokens share them."""


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """-log s(s+) - sum_j log(1 - s(s_j)) (SASRec eq. 6, there with one negative)."""

    negatives: NegativesConfig = NegativesConfig()
    """How negatives are drawn."""
    number: int = 1
    """N, negatives a target."""
    share: Literal["token", "sequence"] = "token"
    """Whether each token draws its own negatives or a sequence's tokens share them."""


@dataclass(frozen=True, kw_only=True)
class GeneralizedBCE:
    """gBCE of gSASRec (Petrov and Macdonald 2023, eq. 11-13): the positive's sigmoid to the power
    beta = a (t (1 - 1/a) + 1/a) with a = N / (V - 1), and the mean over the N + 1 terms."""

    negatives: NegativesConfig = NegativesConfig()
    """How negatives are drawn."""
    number: int = 256
    """N, negatives a target."""
    calibration: float = 0.75
    """t in [0, 1]: 0 is plain BCE (up to the mean), 1 fully calibrated."""
    share: Literal["token", "sequence"] = "token"
    """Whether each token draws its own negatives or a sequence's tokens share them."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.calibration <= 1.0:
            raise InputError(f"loss.calibration is {self.calibration}; gBCE's t must be in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class BayesianPersonalizedRanking:
    """-mean_j log s(s+ - s_j) (Rendle et al. 2009; S3-Rec's MIP, eq. 5, with one negative)."""

    negatives: NegativesConfig = NegativesConfig()
    """How negatives are drawn."""
    number: int = 1
    """N, negatives a target."""
    inner_sigmoid: bool = False
    """Squash each score by a sigmoid before the difference: s(s(s+) - s(s_j)), as S3-Rec's code has
    it (T17); the loss of a comparison then stays between 0.31 and 1.32."""
    share: Literal["token", "sequence"] = "token"
    """Whether each token draws its own negatives or a sequence's tokens share them."""


SampledLoss = SampledSoftmax | BinaryCrossEntropy | GeneralizedBCE | BayesianPersonalizedRanking
ItemLossConfig = FullSoftmax | SampledLoss


def sampled_loss(
    config: SampledLoss, positive_P: Tensor, negative_PN: Tensor, num_items: int
) -> Tensor:
    """The sum over P of one of the losses above, from scores (log q already subtracted)."""
    if isinstance(config, SampledSoftmax):
        scores_PN1 = torch.cat([positive_P[:, None], negative_PN], dim=1)
        return (scores_PN1.logsumexp(1) - positive_P).sum()
    if isinstance(config, BinaryCrossEntropy):
        return F.softplus(-positive_P).sum() + F.softplus(negative_PN).sum()
    if isinstance(config, GeneralizedBCE):
        share = config.number / (num_items - 1)
        beta = share * (config.calibration * (1 - 1 / share) + 1 / share)
        total = beta * F.softplus(-positive_P).sum() + F.softplus(negative_PN).sum()
        return total / (config.number + 1)
    if config.inner_sigmoid:
        positive_P, negative_PN = positive_P.sigmoid(), negative_PN.sigmoid()
    return F.softplus(negative_PN - positive_P[:, None]).sum() / config.number


class ItemLoss(nn.Module):
    """The sum of an item loss at a view's picked tokens."""

    def __init__(self, config: ItemLossConfig, catalogue: Catalogue, purpose: str) -> None:
        super().__init__()
        self.config = config
        self.purpose = purpose
        if not isinstance(config, FullSoftmax):
            if not 1 <= config.number < catalogue.num_items:
                raise InputError(
                    f"loss.number is {config.number}; draw at least 1 negative and fewer than the "
                    f"{catalogue.num_items} items"
                )
            self.negatives = Negatives(config.negatives, catalogue)

    def forward(
        self, view: View, hidden_TD: Tensor, batch: Batch, head: Head, encoder: Backbone
    ) -> Tensor:
        """Scalar: the sum of the loss over a view's picked tokens."""
        hidden_PD = hidden_TD.index_select(0, view.picked_P)
        if isinstance(self.config, FullSoftmax):
            return head.softmax_loss(hidden_PD, view.targets_P, encoder)
        items_PN1 = torch.cat([view.targets_P[:, None], self._negatives(view, batch)], dim=1)
        scores_PN1 = head.candidate_scores(hidden_PD, items_PN1, encoder)
        if isinstance(self.config, SampledSoftmax) and self.config.log_q:
            scores_PN1 = scores_PN1 - self.negatives.log_probability_V[items_PN1]
        return sampled_loss(self.config, scores_PN1[:, 0], scores_PN1[:, 1:], encoder.num_items)

    def top_one(self, view: View, hidden_TD: Tensor, head: Head, encoder: Backbone) -> Accuracy:
        """At how many picked tokens the target scores highest of all items."""
        hidden_PD = hidden_TD.index_select(0, view.picked_P)
        correct = head.top_one(hidden_PD, view.targets_P, encoder).double()
        return Accuracy(correct, torch.full_like(correct, len(view.picked_P)))

    def comparisons(
        self, view: View, hidden_TD: Tensor, batch: Batch, head: Head, encoder: Backbone
    ) -> Accuracy:
        """How often the target scores higher than a negative; a tie is half right."""
        assert not isinstance(self.config, FullSoftmax)
        items_PN1 = torch.cat([view.targets_P[:, None], self._negatives(view, batch)], dim=1)
        hidden_PD = hidden_TD.index_select(0, view.picked_P)
        scores_PN1 = head.candidate_scores(hidden_PD, items_PN1, encoder)
        gaps_PN = scores_PN1[:, :1] - scores_PN1[:, 1:]
        correct = (gaps_PN.sign().double() + 1).sum() / 2
        return Accuracy(correct, torch.full_like(correct, gaps_PN.numel()))

    def _negatives(self, view: View, batch: Batch) -> Tensor:
        """int64 [P, N], from the random states of the batch's rows alone."""
        assert not isinstance(self.config, FullSoftmax)
        states_S = fold(batch.states_S, seed_of("negatives", self.purpose))
        number, owners_S, pairs = self.config.number, batch.users_S, None
        if self.config.negatives.exclude == "window":
            owners_S = torch.arange(len(states_S), device=states_S.device)
            pairs = self.negatives.window_pairs(batch.packed)
        if self.config.share == "sequence":
            return self.negatives.draw(states_S, owners_S, number, pairs)[view.owner_P]
        states_P = fold(states_S[view.owner_P], view.packed.positions_T[view.picked_P])
        return self.negatives.draw(states_P, owners_S[view.owner_P], number, pairs)
