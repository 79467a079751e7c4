"""Output heads: from hidden states to scores of items, with a tied or a separate item table.

There is no padding item, and the mask is not scored, so neither competes in the loss or in the
ranking unless `special_classes` asks for it (docs/pitfalls.md, "padding competes in the softmax").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.backbone import BackboneConfig
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.model.kernels.cosine import EPS
from research.model.kernels.scored_rows import ScoredRows
from research.model.transformer_block import Activation, activate


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How a hidden state is turned into scores."""

    table: Literal["tied", "own"] = "tied"
    """Score against the encoder's item embeddings ("tied"), or against a second item table that
    only this head uses ("own")."""
    bias: bool = False
    """Whether each item has a learned bias."""
    transform: Literal["none", "linear", "nonlinear"] = "none"
    """What is applied to states before scoring: nothing, a dense layer (S3-Rec's W), or a dense
    layer, activation and LayerNorm (BERT4Rec, eq. 7)."""
    activation: Activation = "gelu"
    """Activation of a nonlinear transform; gelu is the erf form."""
    norm_eps: float = 1e-12
    """Epsilon of a nonlinear transform's LayerNorm."""
    special_classes: bool = False
    """Whether two classes that are no items compete with the items in full ranking and in a full
    softmax (the rows of PAD and MASK, in S3-Rec as published, under BCE): the mask, and a padding
    row that is not trained. That row keeps its random initial weights, or those of an imported
    file."""
    similarity: Literal["dot", "cosine"] = "dot"
    """How a transformed state is compared with an item embedding: by their inner product, or by
    its cosine (both as unit vectors; generative-recommenders, Zhai et al. 2024)."""
    temperature: float = 1.0
    """The number that similarities are divided by to become scores, before the bias is added; a
    cosine needs a small one, such as 0.05 (Zhai et al. 2024), for a softmax to tell items apart."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.temperature <= 0.0:
            raise InputError(f"head.temperature is {self.temperature}; it must be above 0")
        if self.special_classes and self.similarity == "cosine":
            raise InputError(
                "head.special_classes needs similarity 'dot': the published models that score the "
                "mask and a padding row compare by inner products"
            )
        if self.special_classes and (self.table == "own" or self.bias):
            raise InputError(
                "head.special_classes needs table 'tied' and no bias: only the encoder's table has "
                "a row for the mask"
            )


class Head(nn.Module):
    """Scores items for hidden states, by the backbone's item table or a separate one.

    Methods take the backbone's table as `items`, and ignore it if the head has a table of its own.
    """

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
        self.num_items = num_items
        if config.transform != "none":
            self.dense = nn.Linear(encoder.width, encoder.width)
        if config.transform == "nonlinear":
            self.norm = nn.LayerNorm(encoder.width, eps=config.norm_eps)
        self.item_bias = nn.Parameter(torch.zeros(num_items)) if config.bias else None
        self.padding_row: nn.Parameter | None = None
        if config.special_classes:
            self.padding_row = nn.Parameter(torch.empty(1, encoder.width), requires_grad=False)
        initialize(self, encoder.init_std, seed, purpose)
        self.item_table: ItemTable | None = None
        if config.table == "own":
            # After `initialize`, as the table draws its own initial weights.
            self.item_table = ItemTable(
                num_items,
                encoder.width,
                init_std=encoder.init_std,
                seed=seed,
                purpose=purpose,
                masked=False,
            )

    def transform(self, states_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: the states after the transform, to be multiplied with the scored rows.

        Under similarity "cosine" they are unit vectors, and always divided by the temperature.
        """
        if self.config.transform != "none":
            states_PD = self.dense(states_PD)
        if self.config.transform == "nonlinear":
            states_PD = self.norm(activate(states_PD, self.config.activation))
        if self._cosine:
            # Under autocast states may be in low precision, which is too coarse for norms.
            states_PD = states_PD.to(torch.promote_types(states_PD.dtype, torch.float32))
            states_PD = F.normalize(states_PD, dim=1, eps=EPS)
        return states_PD if self.config.temperature == 1.0 else states_PD / self.config.temperature

    def scored_rows(self, items: ItemTable) -> ScoredRows:
        """The rows that ranking scores transformed states against, with biases; without a graph.

        The V items come first, then the two special classes if they are on. Under similarity
        "cosine" they are unit vectors.
        """
        bias_V = None if self.item_bias is None else self.item_bias.detach()
        return self._table(items).scored_rows(
            self._rows, bias_V, self.padding_row, cosine=self._cosine
        )

    def candidate_scores(self, states_PD: Tensor, ids: Tensor, items: ItemTable) -> Tensor:
        """[P, N]: scores of the items `ids`, int64 [P, N] for each state or [N] for all states.

        With a tied table, V (the mask) is a valid id too.
        """
        transformed_PD = self.transform(states_PD)
        return self._table(items).scores(
            transformed_PD, ids, bias_V=self.item_bias, cosine=self._cosine
        )

    def softmax_loss(
        self,
        states_PD: Tensor,
        targets_P: Tensor,
        items: ItemTable,
        *,
        bf16: bool = False,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Scalar: the sum over P of the cross-entropy over all classes that compete.

        With `bf16` the factors of the products with the table are rounded to bf16.
        `label_smoothing` is the share of a target's probability that is spread over all items.
        """
        return self._table(items).softmax_loss(
            self.transform(states_PD),
            targets_P,
            rows=self._rows,
            bias_V=self.item_bias,
            further_ED=self.padding_row,
            bf16=bf16,
            label_smoothing=label_smoothing,
            cosine=self._cosine,
        )

    def top_one(self, states_PD: Tensor, targets_P: Tensor, items: ItemTable) -> Tensor:
        """int64 scalar: how many targets score above every other class; a tie does not count."""
        return self._table(items).top_one(
            self.transform(states_PD),
            targets_P,
            rows=self._rows,
            bias_V=self.item_bias,
            further_ED=self.padding_row,
            cosine=self._cosine,
        )

    @property
    def _cosine(self) -> bool:
        return self.config.similarity == "cosine"

    @property
    def _rows(self) -> int:
        """Number of the table's rows that compete: V, or V + 1 where the mask is a class too."""
        return self.num_items + self.config.special_classes

    def _table(self, items: ItemTable) -> ItemTable:
        return items if self.item_table is None else self.item_table
