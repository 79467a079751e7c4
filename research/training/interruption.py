"""What interrupts a stage between two steps: a signal, a timed checkpoint, its limit of wall time.

Any process may receive a signal; all processes act on it before the same step.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from research.distributed import signals as stopping
from research.distributed.collectives import Agreement
from research.training.checkpointer import Checkpointer
from research.training.config import StageConfig
from research.training.state import StageState


class Interruption:
    """A context around the training of a stage, within which signals wait for the end of a step.

    When the block ends without an error, `Stopped` is raised if a signal has come meanwhile.
    """

    def __init__(self, config: StageConfig, state: StageState, checkpoints: Checkpointer) -> None:
        self.limit = config.seconds or math.inf
        self.checkpoints = checkpoints
        self.agreement = Agreement(checkpoints.processes)
        self.time_is_up = False
        """Whether the stage's limit of wall time has passed in some process; equal in all
        processes."""
        self._stops = False
        self._seconds_before = state.seconds
        self._started = time.monotonic()
        self._deferred = ExitStack()

    def __enter__(self) -> Interruption:
        self._deferred.enter_context(stopping.deferred_signals())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.should_save(wait=True)
                self.raise_if_stopping()
        finally:
            self._deferred.__exit__(kind, error, trace)

    @property
    def time_share(self) -> float:
        """Share of the stage's limit of wall time that has passed; 0 without a limit."""
        return self.seconds / self.limit

    @property
    def seconds(self) -> float:
        """Wall time of the stage so far in seconds, over all continuations."""
        return self._seconds_before + time.monotonic() - self._started

    def should_save(self, *, wait: bool = False) -> bool:
        """Whether a checkpoint is to be written now; all processes call it together.

        With several processes, what one of them has noticed (a signal, a timed checkpoint, the end
        of the wall time) is known to all at the next call; with `wait`, at this call.
        """
        requests = (
            stopping.stop_requested(),
            self.checkpoints.is_save_due_by_time(),
            self.seconds >= self.limit,
        )
        stops, saves, time_is_up = self.agreement.exchange(requests, wait=wait)
        self._stops = self._stops or stops
        self.time_is_up = self.time_is_up or time_is_up
        return stops or saves

    def raise_if_stopping(self) -> None:
        """Raise `Stopped` if a signal was the reason to save."""
        if self._stops:
            raise stopping.Stopped(stopping.signal_name())

    def complete(self, state: StageState) -> StageState:
        """Return the state with the stage's wall time so far."""
        return replace(state, seconds=self.seconds)
