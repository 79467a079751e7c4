"""The most memory that this process has held since a moment: of a stage, a trial or a ranking.

On an accelerator that is memory allocated on it, on a CPU resident memory, the corpus and the
libraries included.
"""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def restart_peak(device: torch.device) -> None:
    """Let the peak begin anew at what is held now; where the system cannot, it stays as it is."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        # 5 sets VmHWM to VmRSS (proc(5)).
        _CLEAR.write_text("5")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the whole process.
        return


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes held since `restart_peak`; None: the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(peaks[0]) if peaks else None
