"""Rotary positions in time: queries and keys are rotated by the times of their events.

As with places (`rotary.py`), the inner product of a query and a key depends only on the difference
of their angles, here also on the time between their events, to the second and without buckets.

Source: Wei et al. 2025, "Rotate Both Ways: Time-and-Order RoPE for Generative Recommendation"
(arXiv 2510.20455): a time is counted in a unit in which it is of the order of places, has a
geometric ladder of speeds, and turns some pairs of a head's numbers, or all of them together with
the place. An angle grows in proportion to the time, since the logarithm of a time between two
events is no difference of two angles. A query's own time is used, not that of the event to be
predicted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from research.config import check_types
from research.errors import InputError
from research.model.positions import Positions, PositionsConfig
from research.model.rotary import even_head_width, rotated, rotation_speeds
from research.packed import Packed

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class RotaryTime(PositionsConfig):
    """Positions as rotations by places and times; nothing is learned. The corpus must have times.

    The angles of a pair of a head's numbers depend on both, as `angles` says.
    """

    unit_seconds: float = 86_400.0
    """Seconds that count like one place; the default is a day."""
    base: float = 10_000.0
    """The slowest pair of a head's numbers makes a full turn in about 2 pi `base` units."""
    angles: Literal["split", "sum", "time"] = "split"
    """"split": places turn the first half of the pairs, times the others (the paper's split by
    dimension); "sum": the angles of place and time are added (its early fusion); "time": times turn
    all pairs, so that the order of events at the same time is not known."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.unit_seconds > 0.0:
            raise InputError(
                f"encoder.positions.unit_seconds is {self.unit_seconds}; it must be above 0"
            )
        if not self.base > 1.0:
            raise InputError(f"encoder.positions.base is {self.base}; it must be above 1")

    @property
    def fields(self) -> Collection[str]:
        """The field "time"."""
        return ("time",)

    def build(self, config: TransformerConfig) -> RotaryTimePositions:
        """The module; `InputError` if a head has too few numbers to form pairs."""
        head_width = even_head_width(config)
        if self.angles == "split" and head_width < 4:
            raise InputError(
                f"encoder.positions.angles is 'split', but a head has {head_width} numbers, a "
                "single pair; choose heads of at least 4 numbers, or angles 'sum' or 'time'"
            )
        return RotaryTimePositions(self, head_width)


class RotaryTimePositions(Positions):
    """Rotates queries and keys by the places and times of their tokens (see `RotaryTime`)."""

    def __init__(self, config: RotaryTime, head_width: int) -> None:
        super().__init__()
        self.config = config
        self.pairs = head_width // 2

    def apply_positions(self, qkv_T3HK: Tensor, packed: Packed) -> Tensor:
        """[T, 3, H, K]: queries and keys rotated, values unchanged; of the input's type."""
        config, times_T = self.config, packed.fields["time"]
        # Counted from the row's oldest event, as integers, so that only differences of times count.
        seconds_T = times_T - times_T[packed.offsets[packed.owner_T]]
        units_T1 = (seconds_T.double() / config.unit_seconds)[:, None]
        places_T1 = packed.positions_T.double()[:, None]
        if config.angles == "split":
            by_place = self.pairs // 2
            angles = [
                places_T1 * self._speeds(by_place, units_T1),
                units_T1 * self._speeds(self.pairs - by_place, units_T1),
            ]
        else:
            turned_T1 = units_T1 if config.angles == "time" else units_T1 + places_T1
            angles = [turned_T1 * self._speeds(self.pairs, units_T1)]
        angles_TI = torch.cat(angles, dim=1)
        return rotated(qkv_T3HK, torch.cat([angles_TI.cos(), angles_TI.sin()], dim=1))

    def _speeds(self, pairs: int, like: Tensor) -> Tensor:
        return rotation_speeds(self.config.base, pairs).to(like.device)
