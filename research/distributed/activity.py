"""What this process is doing and whether it gets on, told by whoever does the work.

`research/distributed/watchdog.py` passes it on to the other processes of a job. It is a process's,
as signals are, so there is one of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """Counts what got done."""

    def __init__(self) -> None:
        self.moves = 0
        """How often something got done."""
        self.step = 0
        """The last step that was told of the present work; 0: none."""
        self.phase = "starting"
        """The present work, for people."""

    def progress(self, step: int | None = None) -> None:
        """Something got done, at `step` if given; by the main thread, as often as it likes."""
        self.moves += 1
        if step is not None:
            self.step = step

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Other work within; then the present one goes on."""
        before = self.phase
        self.begin(phase)
        yield
        self.begin(before)

    def begin(self, phase: str) -> None:
        """Other work begins, which is progress too."""
        self.phase = phase
        self.step = 0
        self.moves += 1


PULSE = Pulse()
