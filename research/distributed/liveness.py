"""Whether a process of a job lives, and where in the code it stands."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import FrameType

# Modules in which a main thread waits for other ranks: collectives, and the backward pass, which
# holds DDP's. A module of ours adds its own name, so that it may be called anything.
WAITING = {"torch.distributed", "torch.autograd"}


def machine() -> str:
    """Equal for two processes if they can see each other's: one system and one container."""
    marks = [socket.gethostname()]
    try:
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        marks.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        # Not Linux, where the name has to do.
        pass
    return " ".join(marks)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        about = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # A dead process remains as a zombie until its parent asks for it.
    return about.rpartition(")")[2].split()[0] not in ("Z", "X")


def place_of(frame: FrameType | None) -> tuple[str, bool]:
    """What a thread executes, and whether it waits for other ranks there."""
    innermost: str | None = None
    waits = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        waits = waits or module.startswith(tuple(WAITING))
        here = f"{frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}"
        here += f":{frame.f_lineno})"
        innermost = innermost or here
        if "site-packages" not in frame.f_code.co_filename and not is_standard(frame):
            where = here if here == innermost else f"{here} -> {innermost}"
            return where, waits
        frame = frame.f_back
    return innermost or "nothing", waits


def is_standard(frame: FrameType) -> bool:
    """Whether a frame belongs to Python's own library."""
    return frame.f_code.co_filename.startswith((os.path.dirname(os.__file__), "<frozen"))
