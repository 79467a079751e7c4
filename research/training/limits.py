"""Where a stage ends, and what share of it is done.

A limit counts steps, rows or tokens; the first that is reached ends the stage. The data are not
read through beforehand: a limit that cannot be expressed in steps is followed in rows or tokens as
training reaches them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from research.training.config import StageConfig
from research.training.state import StageState


@dataclass(frozen=True)
class Limits:
    """The most that a stage may do; infinity is no limit. Wall time is handled elsewhere."""

    steps: float
    """Optimizer steps."""
    rows: float
    """Rows of the stage's windows, over all epochs and processes."""
    tokens: float
    """Tokens of clean windows, over all window rules and processes."""

    @staticmethod
    def of(config: StageConfig, num_rows: int) -> Limits:
        """Return the limits of a stage whose epochs have `num_rows` rows."""
        steps, tokens = config.steps or math.inf, config.tokens or math.inf
        rows = math.inf
        size = config.batches.sequences_per_batch
        if config.epochs is not None:
            if size is None:
                rows = config.epochs * num_rows
            else:
                steps = min(steps, config.epochs * -(-num_rows // size))
        return Limits(steps, rows, tokens)

    def share(self, state: StageState) -> float:
        """Return the share of the stage that is done, 0.0 to 1.0.

        It is 1.0 if and only if a limit has been reached, and stays 0.0 where there is no limit.
        """
        return self._share(state, 0, 0, 0)

    def share_after(self, state: StageState, warmup_steps: int) -> float:
        """Return the share done of the way from the warm-up's end to the stage's, up to 1.0."""
        return self._share(state, warmup_steps, state.warmup_rows, state.warmup_items)

    def _share(self, state: StageState, steps: int, rows: int, tokens: int) -> float:
        progress = (
            (state.step, steps, self.steps),
            (state.rows, rows, self.rows),
            (state.items, tokens, self.tokens),
        )
        shares = [(count - begin) / max(1, limit - begin) for count, begin, limit in progress]
        return min(1.0, max(shares))

    def reached(self, state: StageState) -> bool:
        """Whether the stage has reached one of its limits."""
        return self.share(state) == 1.0
