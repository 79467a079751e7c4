"""What every objective is: a corruption to see through, and a sum of losses with its count.

The loop knows `Objective` and `LossSum` only. An objective is one file in this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.model.encoder import Encoder, EncoderConfig
from research.packed import Packed


@dataclass(frozen=True, eq=False)
class LossSum:
    """A loss before any division."""

    total: Tensor
    """Scalar, attached to the graph: the sum over what is counted."""
    count: Tensor
    """Scalar float64: how many things were summed; may be 0."""


@dataclass(frozen=True, eq=False)
class View:
    """What the encoder sees of a batch, and which tokens an objective reads."""

    packed: Packed
    """Corrupted sequences, as many as the batch has, in its order."""
    causal: bool
    """The direction of attention that this view is meant for."""
    picked_P: Tensor
    """int64 [P]: tokens of `packed` with a target."""
    targets_P: Tensor
    """int64 [P]: the item that belongs there."""

    @property
    def owner_P(self) -> Tensor:
        """int64 [P]: the sequence of each picked token."""
        return self.packed.owner_T[self.picked_P]


class Corruption(ABC):
    """Abstract; a frozen dataclass below. Equal corruptions share one encoding."""

    @abstractmethod
    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The corrupted batch; a pure function of the batch and its random states."""


class Objective(nn.Module, ABC):
    """Abstract. Owns its projections; never moves devices, never sees step or rank."""

    corruption: Corruption

    @abstractmethod
    def forward(self, view: View, hidden_TD: Tensor, batch: Batch, encoder: Encoder) -> LossSum:
        """The loss of a view whose tokens have the hidden states [T, D]."""


class RankingObjective(Objective):
    """Abstract: an objective whose head can also rank all items for a history."""

    @abstractmethod
    def ranking_view(self, histories: Packed, encoder: Encoder) -> View:
        """What the encoder reads of histories of any length; one picked token a sequence."""

    @abstractmethod
    def scores(self, hidden_SD: Tensor, encoder: Encoder) -> Tensor:
        """[S, V] scores of every item from the picked tokens' states."""

    @abstractmethod
    def candidate_scores(self, hidden_SD: Tensor, items_SN: Tensor, encoder: Encoder) -> Tensor:
        """[S, N] scores of the given items."""


def able_to_rank(objectives: Mapping[str, nn.Module]) -> dict[str, RankingObjective]:
    """The objectives that can rank, by key."""
    return {key: part for key, part in objectives.items() if isinstance(part, RankingObjective)}


class ObjectiveConfig(ABC):
    """Abstract; a frozen dataclass beside each objective, with at least a `weight`."""

    weight: float

    @abstractmethod
    def build(self, encoder: EncoderConfig, catalogue: Catalogue, seed: int) -> Objective:
        """The objective's module, its start a function of the seed alone."""
