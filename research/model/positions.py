"""Positions: how the transformer knows at which place of its sequence a token is.

They enter the encoder in one of three ways: added to the embeddings, as a rotation of queries and
keys, or as a bias on attention scores. Each kind is a config and a module in a file of its own,
chosen as `encoder.positions`; the interface and learned positions are here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.model.backbone import BOTH_DIRECTIONS, Direction
from research.packed import Packed
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


class PositionsConfig(ABC):
    """Abstract: a kind of positions; a subclass is a frozen dataclass."""

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that it needs; by default none."""
        return ()

    @property
    def directions(self) -> Collection[Direction]:
        """The directions in which they can be told; by default both."""
        return BOTH_DIRECTIONS

    @property
    def biases_scores(self) -> bool:
        """Whether its module's `bias` is added to the scores of attention."""
        return False

    @abstractmethod
    def build(self, config: TransformerConfig) -> Positions:
        """The module for an encoder; `InputError` if the encoder's sizes do not allow it."""


class Positions(nn.Module):
    """The three ways in which positions may enter an encoder; a subclass overrides one.

    The encoder draws the initial values of learned weights, keyed by their names in the encoder.
    """

    def added_embeddings(self, packed: Packed) -> Tensor | None:
        """[T, D]: what is added to the embeddings; None, the default: nothing."""
        return None

    def apply_positions(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: queries, keys and values, changed by each token's position.

        By default they are unchanged.
        """
        return qkv_T3HK

    def bias(self, rectangle: Rectangle) -> Tensor:
        """What is added to the attention scores of a rectangle: sequences padded to L slots.

        The result broadcasts to [B, H, Q, L]: B sequences, H heads, Q queries and L keys of each.
        Softmax attention adds it to the scores over sqrt(K), HSTU to the plain products. In slots
        without a token any finite value will do. It is called for each layer and rectangle (again
        where a block is recomputed), and only if the config's `biases_scores` is True; the default
        raises `NotImplementedError`. Attention casts it to the scores' type: keep constants in
        buffers, as numbers that fp32 holds exactly.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LearnedPositions(PositionsConfig):
    """A learned embedding for each position (BERT, Devlin et al. 2019, section 3)."""

    count_from: Literal["newest", "oldest"] = "newest"
    """Whether position 0 is a sequence's newest or its oldest token."""

    def build(self, config: TransformerConfig) -> PositionTable:
        """A table with `encoder.length` rows."""
        return PositionTable(self, config.length, config.width)


class PositionTable(Positions):
    """A learned row [D] for each position, added to the embeddings."""

    def __init__(self, config: LearnedPositions, length: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(length, width))

    def added_embeddings(self, packed: Packed) -> Tensor:
        """[T, D]: the row of each token's position."""
        places_T = packed.positions_T
        if self.config.count_from == "newest":
            places_T = (packed.lengths_S - 1)[packed.owner_T] - places_T
        return F.embedding(places_T, self.weight)
