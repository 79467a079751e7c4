"""A trained pair as a ranker: an encoder and the objective whose head ranks.

Whatever precision trained them, they rank in true fp32: rounder scores would tie.
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
    """Histories as states, beside the rows that they are scored against."""

    states_SD: Tensor
    """[S, D] what is multiplied with the rows; without a graph."""
    rows: ScoredRows
    """What competes."""

    @property
    def columns(self) -> int:
        """V; V + 2 where special classes compete."""
        return self.rows.columns

    @cached_property
    def largest_S(self) -> Tensor:
        """[S]: a bound on the magnitude of the scores; NaN or infinite where there is none."""
        return self.rows.largest(self.states_SD)

    def scores(self, first: int, last: int) -> Tensor:
        """[S, last - first] scores of the columns from `first` to before `last`."""
        with true_fp32(self.states_SD.device):
            return self.rows.scores(self.states_SD, first, last)

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """[S, N] scores of each history's own items."""
        with true_fp32(self.states_SD.device):
            return self.rows.scores_of(self.states_SD, items_SN.to(self.states_SD.device))


class TrainedRanker:
    """An encoder and one ranking objective, answering as any `Ranker` does."""

    def __init__(self, encoder: Backbone, objective: RankingObjective) -> None:
        self.encoder = encoder
        self.objective = objective

    @torch.no_grad()
    def encode(self, histories: Packed, users_S: Tensor) -> EncodedStates:
        """The states of whole histories, on the encoder's device; without dropout."""
        items, training = self.encoder.item_table, self.encoder.training
        device = items.device
        head, causal = self.objective.head, self.objective.corruption.causal
        # Cut on the host, where it costs an accelerator nothing.
        view = self.objective.ranking_view(histories, self.encoder.config.length, items.num_items)
        self.encoder.eval()
        self.objective.eval()
        try:
            with true_fp32(device):
                view = upload(view, device)
                states_SD = self.encoder(view.packed, causal=causal, read_P=view.picked_P)
                return EncodedStates(head.transformed(states_SD), head.competing(items))
        finally:
            self.encoder.train(training)
            self.objective.train(training)
