"""Returns free memory of this process to the operating system, every second and after every epoch.

Packed batches differ in size from step to step, so the C library's heap keeps holes that no later
tensor fits: a process training ML-1M at length 200 held 350 MB of live memory and grew past 5 GB in
an hour. Trimming the heap costs milliseconds.
"""

from __future__ import annotations

import ctypes
import sys
import time

# Seconds of training between two trims.
_INTERVAL = 1.0


class HeapTrimmer:
    """Trims the heap between two steps, at most once a second."""

    def __init__(self) -> None:
        self._trimmed_at = time.monotonic()

    def after_step(self) -> None:
        """Return free memory if the last time was a second ago or more."""
        if time.monotonic() - self._trimmed_at >= _INTERVAL:
            give_back_free_memory()
            self._trimmed_at = time.monotonic()


def give_back_free_memory() -> None:
    """Return free heap memory to the operating system, on glibc alone; else do nothing."""
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    try:
        library.malloc_trim(0)
    except AttributeError:
        # Another C library (musl), which does not keep such holes.
        return
