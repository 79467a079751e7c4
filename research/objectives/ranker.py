"""Ranking by a trained encoder and one objective's head."""

from __future__ import annotations

import torch
from torch import Tensor

from research.model.backbone import Backbone
from research.objectives.base import RankingObjective
from research.packed import Packed


class TrainedRanker:
    """An encoder and one ranking objective, answering as any `Ranker` does."""

    def __init__(self, encoder: Backbone, objective: RankingObjective) -> None:
        self.encoder = encoder
        self.objective = objective

    @torch.no_grad()
    def scores(self, histories: Packed, users_S: Tensor) -> Tensor:
        """[S, V] scores of all items, on the encoder's device."""
        return self.objective.head.scores(self._states(histories), self.encoder.item_table)

    @torch.no_grad()
    def candidate_scores(self, histories: Packed, users_S: Tensor, items_SN: Tensor) -> Tensor:
        """[S, N] scores of the given items."""
        items = self.encoder.item_table
        states_SD = self._states(histories)
        return self.objective.head.candidate_scores(states_SD, items_SN.to(states_SD.device), items)

    def _states(self, histories: Packed) -> Tensor:
        training = self.encoder.training
        self.encoder.eval()
        self.objective.eval()
        try:
            items = self.encoder.item_table
            histories = histories.to(items.weight.device)
            view = self.objective.ranking_view(
                histories, self.encoder.config.length, items.num_items
            )
            causal = self.objective.corruption.causal
            states_SD: Tensor = self.encoder(view.packed, causal=causal, read_P=view.picked_P)
            return states_SD
        finally:
            self.encoder.train(training)
            self.objective.train(training)
