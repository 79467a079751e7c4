"""Whether a process of a job is alive, and what its main thread executes."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import FrameType

# Modules, by the beginnings of their names, in which a main thread waits for other ranks:
# collectives, and the backward pass, in which DDP's collectives run. A module of this code adds its
# own name, so that it may be renamed.
WAITING_MODULES = {"torch.distributed", "torch.autograd"}


def machine_id() -> str:
    """Return text that is equal for two processes if they can see each other.

    These are processes of one system and one container.
    """
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        # Not Linux: the host name has to do.
        pass
    return " ".join(parts)


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists on this machine; a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # A dead process remains as a zombie until its parent collects its exit code.
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def current_code(frame: FrameType | None) -> tuple[str, bool]:
    """Return what a thread executes, by its frame, and whether it waits for other ranks there."""
    innermost: str | None = None
    waits = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        waits = waits or module.startswith(tuple(WAITING_MODULES))
        location = f"{frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}"
        location += f":{frame.f_lineno})"
        innermost = innermost or location
        if "site-packages" not in frame.f_code.co_filename and not is_standard_library(frame):
            location_text = location if location == innermost else f"{location} -> {innermost}"
            return location_text, waits
        frame = frame.f_back
    return innermost or "nothing", waits


def is_standard_library(frame: FrameType) -> bool:
    """Whether a frame belongs to Python's standard library."""
    return frame.f_code.co_filename.startswith((os.path.dirname(os.__file__), "<frozen"))
