"""The most memory that this process has held since a moment: of a stage, a trial or a ranking.

On CUDA that is memory allocated on the device; elsewhere, on other accelerators too, resident
memory, the corpus and the libraries included.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@final
class PeakMemory:
    """The most memory held since this was made, or since a later one was: a process has one."""

    def __init__(self, device: torch.device) -> None:
        """Begin at what is held now."""
        self.device = device
        self.restarted = _restart(device)

    def bytes(self) -> int | None:
        """Return the most bytes held; None: the system does not report it, or not since then."""
        return peak_bytes(self.device) if self.restarted else None


def _restart(device: torch.device) -> bool:
    """Let the peak begin anew at what is held now, and return whether the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        # 5 sets VmHWM to VmRSS (proc(5)).
        _CLEAR.write_text("5")
    except OSError:
        # Not Linux, or not allowed.
        return False
    return True


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes held by this process, since a `PeakMemory` was made; None: it is not reported."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(peaks[0]) if peaks else None
