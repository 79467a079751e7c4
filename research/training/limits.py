"""Where a stage ends, and how much of the way there it has come.

A limit counts steps, rows or tokens; whichever is reached first ends the stage. Nothing is walked
beforehand: what cannot be known in steps is followed in rows or tokens as they are seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from research.training.stage import StageConfig, StageState


class Counts(NamedTuple):
    """What a stage has done, or may do at most (infinity: as much as it likes)."""

    steps: float = 0
    """Optimizer steps."""
    rows: float = 0
    """Rows of the stage's windows, over all epochs and processes."""
    tokens: float = 0
    """Tokens of clean windows, of every window rule, over all processes."""


def limits_of(config: StageConfig, num_rows: int) -> Counts:
    """What a stage may do at most, where an epoch has `num_rows` rows; seconds stand apart."""
    steps, tokens = config.steps or math.inf, config.tokens or math.inf
    rows = math.inf
    size = config.batches.sequences_per_batch
    if config.epochs is not None:
        if size is None:
            rows = config.epochs * num_rows
        else:
            steps = min(steps, config.epochs * -(-num_rows // size))
    return Counts(steps, rows, tokens)


def done_by(state: StageState) -> Counts:
    """What a stage has done so far."""
    return Counts(state.step, state.rows, state.items)


def progress(done: Counts, limits: Counts, since: Counts = Counts()) -> float:
    """How much of the way from `since` to the nearest limit is `done`: 0.0 to 1.0.

    1.0 when a limit has been reached, and only then; 0.0 where there is none.
    """
    shares = [
        (count - begin) / max(1, limit - begin) for count, limit, begin in zip(done, limits, since)
    ]
    return min(1.0, max(shares))
