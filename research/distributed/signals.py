"""SIGTERM, SIGINT and SIGHUP end a run so that the same command continues it.

While a stage trains, a signal is only noted, and the loop stops after the step, with a checkpoint.
At any other time the work stops at once, since nothing of it is lost.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A process is sent SIGHUP when its terminal closes.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds after a signal in which another one counts as the same: a launcher repeats what the
# terminal has sent to all processes already. A SIGINT after that is a second request.
REPEATED_SECONDS = 2.0


class Stopped(KeyboardInterrupt):
    """A signal has ended the work; the argument is the signal's name."""


class _FirstSignal:
    """The first signal that this process was sent; there is one instance in a process."""

    def __init__(self) -> None:
        self.deferring = False
        self.has_stopped = False
        self.name: str | None = None
        self.at = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        name, earlier = signal.Signals(number).name, self.name
        if earlier is None:
            self.name, self.at = name, time.monotonic()
        repeated = earlier is not None and time.monotonic() - self.at > REPEATED_SECONDS
        if not self.deferring or (repeated and number == signal.SIGINT):
            self.has_stopped = True
            raise Stopped(name)


_first_signal = _FirstSignal()


@contextmanager
def handle_signals() -> Iterator[None]:
    """Within the block the signals raise `Stopped`, or are only noted inside `deferred_signals`.

    An error after that (`has_stopped`) becomes `Stopped` too. Outside of the main thread, where
    Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    _first_signal.name, _first_signal.has_stopped = None, False
    for number in SIGNALS:
        # The parent process may have made this one ignore a signal (a study's worker, nohup).
        if previous[number] not in (signal.SIG_IGN, None):
            signal.signal(number, _first_signal.receive)
    try:
        yield
    except Exception as error:
        if has_stopped():
            raise Stopped(_first_signal.name) from error
        raise
    finally:
        for number, handler in previous.items():
            # None: a handler that was not set from Python, and was left in place.
            if handler is not None:
                signal.signal(number, handler)
        _first_signal.name = None


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the block a signal is only noted, for code there that asks `stop_requested`.

    When the block ends without an error, a noted signal raises `Stopped`.
    """
    _first_signal.deferring = True
    try:
        yield
    finally:
        _first_signal.deferring = False
    if _first_signal.name is not None:
        raise Stopped(_first_signal.name)


def has_stopped() -> bool:
    """Whether `Stopped` has been raised since `handle_signals` began.

    An error after that is a consequence: an import that was cut short fails in its own way.
    """
    return _first_signal.has_stopped


def stop_requested() -> bool:
    """Whether this process has got SIGINT, SIGTERM or SIGHUP since `handle_signals` began."""
    return _first_signal.name is not None


def signal_name() -> str:
    """Return the name of the first signal that this process got, such as "SIGTERM".

    If it got none, return "a signal to another process", as then another process of the job did.
    """
    return _first_signal.name or "a signal to another process"
