"""By which code, on what machine and by which command a run is done, for the record.

Nothing of it decides a result. The machine's name, the environment and keys are left out.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import research
from research.storage.records import Machine, Provenance
from research.storage.untrusted import without_keys

PACKAGES = ("torch", "numpy", "accelerate", "sixfold")
# git may wait for a disk that is far away.
_SECONDS_OF_GIT = 5.0


def provenance_of(device: torch.device, processes: int) -> Provenance:
    """Of this process, which computes on `device` as one of so many."""
    commit, clean = checkout()
    return Provenance(
        begun=now(),
        commit=commit,
        clean=clean,
        machine=Machine(
            platform=platform.platform(),
            cpu=cpu_model(),
            cores=os.cpu_count() or 1,
            accelerator=accelerator_model(device),
        ),
        processes=processes,
        versions=versions(),
        command=command_line(),
    )


def together(before: Sequence[Provenance], latest: Provenance) -> tuple[Provenance, ...]:
    """How a run was done that was begun as `before` says and that `latest` goes on with.

    What differs from one of them in time alone is not repeated, so that a run which is interrupted
    a thousand times stays readable.
    """
    known = any(replace(entry, begun=latest.begun) == latest for entry in before)
    return tuple(before) if known else (*before, latest)


def now() -> str:
    """The time in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute; a package without one is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # This one need not be installed to be run.
            continue
    # The installed one's metadata do not say how it was built.
    return {**found, "torch": torch.__version__}


def command_line() -> str:
    """The words by which this process was begun, without the folder of the program."""
    program = Path(sys.argv[0])
    words = ["python", "-m", "research"] if program.name == "__main__.py" else [program.name]
    return without_keys([*words, *sys.argv[1:]])


def cpu_model() -> str:
    """The processor's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.processor() or platform.machine()


def accelerator_model(device: torch.device) -> str | None:
    """The model of a GPU, or what kind of device it is; None: a CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@functools.cache
def checkout() -> tuple[str | None, bool | None]:
    """The git commit of this code, and whether nothing was changed; None: not known.

    Asked once: a process goes on with the code that it began with. Beside changes of tracked files
    new Python files count, which may be what is run.
    """
    file = str(research.__file__)
    # Code that was installed below somebody's own checkout is none of that.
    if _git("ls-files", "--error-unmatch", file) is None:
        return None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=all")
    if commit is None or status is None:
        return commit, None
    changes = [
        line for line in status.splitlines() if not line.startswith("??") or line.endswith(".py")
    ]
    return commit.strip(), not changes


def _git(*words: str) -> str | None:
    """What git says of the checkout that this code stands in; None: it does not."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(str(research.__file__)).parent), *words],
            # A look takes no lock that somebody's own git would wait for.
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_OF_GIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
