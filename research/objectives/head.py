"""Output heads: from hidden states to scores of items, with a tied or an own table.

PAD does not exist and the mask's row is outside the table, so neither competes (T3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from research.errors import InputError
from research.model.backbone import Backbone, BackboneConfig
from research.model.initial import initialize
from research.model.item_table import ItemTable
from research.model.transformer_block import Activation, activate


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
    activation: Activation = "gelu"
    """Activation of a nonlinear transform; gelu is the erf form."""
    norm_eps: float = 1e-12
    """Epsilon of a nonlinear transform's LayerNorm."""
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
        encoder: BackboneConfig,
        num_items: int,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.config = config
        if config.transform != "none":
            self.dense = nn.Linear(encoder.width, encoder.width)
        if config.transform == "nonlinear":
            self.norm = nn.LayerNorm(encoder.width, eps=config.norm_eps)
        if config.table == "own":
            self.item_table = ItemTable(
                num_items,
                encoder.width,
                init_std=encoder.init_std,
                seed=seed,
                purpose=purpose,
                masked=False,
            )
        self.item_bias = nn.Parameter(torch.zeros(num_items)) if config.bias else None
        if config.special_classes:
            self.padding_row = nn.Parameter(torch.empty(1, encoder.width), requires_grad=False)
        own = [self.item_table] if config.table == "own" else []
        initialize(self, encoder.init_std, seed, purpose, skip=own)

    def transformed(self, hidden_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: what is multiplied with the table."""
        if self.config.transform == "none":
            return hidden_PD
        dense_PD: Tensor = self.dense(hidden_PD)
        if self.config.transform == "linear":
            return dense_PD
        normed_PD: Tensor = self.norm(activate(dense_PD, self.config.activation))
        return normed_PD

    def scores(self, hidden_PD: Tensor, encoder: Backbone) -> Tensor:
        """[P, V]: scores of every item; with special classes [P, V + 2], items first."""
        table, rows, further_ED = self._competing(encoder)
        return table.scores(
            self.transformed(hidden_PD), rows=rows, bias_V=self.item_bias, further_ED=further_ED
        )

    def candidate_scores(self, hidden_PD: Tensor, items_PN: Tensor, encoder: Backbone) -> Tensor:
        """[P, N]: scores of each row's own items; with a tied table V, the mask, is one as well."""
        table, _, _ = self._competing(encoder)
        return table.scores(self.transformed(hidden_PD), items_PN, bias_V=self.item_bias)

    def softmax_loss(self, hidden_PD: Tensor, targets_P: Tensor, encoder: Backbone) -> Tensor:
        """Scalar: the sum over P of -log softmax of the target among all that competes."""
        table, rows, further_ED = self._competing(encoder)
        transformed_PD, bias_V = self.transformed(hidden_PD), self.item_bias
        return table.softmax_loss(
            transformed_PD, targets_P, rows=rows, bias_V=bias_V, further_ED=further_ED
        )

    def top_one(self, hidden_PD: Tensor, targets_P: Tensor, encoder: Backbone) -> Tensor:
        """int64 scalar: how many targets score above all else that competes."""
        table, rows, further_ED = self._competing(encoder)
        transformed_PD, bias_V = self.transformed(hidden_PD), self.item_bias
        return table.top_one(
            transformed_PD, targets_P, rows=rows, bias_V=bias_V, further_ED=further_ED
        )

    def _competing(self, encoder: Backbone) -> tuple[ItemTable, int | None, Tensor | None]:
        """The table, how many of its rows compete, and the rows beside it that do."""
        if self.config.table == "own":
            return self.item_table, None, None
        if self.config.special_classes:
            return encoder.item_table, encoder.num_items + 1, self.padding_row
        return encoder.item_table, None, None
