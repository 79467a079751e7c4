"""What a signal does outside of a training stage."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from research.distributed.signals import Stopped, handle_signals


def test_a_signal_stops_at_once_and_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), handle_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_that_follows_a_signal_is_its_consequence() -> None:
    def import_that_is_cut_short() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError("maximum recursion depth exceeded")

    with pytest.raises(Stopped, match="SIGINT") as stopped, handle_signals():
        import_that_is_cut_short()
    assert isinstance(stopped.value.__cause__, RecursionError)


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(RecursionError), handle_signals():
        raise RecursionError("maximum recursion depth exceeded")
