"""SIGTERM, SIGINT and SIGHUP end a run so that the same command continues it.

In training a signal is noted, and the loop leaves with a checkpoint after the step; at any other
time the work is left at once, since nothing of it is lost.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# The last is what a terminal leaves behind when it closes.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A launcher repeats what a terminal has sent already; later ones are meant.
REPEATED_SECONDS = 2.0


class Stopped(KeyboardInterrupt):
    """A signal has ended the work; its argument says which."""


class _Noted:
    """What this process has been sent; signals are the process's, so there is one of these."""

    def __init__(self) -> None:
        self.deferring = False
        self.name: str | None = None
        self.at = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        name, before = signal.Signals(number).name, self.name
        if before is None:
            self.name, self.at = name, time.monotonic()
        again = before is not None and time.monotonic() - self.at > REPEATED_SECONDS
        if not self.deferring or (again and number == signal.SIGINT):
            raise Stopped(name)


_noted = _Noted()


@contextmanager
def listening() -> Iterator[None]:
    """Within, the signals raise `Stopped`, or are noted where that is deferred."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _noted.name = None
    for number in SIGNALS:
        # Who began this process may have asked it to ignore one (a study's worker, nohup).
        if before[number] not in (signal.SIG_IGN, None):
            signal.signal(number, _noted.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: one that was not set from Python.
            if handler is not None:
                signal.signal(number, handler)
        _noted.name = None


@contextmanager
def deferred() -> Iterator[None]:
    """Within, a signal is noted only; who asks `is_asked` decides. One that is left comes after."""
    _noted.deferring = True
    try:
        yield
    finally:
        _noted.deferring = False
    if _noted.name is not None:
        raise Stopped(_noted.name)


def is_asked() -> bool:
    """Whether a signal has been noted."""
    return _noted.name is not None


def asked_by() -> str:
    """The name of the signal that this process, or another one of the job, has been sent."""
    return _noted.name or "a signal to another process"
