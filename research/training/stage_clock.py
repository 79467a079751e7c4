"""What a stage's seconds were spent on, and the most memory it held, for checkpoints and records.

The loop measures validations and checkpoints by it; what is left of the stage's time is training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch

from research.training.peak_memory import PeakMemory
from research.training.state import StageState

Part = Literal["validation", "checkpoints"]


class StageClock:
    """Adds up the seconds of a stage's parts, over all continuations."""

    def __init__(self, state: StageState, device: torch.device) -> None:
        """Begin at `state`, that of a new stage or of a checkpoint, on this process's device."""
        self.before = state
        self._seconds: dict[Part, float] = {"validation": 0.0, "checkpoints": 0.0}
        self._peak = PeakMemory(device)

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Count the time of the block for a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] += time.monotonic() - started

    def complete(self, state: StageState) -> StageState:
        """Return the state with the seconds of each part and the peak memory, as far as known."""
        before, peak = self.before, self._peak.bytes()
        return replace(
            state,
            validation_seconds=_sum(before.validation_seconds, self._seconds["validation"]),
            checkpoint_seconds=_sum(before.checkpoint_seconds, self._seconds["checkpoints"]),
            peak_bytes=None
            if before.peak_bytes is None or peak is None
            else max(before.peak_bytes, peak),
        )


def _sum(before: float | None, seconds: float) -> float | None:
    return None if before is None else before + seconds
