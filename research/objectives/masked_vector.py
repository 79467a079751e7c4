"""Masked vector prediction: at a masked item, the content vector of the item is predicted.

At every masked token, 1 - cos(W h_t + b, x_i) for the standardized vector x_i of its item i: masked
image modeling with the features of another encoder as targets, by negative cosine similarity (EVA,
Fang et al. 2023, section 2.1), on items. It needs no negatives, so rows do not depend on one
another. Attention is bidirectional. The vectors are those of `items.vectors`, or are its targets
alone where the encoder reads none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.objectives.base import PER_READ, Objective, ObjectiveConfig, Targets, View
from research.objectives.components import ModelComponents
from research.objectives.masking import Masking, MaskItems


@dataclass(frozen=True, kw_only=True)
class MaskedVectorConfig(ObjectiveConfig):
    """Prediction of the content vectors of masked items, for a corpus that has vectors."""

    weight: float = 1.0
    """Weight among the stage's objectives."""
    corruption: Masking = MaskItems()
    """Which items are masked and predicted."""

    def build(self, components: ModelComponents, seed: int) -> MaskedVector:
        """The objective's module, with its projection's initial weights drawn by `seed`."""
        return MaskedVector(self, components, seed)


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorTargets(Targets):
    """The items whose vectors are predicted."""

    items_P: Tensor = field(metadata=PER_READ)
    """int64 [P]: the true item at each read token."""


class MaskedVector(Objective):
    """The masked vector objective; its loss is counted for each masked item."""

    def __init__(self, config: MaskedVectorConfig, components: ModelComponents, seed: int) -> None:
        super().__init__()
        self.corruption = config.corruption
        self.vectors = components.item_vectors
        self.dense = nn.Linear(components.config.width, self.vectors.size)
        initialize(self.dense, components.config.init_std, seed, "masked vector head")

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> VectorTargets:
        """The picked tokens, with the items that stood there."""
        return VectorTargets(**vars(Targets.of_picked(view)), items_P=view.items_P)

    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """The sum over tokens of 1 - cosine, which is 1 for an item at the mean of all vectors."""
        assert isinstance(targets, VectorTargets), "`targets` makes no others"
        vectors_PE = F.embedding(targets.items_P, self.vectors.table())
        # Under autocast too, similarities are in the type of the vectors.
        predicted_PE = self.dense(states_PD).to(vectors_PE.dtype)
        return (1.0 - F.cosine_similarity(predicted_PE, vectors_PE, dim=1)).sum()

    def shared_modules(self) -> dict[str, nn.Module]:
        """The vectors of the items."""
        return {"vectors": self.vectors}
