"""Where a stage ends, and how much of the way there it has come.

A limit counts steps, rows or tokens; whichever is reached first ends the stage. Nothing is walked
beforehand: what cannot be known in steps is followed in rows or tokens as they are seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from research.training.config import StageConfig
from research.training.state import StageState


@dataclass(frozen=True)
class Limits:
    """What a stage may do at most (infinity: as much as it likes); seconds stand apart."""

    steps: float
    """Optimizer steps."""
    rows: float
    """Rows of the stage's windows, over all epochs and processes."""
    tokens: float
    """Tokens of clean windows, of every window rule, over all processes."""

    @staticmethod
    def of(config: StageConfig, num_rows: int) -> Limits:
        """The limits of a stage whose epochs have `num_rows` rows."""
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
        """How much of the stage is done, 0.0 to 1.0.

        1.0 when a limit has been reached, and only then; 0.0 where there is none.
        """
        return self._share(state, 0, 0, 0)

    def share_after(self, state: StageState, warmup_steps: int) -> float:
        """How much of the way from the end of the learning rate's warm-up is done, 0.0 to 1.0."""
        return self._share(state, warmup_steps, state.warmup_rows, state.warmup_items)

    def _share(self, state: StageState, steps: int, rows: int, tokens: int) -> float:
        done = (
            (state.step, steps, self.steps),
            (state.rows, rows, self.rows),
            (state.items, tokens, self.tokens),
        )
        shares = [(count - begin) / max(1, limit - begin) for count, begin, limit in done]
        return min(1.0, max(shares))

    def reached(self, state: StageState) -> bool:
        """Whether the stage has done all that it may."""
        return self.share(state) == 1.0
