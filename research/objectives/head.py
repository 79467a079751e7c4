"""Output heads: from hidden states to scores of items, with a tied or an own table.

PAD does not exist and the mask's row is outside the table, so neither competes (T3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from research.model.candidate_scores import candidate_scores
from research.model.encoder import Encoder, EncoderConfig, activate, initialise


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How a hidden state is turned into scores."""

    table: Literal["tied", "own"] = "tied"
    """Score against the encoder's item embeddings, or against a table of the head's own."""
    bias: bool = False
    """A learned bias an item."""
    transform: bool = False
    """Dense layer, activation and LayerNorm before scoring (BERT4Rec, eq. 7)."""


class Head(nn.Module):
    """Scores of all items, of given items, or the table itself."""

    def __init__(
        self, config: HeadConfig, encoder: EncoderConfig, num_items: int, seed: int, purpose: str
    ) -> None:
        super().__init__()
        self.config = config
        self.activation = encoder.activation
        if config.transform:
            self.dense = nn.Linear(encoder.width, encoder.width)
            self.norm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps)
        if config.table == "own":
            self.item_table = nn.Embedding(num_items, encoder.width)
        self.bias = nn.Parameter(torch.zeros(num_items)) if config.bias else None
        initialise(self, encoder.init_std, seed, purpose)

    def transformed(self, hidden_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: what is multiplied with the table."""
        if not self.config.transform:
            return hidden_PD
        normed_PD: Tensor = self.norm(activate(self.dense(hidden_PD), self.activation))
        return normed_PD

    def table_VD(self, encoder: Encoder) -> Tensor:
        """[V, D]: the embeddings that items are scored with."""
        if self.config.table == "tied":
            return encoder.table_VD()
        own_VD: Tensor = self.item_table.weight
        return own_VD

    def scores(self, hidden_PD: Tensor, encoder: Encoder) -> Tensor:
        """[P, V]: scores of every item."""
        scores_PV = self.transformed(hidden_PD) @ self.table_VD(encoder).T
        return scores_PV if self.bias is None else scores_PV + self.bias

    def candidate_scores(self, hidden_PD: Tensor, items_PN: Tensor, encoder: Encoder) -> Tensor:
        """[P, N]: scores of the given items, each row its own."""
        table_VD = self.table_VD(encoder)
        scores_PN = candidate_scores(self.transformed(hidden_PD), table_VD, items_PN)
        return scores_PN if self.bias is None else scores_PN + self.bias[items_PN]
