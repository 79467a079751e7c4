"""Returns free memory of this process to the operating system once it has grown.

Packed batches differ in size from step to step, so the C library's heap keeps holes that no later
tensor fits: a process training ML-1M at length 200 held 350 MB of live memory and grew past 5 GB in
an hour. Trimming the heap costs milliseconds, but what a step needs has to be mapped again, page by
page: trimmed every second, S3-Rec's pretraining spent a third of its time in the kernel
(experiments/LOG.md, 2026-11-30). So it is trimmed when resident memory has grown by a part.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

# Seconds of training between two looks at resident memory.
_INTERVAL = 1.0
# The heap is trimmed when resident memory is so many times what it was after the last trim.
_GROWTH = 1.3
_PAGES = Path("/proc/self/statm")


class HeapTrimmer:
    """Trims the heap between two steps when the process has grown by a part since the last time."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._level: int | None = None

    def after_step(self) -> None:
        """Trim where memory has grown; it is looked at if the last time was a second ago or more.

        What memory grows from is taken a second after a trim, when steps hold again what they need.
        """
        if time.monotonic() - self._looked_at < _INTERVAL:
            return
        self._looked_at = time.monotonic()
        pages = resident_pages()
        if pages is None:
            return
        if self._level is None:
            self._level = pages
        elif pages > _GROWTH * self._level:
            give_back_free_memory()
            self._level = None


def resident_pages() -> int | None:
    """Resident memory of this process in pages; None: the system does not report it."""
    try:
        return int(_PAGES.read_text().split()[1])
    except OSError:
        return None


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
