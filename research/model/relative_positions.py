"""Relative positions of T5: a learned bias on attention scores for each bucket of distances.

    score of query i and key j = q_i k_j / sqrt(K) + w[bucket(i - j)], with a w for each head

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (arXiv 1910.10683), section 2.1, and its code (`_relative_position_bucket`): all layers
share the weights. The first half of a side's buckets hold one distance each, the others
logarithmically growing ranges up to `max_distance`; the last one holds all that are longer. Two
departures: T5 does not divide scores by sqrt(K), and its weights begin with a standard deviation of
D^(-1/2), here `init_std`. T5 computes buckets in fp32, where rounding puts a distance at the border
of two buckets into the lower one at times.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.backbone import BOTH_DIRECTIONS, MAX_SIZE, Direction
from research.model.positions import Positions, PositionsConfig
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class RelativePositions(PositionsConfig):
    """Biases on attention scores by buckets of distances (T5)."""

    buckets: int = 32
    """Number of buckets; with `sides` "both" an even number, half of it for each side."""
    max_distance: int = 128
    """Distance, in places, from which on all keys are in a side's last bucket."""
    sides: Literal["both", "older"] = "both"
    """"both": keys older than the query have buckets of their own, and newer ones too (T5's
    encoder). "older": all buckets are for older keys (T5's decoder), so only causal states can be
    encoded."""

    def __post_init__(self) -> None:
        check_types(self)
        halves = self.sides == "both"
        if self.buckets % (1 + halves) or not 2 * (1 + halves) <= self.buckets <= MAX_SIZE:
            raise InputError(
                f"encoder.positions.buckets is {self.buckets} with sides {self.sides!r}; it must "
                f"be {'an even number from 4' if halves else 'from 2'} to {MAX_SIZE}"
            )
        if not self.exact < self.max_distance <= MAX_SIZE:
            raise InputError(
                f"encoder.positions.max_distance is {self.max_distance}; it must be above "
                f"{self.exact}, the distances that have a bucket of their own, and at most "
                f"{MAX_SIZE}"
            )

    @property
    def a_side(self) -> int:
        """The number of buckets of a side."""
        return self.buckets // 2 if self.sides == "both" else self.buckets

    @property
    def exact(self) -> int:
        """The number of distances, from 0 on, that have a bucket of their own."""
        return self.a_side // 2

    @property
    def directions(self) -> Collection[Direction]:
        """Only causal where newer keys have no buckets."""
        return BOTH_DIRECTIONS if self.sides == "both" else ("causal",)

    @property
    def biases_scores(self) -> bool:
        """They are a bias alone."""
        return True

    def build(self, config: TransformerConfig) -> RelativeBias:
        """The biases of all heads, for distances below `encoder.length`."""
        return RelativeBias(self, config.length, config.heads)

    def buckets_of(self, distances: Tensor) -> Tensor:
        """int64, of the same shape: the bucket of a key that is older than the query by `distances`
        places (int64; below 0: newer)."""
        sizes = distances.abs()
        ratio = log(self.max_distance / self.exact)
        # So that a distance at the border of two buckets, whose logarithm may be rounded down, is
        # in the upper one.
        far = (sizes.clamp(min=1).double() / self.exact).log() / ratio + 1e-12
        far = self.exact + (far * (self.a_side - self.exact)).long()
        buckets = torch.where(sizes < self.exact, sizes, far.clamp(max=self.a_side - 1))
        return torch.where(distances < 0, buckets + self.a_side, buckets)


class RelativeBias(Positions):
    """A learned number for each bucket of distances and each head, added to scores."""

    bucket_of_distance: Tensor
    """int64 [2 L - 1]: the bucket of distance d at place d + L - 1."""

    def __init__(self, config: RelativePositions, length: int, heads: int) -> None:
        super().__init__()
        self.longest = length - 1
        self.weights = nn.Parameter(torch.empty(config.buckets, heads))
        # With `sides` "older" no newer key is seen, and its distance counts as its size.
        distances = torch.arange(-self.longest, length)
        distances = distances if config.sides == "both" else distances.abs()
        self.register_buffer("bucket_of_distance", config.buckets_of(distances), persistent=False)

    def bias(self, rectangle: Rectangle) -> Tensor:
        """[B or 1, H, Q, L]: the weight of the distance from each query to each key."""
        buckets_BQL = self.bucket_of_distance[rectangle.distances_BQL + self.longest]
        return F.embedding(buckets_BQL, self.weights).permute(0, 3, 1, 2)
