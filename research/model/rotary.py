"""Rotary positions (RoFormer, Su et al. 2021, section 3.2): queries and keys turned by their place.

With angles t base^(-2i/K) at position t, the inner product of a query and a key depends on their
positions by the difference alone, so a state does not change when all its row moves.
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
    """Positions as turns of queries and keys; nothing is learned."""

    base: float = 10_000.0
    """The slowest pair of numbers of a head turns once in about 2 pi times this many positions."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.base > 1.0:
            raise InputError(f"positions.base is {self.base}; it must be above 1")

    def build(self, config: TransformerConfig) -> RotaryPositions:
        """The module; `InputError` for a head of odd width, whose numbers are not pairs."""
        head_width = config.block.width_of_head(config)
        if head_width % 2:
            raise InputError(
                f"encoder.positions is Rotary, which turns pairs of a head's numbers, but a head "
                f"has {head_width} (encoder.width {config.width} over encoder.heads "
                f"{config.heads}, unless its block says otherwise); choose an even number"
            )
        return RotaryPositions(self.base, config.length, head_width)


class RotaryPositions(Positions):
    """A pair is number i of the first half of a head and number i of the second."""

    turns_LK: Tensor

    def __init__(self, base: float, length: int, head_width: int) -> None:
        super().__init__()
        speeds = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
        # Cosines, then sines; kept in float64, for whatever type the encoder computes in.
        turns_LK = torch.cat([angles.cos(), angles.sin()], dim=1)
        self.register_buffer("turns_LK", turns_LK, persistent=False)

    def turned(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: queries and keys turned, values as they are."""
        # In fp32 at least: a sine rounded to bf16 is off by up to 0.4 %.
        wide = torch.promote_types(qkv_T3HK.dtype, torch.float32)
        turns_TK = self.turns_LK.to(wide)[packed.positions_T]
        cosines, sines = turns_TK[:, None, None].chunk(2, dim=-1)
        first, second = qkv_T3HK[:, :2].to(wide).chunk(2, dim=-1)
        turned = [first * cosines - second * sines, first * sines + second * cosines]
        turned_T2HK = torch.cat(turned, dim=-1).to(qkv_T3HK.dtype)
        return torch.cat([turned_T2HK, qkv_T3HK[:, 2:]], dim=1)
