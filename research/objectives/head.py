"""Output heads: from hidden states to scores of items, with a tied or an own table.

PAD does not exist and the mask's row is outside the table, so neither competes (T3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from research.errors import InputError
from research.model.candidate_scores import candidate_scores
from research.model.encoder import TransformerConfig, TransformerEncoder, activate
from research.model.initial import initialize


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How a hidden state is turned into scores."""

    table: Literal["tied", "own"] = "tied"
    """Score against the encoder's item embeddings, or against a table of the head's own."""
    bias: bool = False
    """A learned bias an item."""
    transform: Literal["none", "linear", "nonlinear"] = "none"
    """What comes before scoring: nothing, a dense layer (S3-Rec's W), or a dense layer, activation
    and LayerNorm (BERT4Rec, eq. 7)."""
    special_classes: bool = False
    """Two further classes that are no items compete in full ranking, and in a full softmax: the
    mask, and a padding row that stays at its random start (S3-Rec as published, under BCE; T3)."""

    def __post_init__(self) -> None:
        if self.special_classes and (self.table == "own" or self.bias):
            raise InputError(
                "head.special_classes needs table 'tied' and no bias: only the encoder's table has "
                "a row for the mask"
            )


class Head(nn.Module):
    """Scores of all items, of given items, or the table itself."""

    def __init__(
        self,
        config: HeadConfig,
        encoder: TransformerConfig,
        num_items: int,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.config = config
        self.activation = encoder.activation
        if config.transform != "none":
            self.dense = nn.Linear(encoder.width, encoder.width)
        if config.transform == "nonlinear":
            self.norm = nn.LayerNorm(encoder.width, eps=encoder.norm_eps)
        if config.table == "own":
            self.item_table = nn.Embedding(num_items, encoder.width)
        self.item_bias = nn.Parameter(torch.zeros(num_items)) if config.bias else None
        if config.special_classes:
            self.padding_row = nn.Parameter(torch.empty(1, encoder.width), requires_grad=False)
        initialize(self, encoder.init_std, seed, purpose)

    def transformed(self, hidden_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: what is multiplied with the table."""
        if self.config.transform == "none":
            return hidden_PD
        dense_PD: Tensor = self.dense(hidden_PD)
        if self.config.transform == "linear":
            return dense_PD
        normed_PD: Tensor = self.norm(activate(dense_PD, self.activation))
        return normed_PD

    def table_VD(self, encoder: TransformerEncoder) -> Tensor:
        """[V, D]: what competes in a full softmax; with special classes [V + 2, D], items first."""
        if self.config.table == "own":
            own_VD: Tensor = self.item_table.weight
            return own_VD
        if self.config.special_classes:
            return torch.cat([encoder.item_table.weight, self.padding_row])
        return encoder.table_VD()

    def scores(self, hidden_PD: Tensor, encoder: TransformerEncoder) -> Tensor:
        """[P, V]: scores of every item; with special classes [P, V + 2], items first."""
        scores_PV = self.transformed(hidden_PD) @ self.table_VD(encoder).T
        return scores_PV if self.item_bias is None else scores_PV + self.item_bias

    def candidate_scores(
        self, hidden_PD: Tensor, items_PN: Tensor, encoder: TransformerEncoder
    ) -> Tensor:
        """[P, N]: scores of each row's own items; with a tied table V, the mask, is one as well."""
        own = self.config.table == "own"
        table_VD = self.item_table.weight if own else encoder.item_table.weight
        scores_PN = candidate_scores(self.transformed(hidden_PD), table_VD, items_PN)
        return scores_PN if self.item_bias is None else scores_PN + self.item_bias[items_PN]
