"""Provenance of a run: its code, machine, versions and command, recorded in config.json.

Nothing here changes a result. The machine's name, the environment and keys are not recorded.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from research.runs.code_version import code_version
from research.storage.records import Machine, Provenance
from research.storage.untrusted import without_keys

PACKAGES = ("torch", "numpy", "accelerate", "sixfold")


def provenance_of(device: torch.device, processes: int) -> Provenance:
    """The provenance of this process, which computes on `device` as one of `processes`."""
    commit, clean = code_version()
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


def merge_provenance(entries: Sequence[Provenance], latest: Provenance) -> tuple[Provenance, ...]:
    """The provenance of a run: its earlier `entries`, and `latest`, by which it continues now.

    If `latest` differs from an earlier entry in nothing but time, it is left out, so that the
    record of a run that is interrupted a thousand times stays readable.
    """
    recorded = any(replace(entry, begun=latest.begun) == latest for entry in entries)
    return tuple(entries) if recorded else (*entries, latest)


def now() -> str:
    """The time in UTC, to the second, as YYYY-MM-DDThh:mm:ssZ."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that compute; one that is not installed is absent."""
    versions_found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions_found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # This project itself can run without being installed.
            continue
    # The metadata of an installed torch do not say how it was built; its own version does.
    return {**versions_found, "torch": torch.__version__}


def command_line() -> str:
    """The command line of this process, without the program's folder and with keys hidden."""
    program = Path(sys.argv[0])
    words = ["python", "-m", "research"] if program.name == "__main__.py" else [program.name]
    return without_keys([*words, *sys.argv[1:]])


def cpu_model() -> str:
    """The processor's model, or its architecture where the system does not say more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), "") or platform.processor() or platform.machine()


def accelerator_model(device: torch.device) -> str | None:
    """The model of a CUDA GPU, or the type of another accelerator; None: a CPU."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
