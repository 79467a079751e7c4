"""How many CPU cores this process may use; what a container allows is not what its machine has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Where a container on Linux has its quota and period of CPU time, in microseconds (cgroup v2).
QUOTA_FILE = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> float:
    """The cores that this process may use: those it may run on, at most its container's share.

    The share is CPU time per time, and may be a fraction.
    """
    cores = float(os.cpu_count() or 1)
    if sys.platform == "linux":
        cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = QUOTA_FILE.read_text(encoding="ascii").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        # There is no such file, or its quota is "max".
        return cores
