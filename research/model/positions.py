"""Where in its sequence a token stands, told to the encoder in one of three places.

A positions class may add something to the embeddings, turn queries and keys, or add a bias to the
scores of attention. Each is a config and a module in a file of its own; learned positions are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.packed import Packed
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


class PositionsConfig(ABC):
    """Abstract: a way of telling positions; a frozen dataclass below."""

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that it cannot do without; none unless said."""
        return ()

    @property
    def biases_scores(self) -> bool:
        """Whether its module's `bias` is added to the scores of attention."""
        return False

    @abstractmethod
    def build(self, config: TransformerConfig) -> Positions:
        """The module for an encoder; `InputError` where the encoder's sizes do not allow it."""


class Positions(nn.Module):
    """What an encoder asks; each answer is nothing unless a subclass gives another.

    Learned weights are drawn by the encoder, by the names that they have in it.
    """

    def added(self, packed: Packed) -> Tensor | None:
        """[T, D]: what is added to the embeddings; None: nothing."""
        return None

    def turned(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: query, key and value of every token, changed by where the token stands."""
        return qkv_T3HK

    def bias(self, rectangle: Rectangle) -> Tensor:
        """What attention adds to the scaled scores of a rectangle, asked for once a layer.

        It broadcasts to [B, H, Q, L]; what it says of empty slots does not matter. Asked for where
        the config says `biases_scores`.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LearnedPositions(PositionsConfig):
    """One learned embedding a position (BERT, Devlin et al. 2019, section 3)."""

    count_from: Literal["newest", "oldest"] = "newest"
    """The end from which positions are counted."""

    def build(self, config: TransformerConfig) -> PositionTable:
        """A table of as many rows as the longest history has items."""
        return PositionTable(self, config.length, config.width)


class PositionTable(Positions):
    """A row [D] a position, added to the embeddings."""

    def __init__(self, config: LearnedPositions, length: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(length, width))

    def added(self, packed: Packed) -> Tensor:
        """[T, D]."""
        places_T = packed.positions_T
        if self.config.count_from == "newest":
            places_T = (packed.lengths_S - 1)[packed.owner_T] - places_T
        return F.embedding(places_T, self.weight)
