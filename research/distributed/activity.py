"""What this process is doing and whether it makes progress, as reported by the code that works.

`research/distributed/watchdog.py` sends it to the other processes of the job. It belongs to the
process, as signals do, so there is one instance, `ACTIVITY`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Counts progress, and names the present work and its step."""

    def __init__(self) -> None:
        self.moves = 0
        """How often progress was reported."""
        self.step = 0
        """The last step of the present work that was reported; 0: none."""
        self.phase = "starting"
        """Name of the present work, for people."""

    def progress(self, step: int | None = None) -> None:
        """Report progress, at `step` if given; the main thread calls it, as often as it likes."""
        self.moves += 1
        if step is not None:
            self.step = step

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Name other work within the block; return to the name before when the block succeeds."""
        previous = self.phase
        self.begin(phase)
        yield
        self.begin(previous)

    def begin(self, phase: str) -> None:
        """Begin work with the name `phase`, which counts as progress."""
        self.phase = phase
        self.step = 0
        self.moves += 1


ACTIVITY = Activity()
