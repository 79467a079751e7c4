"""The learning rate as a function of what the stage has done; no scheduler object exists."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from research.config import check_types
from research.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over a stage, as a factor of the optimizer's rate."""

    shape: Literal["constant", "linear", "cosine", "steps"] = "constant"
    """After the warm-up: constant, linear to `final_factor`, half a cosine to it, or stepwise
    decay."""
    warmup_steps: int = 0
    """Optimizer steps over which the rate rises linearly from 0."""
    final_factor: float = 0.0
    """With `linear` and `cosine`: the factor at the end of the stage."""
    decay_every_epochs: int = 25
    """With `steps`: epochs between decays."""
    decay_factor: float = 1.0
    """With `steps`: factor by which each decay multiplies the rate."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("final_factor", "decay_factor"):
            if getattr(self, name) < 0.0:
                raise InputError(f"schedule.{name} is {getattr(self, name)}; it must be 0 or more")
        if self.warmup_steps < 0 or self.decay_every_epochs < 1:
            raise InputError(
                f"schedule: warmup_steps {self.warmup_steps} must be 0 or more and "
                f"decay_every_epochs {self.decay_every_epochs} at least 1"
            )


def factor_at(schedule: ScheduleConfig, step: int, epoch: int, progress: float) -> float:
    """Return the factor of the learning rate for the step with number `step` (0-based).

    `epoch` is the number of epochs completed. `progress` is the share, 0 to 1, that is done of the
    way from the warm-up's end to the stage's end.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.shape == "steps":
        return schedule.decay_factor ** (epoch // schedule.decay_every_epochs)
    if schedule.shape == "constant":
        return 1.0
    linear = schedule.shape == "linear"
    shape = 1.0 - progress if linear else 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.final_factor + (1.0 - schedule.final_factor) * shape
