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
        head_width = config.block.width_of_head(config)
        if head_width % 2:
            raise InputError(
                f"encoder.positions is Rotary, which turns pairs of a head's numbers, but a head "
                f"has {head_width} (encoder.width {config.width} over encoder.heads "
                f"{config.heads}, unless its block says otherwise); choose an even number"
            )
        return RotaryPositions(self.base, config.length, head_width)


class RotaryPositions(Positions):
    """Rotates pairs of numbers: pair i is number i of a head's first half and i of its second."""

    turns_LK: Tensor
    """float64 [L, K]: for each position, the cosines of the K/2 angles, then their sines."""

    def __init__(self, base: float, length: int, head_width: int) -> None:
        super().__init__()
        speeds = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
        # In float64, so that it can be rounded to whatever type the encoder computes in.
        turns_LK = torch.cat([angles.cos(), angles.sin()], dim=1)
        self.register_buffer("turns_LK", turns_LK, persistent=False)

    def apply_positions(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: queries and keys rotated, values unchanged; of the input's type."""
        # In fp32 at least: a sine rounded to bf16 is off by up to 0.4 %.
        dtype = torch.promote_types(qkv_T3HK.dtype, torch.float32)
        turns_TK = self.turns_LK.to(dtype)[packed.positions_T]
        cosines, sines = turns_TK[:, None, None].chunk(2, dim=-1)
        first, second = qkv_T3HK[:, :2].to(dtype).chunk(2, dim=-1)
        rotated = [first * cosines - second * sines, first * sines + second * cosines]
        rotated_T2HK = torch.cat(rotated, dim=-1).to(qkv_T3HK.dtype)
        return torch.cat([rotated_T2HK, qkv_T3HK[:, 2:]], dim=1)
