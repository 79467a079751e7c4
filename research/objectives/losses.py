"""Losses over items at picked tokens: full and sampled softmax, BCE, gBCE, BPR.

Shared by next-item, cloze and MIP, each of which takes one as its `loss`. Each is a frozen config
and the module that it builds. In the formulas h is the head's transformed state, s(i) = e_i . h +
b_i an item's score (s(x) of a score x: its sigmoid), + the target, and j = 1..N the negatives.
A further loss is a config in a file of its own, as `research/objectives/in_batch_softmax.py` is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.data.negatives import Negatives, NegativesConfig
from research.errors import InputError
from research.model.item_table import ItemTable
from research.objectives.base import PER_READ, PER_ROW, Accuracy, Objective, Targets, View
from research.objectives.corrected_log_q import check_corrected, corrected_loss, log_sum_of_others
from research.objectives.head import Head
from research.randomness import fold, seed_of


@dataclass(frozen=True, eq=False, kw_only=True)
class ItemTargets(Targets):
    """One target item for each read token; every read token counts as one loss."""

    items_P: Tensor = field(metadata=PER_READ)
    """int64 [P]: the target item of each read token."""

    @staticmethod
    def of(view: View) -> ItemTargets:
        """Reads the view's picked tokens, with their true items as targets."""
        return ItemTargets(**vars(Targets.of_picked(view)), items_P=view.items_P)


class ItemLoss(nn.Module, ABC):
    """Abstract: the summed loss of each read token's target item against other items.

    `couples_rows`, `max_candidates`, `shared_negatives` and `offered_items` mean what they mean for
    an `Objective`.
    """

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """How a row's loss depends on other rows: by "items" that they offer or by their "states".

        None: it does not.
        """
        return None

    @property
    def max_candidates(self) -> int:
        """Most negatives that are scored one by one for a token; 0: there are none."""
        return 0

    @property
    def shared_negatives(self) -> int:
        """Negatives that are drawn once for all tokens of a step; 0: none are."""
        return 0

    @property
    def may_be_negative(self) -> bool:
        """Whether the loss of a token can be below 0."""
        return False

    def offered_items(self, view: View, batch: Batch) -> Tensor:
        """int64 [N]: see `Objective.offered_items`."""
        raise NotImplementedError(f"{type(self).__name__} couples rows by 'items' and offers none")

    @abstractmethod
    def targets(self, view: View, batch: Batch) -> ItemTargets:
        """The target items, and the negatives or candidates that they compete with, if listed."""

    @abstractmethod
    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum of the loss over read tokens; `items` is the encoder's item table."""

    def top_one(
        self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable
    ) -> Accuracy:
        """The share of read tokens whose target scores above all other classes of the head."""
        assert isinstance(targets, ItemTargets)
        correct = head.top_one(states_PD, targets.items_P, items).double()
        return Accuracy(correct, torch.full_like(correct, len(targets.items_P)))

    def accuracy(
        self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable
    ) -> Accuracy:
        """How many read tokens are right in the comparison that the loss makes, and of how many.

        Here: the target must score above every other class of the head; a tie is wrong.
        """
        return self.top_one(targets, states_PD, head, items)


class ItemLossConfig(ABC):
    """Abstract: a loss over items; a subclass is a frozen dataclass."""

    @abstractmethod
    def build(self, catalogue: Catalogue, purpose: str) -> ItemLoss:
        """The module; `purpose` keys its draws, so that two objectives draw independently."""


class ItemObjective(Objective):
    """Abstract: an objective that predicts the items of its corruption's picked tokens."""

    head: Head
    item_loss: ItemLoss

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """What its loss over items says."""
        return self.item_loss.couples_rows

    @property
    def max_candidates(self) -> int:
        """What its loss over items says."""
        return self.item_loss.max_candidates

    @property
    def may_be_negative(self) -> bool:
        """What its loss over items says."""
        return self.item_loss.may_be_negative

    @property
    def shared_negatives(self) -> int:
        """What its loss over items says."""
        return self.item_loss.shared_negatives

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """The picked tokens with their items, and the negatives or candidates of the loss."""
        return self.item_loss.targets(view, batch)

    def offered_items(self, view: View, batch: Batch) -> Tensor:
        """int64 [N]: what its loss over items offers."""
        return self.item_loss.offered_items(view, batch)

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum of the loss over picked items."""
        return self.item_loss.loss(targets, states_PD, self.head, items)


@dataclass(frozen=True, kw_only=True)
class FullSoftmax(ItemLossConfig):
    """-log softmax over all V items (BERT4Rec eq. 7-8; SASRec+ of Klenitskiy and Vasilev 2023)."""

    bf16_logits: bool = False
    """Whether states and item embeddings are rounded to bf16 for the products between them, though
    training is in fp32. It pays where a CPU has units for bf16 products (AMX); without them it is
    slower than fp32 (`experiments/LOG.md`, 2026-11-29)."""
    label_smoothing: float = 0.0
    """epsilon in [0, 1): the share of the target's probability that is spread over all V items
    alike, the target among them: the loss is then (1 - epsilon) times -log softmax at the target
    plus epsilon times its mean over the items (Szegedy et al. 2016, section 7). The two special
    classes of a head get no part of it."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(
                f"loss.label_smoothing is {self.label_smoothing}; it must be in [0, 1)"
            )

    def build(self, catalogue: Catalogue, purpose: str) -> FullSoftmaxLoss:
        """The loss's module; it has nothing to draw or to count."""
        return FullSoftmaxLoss(self)


class FullSoftmaxLoss(ItemLoss):
    """The full softmax: it draws nothing, as every item competes."""

    def __init__(self, config: FullSoftmax) -> None:
        super().__init__()
        self.config = config

    def targets(self, view: View, batch: Batch) -> ItemTargets:
        """The target items alone."""
        return ItemTargets.of(view)

    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum over read tokens of the cross-entropy."""
        assert isinstance(targets, ItemTargets)
        return head.softmax_loss(
            states_PD,
            targets.items_P,
            items,
            bf16=self.config.bf16_logits,
            label_smoothing=self.config.label_smoothing,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SampledTargets(ItemTargets):
    """Target items and their negatives, drawn for each token or for each row; the other is None."""

    negatives_PN: Tensor | None = field(default=None, metadata=PER_READ)
    """int64 [P, N]: each token's negatives; None: the tokens of a row share theirs."""
    negatives_RN: Tensor | None = field(default=None, metadata=PER_ROW)
    """int64 [R, N]: the negatives that all tokens of a row share; None: each token has its own."""

    def candidates(self) -> Tensor:
        """int64 [P, 1 + N]: each token's target item, then its negatives."""
        negatives_PN = self.negatives_PN
        if self.negatives_RN is not None:
            negatives_PN = self.negatives_RN.index_select(0, self.row_P)
        assert negatives_PN is not None
        return torch.cat([self.items_P[:, None], negatives_PN], dim=1)


@dataclass(frozen=True, kw_only=True)
class SampledLossConfig(ItemLossConfig):
    """Abstract: losses that compare the target's score with the scores of N drawn negatives."""

    negatives: NegativesConfig = NegativesConfig()
    """How negatives are drawn."""
    number: int = 1
    """N, the number of negatives for each target."""
    share: Literal["token", "sequence"] = "token"
    """Whether each token draws its own negatives or all tokens of a sequence share them."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def subtracts_log_q(self) -> bool:
        """Whether log q, q being an item's draw probability, is subtracted from its score."""
        return False

    @property
    def may_be_negative(self) -> bool:
        """Whether the loss of a token can be below 0."""
        return False

    def of_candidates(
        self, scores_PN1: Tensor, items_PN1: Tensor, log_q_V: Tensor, num_items: int
    ) -> Tensor:
        """Scalar: the sum over P of the loss, from the scores of each target and its negatives.

        `items_PN1` are their ids, and `log_q_V` has the log of each item's draw probability.
        """
        if self.subtracts_log_q:
            scores_PN1 = scores_PN1 - log_q_V[items_PN1]
        return self.of_scores(scores_PN1[:, 0], scores_PN1[:, 1:], num_items)

    @abstractmethod
    def of_scores(self, positive_P: Tensor, negative_PN: Tensor, num_items: int) -> Tensor:
        """Scalar: the sum over P of the loss, from the targets' and the negatives' scores."""

    def build(self, catalogue: Catalogue, purpose: str) -> SampledLoss:
        """The module; `InputError` unless 1 <= `number` < V and every user has negatives left."""
        return SampledLoss(self, catalogue, purpose)


class SampledLoss(ItemLoss):
    """Draws negatives, scores them and the targets, and applies the config's formula."""

    log_probability_V: Tensor
    """float32: log of each item's draw probability; [V + 1] where the mask can be drawn."""

    def __init__(self, config: SampledLossConfig, catalogue: Catalogue, purpose: str) -> None:
        super().__init__()
        if not 1 <= config.number < catalogue.num_items:
            raise InputError(
                f"loss.number is {config.number}; draw at least 1 negative and fewer than the "
                f"{catalogue.num_items} items"
            )
        self.config = config
        self.purpose = purpose
        self.num_items = catalogue.num_items
        self.negatives = Negatives(config.negatives, catalogue)
        self.register_buffer(
            "log_probability_V", self.negatives.log_probability_V, persistent=False
        )

    @property
    def may_be_negative(self) -> bool:
        """What its config says."""
        return self.config.may_be_negative

    @property
    def max_candidates(self) -> int:
        """N: the number of negatives for each token."""
        return self.config.number

    def targets(self, view: View, batch: Batch) -> SampledTargets:
        """The target items and their negatives, drawn by the random states of the batch's rows."""
        base = ItemTargets.of(view)
        random_states_R = fold(batch.random_states_S, seed_of("negatives", self.purpose))
        number, owners_R, pairs = self.config.number, batch.users_S, None
        negatives = self.negatives.to(random_states_R.device)
        if self.config.negatives.exclude == "window":
            owners_R = torch.arange(len(random_states_R), device=random_states_R.device)
            pairs = negatives.window_pairs(batch.packed)
        drawn_PN, drawn_RN = None, None
        if self.config.share == "sequence":
            drawn_RN = negatives.draw(random_states_R, owners_R, number, pairs)
        else:
            row_P = view.row_P
            random_states_P = fold(random_states_R[row_P], view.packed.positions_T[view.picked_P])
            drawn_PN = negatives.draw(random_states_P, owners_R[row_P], number, pairs)
        return SampledTargets(**vars(base), negatives_PN=drawn_PN, negatives_RN=drawn_RN)

    def loss(self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable) -> Tensor:
        """Scalar: the sum over read tokens of the config's formula."""
        assert isinstance(targets, SampledTargets)
        items_PN1 = targets.candidates()
        scores_PN1 = head.candidate_scores(states_PD, items_PN1, items)
        return self.config.of_candidates(
            scores_PN1, items_PN1, self.log_probability_V, self.num_items
        )

    def accuracy(
        self, targets: Targets, states_PD: Tensor, head: Head, items: ItemTable
    ) -> Accuracy:
        """In how many (target, negative) pairs the target scores higher; a tie is half a pair.

        Scores are compared without the log q correction.
        """
        assert isinstance(targets, SampledTargets)
        scores_PN1 = head.candidate_scores(states_PD, targets.candidates(), items)
        gaps_PN = scores_PN1[:, :1] - scores_PN1[:, 1:]
        correct = (gaps_PN.sign().double() + 1).sum() / 2
        return Accuracy(correct, torch.full_like(correct, gaps_PN.numel()))


@dataclass(frozen=True, kw_only=True)
class SampledSoftmax(SampledLossConfig):
    """-log softmax over the target and N negatives (Jean et al. 2015)."""

    number: int = 256
    """N, the number of negatives for each target."""
    log_q: bool = False
    """Whether log q, q being an item's draw probability, is subtracted from its score (Bengio and
    Senecal 2008)."""
    corrected: bool = False
    """Whether log q is subtracted from negatives alone, as the target is not sampled, and the loss
    is weighted by 1 - P(target) (Khrylchenko et al. 2025;
    `research/objectives/corrected_log_q.py`); needs `log_q`. Negatives equal to the target are left
    out. q does not know what `negatives.exclude` leaves out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_corrected(self.corrected, self.log_q)

    @property
    def subtracts_log_q(self) -> bool:
        """Whether log q is subtracted: `log_q`."""
        return self.log_q

    @property
    def may_be_negative(self) -> bool:
        """Whether the loss of a token can be below 0: `corrected`."""
        return self.corrected

    def of_candidates(
        self, scores_PN1: Tensor, items_PN1: Tensor, log_q_V: Tensor, num_items: int
    ) -> Tensor:
        """Scalar: the sum over P of the loss; with `corrected` the target is not corrected."""
        if not self.corrected:
            return super().of_candidates(scores_PN1, items_PN1, log_q_V, num_items)
        targets_P1, negatives_PN = items_PN1[:, :1], items_PN1[:, 1:]
        others_P, numbers_P = log_sum_of_others(
            scores_PN1[:, 1:] - log_q_V[negatives_PN], negatives_PN != targets_P1
        )
        return corrected_loss(
            scores_PN1[:, 0], others_P, numbers_P, log_q_V[targets_P1[:, 0]].exp()
        )

    def of_scores(self, positive_P: Tensor, negative_PN: Tensor, num_items: int) -> Tensor:
        """Scalar: the sum over P of the loss."""
        scores_PN1 = torch.cat([positive_P[:, None], negative_PN], dim=1)
        return (scores_PN1.logsumexp(1) - positive_P).sum()


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(SampledLossConfig):
    """-log sigmoid(s+) - sum_j log(1 - sigmoid(s_j)) (SASRec eq. 6, there with one negative)."""

    prior_shift: bool = False
    """Whether the loss is of scores + log(1 / N), the logit of the share of targets among what is
    scored, so that at scores of 0, near which training begins, the gradients of the target and of
    its N negatives cancel. Rankings are the same; with one negative the shift is 0."""

    def of_scores(self, positive_P: Tensor, negative_PN: Tensor, num_items: int) -> Tensor:
        """Scalar: the sum over P of the loss."""
        shift = prior_logit(1.0, self.number) if self.prior_shift else 0.0
        return F.softplus(-positive_P - shift).sum() + F.softplus(negative_PN + shift).sum()


@dataclass(frozen=True, kw_only=True)
class GeneralizedBCE(SampledLossConfig):
    """gBCE of gSASRec (Petrov and Macdonald 2023, eq. 11-13): the positive's sigmoid to the power
    beta = a (t (1 - 1/a) + 1/a) with a = N / (V - 1), and the mean over the N + 1 terms."""

    number: int = 256
    """N, the number of negatives for each target."""
    calibration: float = 0.75
    """t in [0, 1]: 0 is plain BCE (but for the mean over terms), 1 is fully calibrated."""
    prior_shift: bool = False
    """Whether the loss is of scores + log(beta / N); see `BinaryCrossEntropy`. Without it training
    begins with a long time at popularity (docs/pitfalls.md, "negatives outweigh the target")."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.calibration <= 1.0:
            raise InputError(f"loss.calibration is {self.calibration}; gBCE's t must be in [0, 1]")

    def of_scores(self, positive_P: Tensor, negative_PN: Tensor, num_items: int) -> Tensor:
        """Scalar: the sum over P of the loss."""
        share = self.number / (num_items - 1)
        beta = share * (self.calibration * (1 - 1 / share) + 1 / share)
        shift = prior_logit(beta, self.number) if self.prior_shift else 0.0
        positive = beta * F.softplus(-positive_P - shift).sum()
        return (positive + F.softplus(negative_PN + shift).sum()) / (self.number + 1)


def prior_logit(weight: float, number: int) -> float:
    """log(w / N): the logit of w / (w + N), the prior of a target of weight w beside N negatives.

    A binary cross-entropy of one score s for all has the gradient N sigmoid(s) - w (1 - sigmoid(s))
    in s, which is 0 at this s. At 0, near which scores begin, it is (N - w) / 2, and without a bias
    a model can only follow it by a direction that states and items have in common. Biases of rare
    classes begin at the logit of their prior in Lin et al. 2017 (RetinaNet, sections 3.3 and 4.1).
    """
    return math.log(weight / number)


@dataclass(frozen=True, kw_only=True)
class BayesianPersonalizedRanking(SampledLossConfig):
    """-mean_j log sigmoid(s+ - s_j) (Rendle et al. 2009; S3-Rec's MIP, eq. 5: one negative)."""

    inner_sigmoid: bool = False
    """Whether each score goes through a sigmoid before the difference: s(s(s+) - s(s_j)), as in
    S3-Rec's code. This double sigmoid keeps the loss of a comparison between 0.31 and 1.32, and its
    gradient is weak."""

    def of_scores(self, positive_P: Tensor, negative_PN: Tensor, num_items: int) -> Tensor:
        """Scalar: the sum over P of the loss."""
        if self.inner_sigmoid:
            # As published (docs/pitfalls.md, "sigmoid inside the sigmoid").
            positive_P, negative_PN = positive_P.sigmoid(), negative_PN.sigmoid()
        return F.softplus(negative_PN - positive_P[:, None]).sum() / self.number
