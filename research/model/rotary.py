"""Rotary positions (RoFormer, Su et al. 2021, section 3.2): rotate queries and keys by position.

At position t, pair i of a head's numbers is rotated by the angle t base^(-2i/K). The inner product
of a query and a key then depends only on the difference of their positions, so a state does not
change when all positions of its row shift alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from research.config import check_types
from research.errors import InputError
from research.model.positions import Positions, PositionsConfig
from research.packed import Packed

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Rotary(PositionsConfig):
    """Positions as rotations of queries and keys; nothing is learned."""

    base: float = 10_000.0
    """The slowest pair of a head's numbers makes a full turn in about 2 pi `base` positions."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.base > 1.0:
            raise InputError(f"positions.base is {self.base}; it must be above 1")

    def build(self, config: TransformerConfig) -> RotaryPositions:
        """The module; `InputError` if the width K of a head is odd, so that no pairs form."""
        return RotaryPositions(self.base, config.length, even_head_width(config))


def even_head_width(config: TransformerConfig) -> int:
    """K, the width of a head; `InputError` if it is odd, so that no pairs form."""
    head_width = config.block.width_of_head(config)
    if head_width % 2:
        raise InputError(
            f"encoder.positions is {type(config.positions).__name__}, which turns pairs of a "
            f"head's numbers, but a head has {head_width} (encoder.width {config.width} over "
            f"encoder.heads {config.heads}, unless its block says otherwise); choose an even number"
        )
    return head_width


def rotation_speeds(base: float, pairs: int) -> Tensor:
    """float64 [pairs]: the angle base^(-i/pairs) by which a step turns pair i (eq. 15)."""
    return base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)


def rotated(qkv_T3HK: Tensor, turns_TK: Tensor) -> Tensor:
    """[T, 3, H, K]: queries and keys rotated, values unchanged; of the input's type.

    `turns_TK` has the cosines of a token's K/2 angles, then their sines. Pair i is number i of a
    head's first half and i of its second.
    """
    # In fp32 at least: a sine rounded to bf16 is off by up to 0.4 %.
    dtype = torch.promote_types(qkv_T3HK.dtype, torch.float32)
    cosines, sines = turns_TK.to(dtype)[:, None, None].chunk(2, dim=-1)
    first, second = qkv_T3HK[:, :2].to(dtype).chunk(2, dim=-1)
    turned = [first * cosines - second * sines, first * sines + second * cosines]
    turned_T2HK = torch.cat(turned, dim=-1).to(qkv_T3HK.dtype)
    return torch.cat([turned_T2HK, qkv_T3HK[:, 2:]], dim=1)


class RotaryPositions(Positions):
    """Rotates queries and keys by the places of their tokens (see `rotated`)."""

    turns_LK: Tensor
    """float64 [L, K]: for each position, the cosines of the K/2 angles, then their sines."""

    def __init__(self, base: float, length: int, head_width: int) -> None:
        super().__init__()
        speeds = rotation_speeds(base, head_width // 2)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
        # In float64, so that it can be rounded to whatever type the encoder computes in.
        turns_LK = torch.cat([angles.cos(), angles.sin()], dim=1)
        self.register_buffer("turns_LK", turns_LK, persistent=False)

    def apply_positions(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: queries and keys rotated, values unchanged; of the input's type."""
        dtype = torch.promote_types(qkv_T3HK.dtype, torch.float32)
        return rotated(qkv_T3HK, self.turns_LK.to(dtype)[packed.positions_T])
