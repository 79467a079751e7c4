"""A trained model as a ranker: an encoder and one objective whose head ranks all items.

Evaluation and recommendation rank through it, so that both read a history alike (docs/pitfalls.md,
"evaluation sees another layout"). Whatever precision the model was trained in, ranking is in true
fp32, because scores of lower precision would tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from research.model.backbone import Backbone
from research.model.kernels.precision import true_fp32
from research.model.kernels.scored_rows import ScoredRows
from research.model.kernels.upload import upload
from research.objectives.base import RankingObjective
from research.packed import Packed


@dataclass(frozen=True, eq=False)
class EncodedStates:
    """The states of histories, with the rows of the item table that they are scored against."""

    states_SD: Tensor
    """[S, D]: the head's transformed state of each history; without a graph."""
    rows: ScoredRows
    """The rows that compete, with their biases."""

    @property
    def columns(self) -> int:
        """The number of rows that compete: V, or V + 2 where special classes do."""
        return self.rows.columns

    @cached_property
    def largest_S(self) -> Tensor:
        """[S]: an upper bound on the magnitude of each history's scores; NaN or infinite: none."""
        return self.rows.largest(self.states_SD)

    def scores(self, first: int, last: int) -> Tensor:
        """[S, last - first]: scores of the columns from `first` to before `last`, in fp32."""
        with true_fp32(self.states_SD.device):
            return self.rows.scores(self.states_SD, first, last)

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """[S, N]: each history's scores of its row of `items_SN`, int64 [S, N], in fp32."""
        with true_fp32(self.states_SD.device):
            return self.rows.scores_of(self.states_SD, items_SN.to(self.states_SD.device))


class TrainedRanker:
    """An encoder and one ranking objective as a `Ranker` (`research/evaluation/ranker.py`)."""

    def __init__(self, encoder: Backbone, objective: RankingObjective) -> None:
        self.encoder = encoder
        self.objective = objective

    @torch.no_grad()
    def encode(self, histories: Packed, users_S: Tensor) -> EncodedStates:
        """The states of whole histories, on the encoder's device and without dropout.

        `histories` are on the host. `users_S` is not read: the model knows a user by the history
        alone.
        """
        items, training = self.encoder.item_table, self.encoder.training
        device = items.device
        head, causal = self.objective.head, self.objective.corruption.causal
        # Histories are cut to length on the host, so that the accelerator spends nothing on it.
        view = self.objective.ranking_view(histories, self.encoder.config.length, items.num_items)
        self.encoder.eval()
        self.objective.eval()
        try:
            with true_fp32(device):
                view = upload(view, device)
                states_SD = self.encoder(view.packed, causal=causal, read_P=view.picked_P)
                return EncodedStates(head.transform(states_SD), head.scored_rows(items))
        finally:
            self.encoder.train(training)
            self.objective.train(training)
