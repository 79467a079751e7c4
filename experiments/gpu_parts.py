"""The parts of a check of a GPU: run one after another, and kept in a file after each of them.

A part is a function of a `Setting` that gives an `Outcome`. Each has a time of its own, and all
have a common one, so that a borrowed machine is given back with what was found by then.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

import torch

from experiments.gpu_setting import BEAUTY, ML_1M, ML_20M, SEED, LeftOut, Setting
from research.storage.json_files import write_json


class Late(Exception):
    """A part that takes longer than it may."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a part found."""

    passed: bool | None
    """None: figures, of which nothing is demanded."""
    line: str
    """What the terminal shows."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Further JSON values, for who looks closer."""


@dataclass(frozen=True)
class Part:
    """One thing to find out."""

    run: Callable[[Setting], Outcome]
    """Does it."""
    seconds: float
    """Most that it may take."""


def machine(setting: Setting) -> dict[str, object]:
    """The machine and the versions that figures are of."""
    told: dict[str, object] = {"device": platform.processor() or "cpu"}
    if setting.gpu:
        known = torch.cuda.get_device_properties(setting.device)
        told = {"device": known.name, "memory": known.total_memory, "driver": driver()}
        told["capability"] = f"{known.major}.{known.minor}"
    packages = ("accelerate", "numpy", "triton")
    return {
        **told,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: installed(name) for name in packages},
    }


def installed(package: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    """The version of the GPU's driver; None: nothing tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().partition("\n")[0] or None


def fingerprints(setting: Setting) -> dict[str, str]:
    """The fingerprint of each corpus that is there."""
    found = {}
    for name in (BEAUTY, ML_1M, ML_20M):
        path = setting.folder(name) / "manifest.json"
        if path.is_file():
            found[name] = str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    return found


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """`Late` is raised inside when it takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Late(f"not done within {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def tried(part: Part, setting: Setting, seconds: float) -> dict[str, object]:
    """A part's entry in the file, after at most so many seconds; what it raises is its result."""
    started = time.perf_counter()
    if seconds <= 0.0:
        return {"result": "NO TIME", "line": "the time for all parts is over"}
    try:
        with within(min(part.seconds, seconds)):
            found = part.run(setting)
    except LeftOut as reason:
        return {"result": "LEFT OUT", "line": str(reason)}
    except Exception as error:
        # Nobody can look again at a borrowed machine.
        details = {"traceback": traceback.format_exc()[-4000:]}
        line = f"{type(error).__name__}: {error}"[:500]
        found = Outcome(passed=False, line=line, details=details)
    result = {None: "FIGURE", True: "PASS", False: "FAIL"}[found.passed]
    return {
        "result": result,
        "line": found.line,
        "seconds": round(time.perf_counter() - started, 2),
        "figures": {name: finite(each) for name, each in found.figures.items()},
        "details": dict(found.details),
    }


def finite(value: float) -> float | str:
    """A number as JSON has it, which knows neither NaN nor infinity."""
    return value if math.isfinite(value) else str(value)


def try_all(
    parts: Mapping[str, Part], setting: Setting, out: Path, minutes: float, command: Sequence[str]
) -> bool:
    """Run the parts, a line each; whether every one was done or left out, and none failed."""
    began = time.perf_counter()
    results: dict[str, dict[str, object]] = {}
    head = {"command": list(command), "machine": machine(setting), "seed": SEED}
    for name, part in parts.items():
        left = 60.0 * minutes - (time.perf_counter() - began)
        results[name] = tried(part, setting, left)
        print(f"{results[name]['result']:8} {name}: {results[name]['line']}", flush=True)
        spent = round(time.perf_counter() - began, 1)
        stored = {**head, "corpora": fingerprints(setting), "seconds": spent, "parts": results}
        write_json(out, stored)
    return all(each["result"] in ("PASS", "FIGURE", "LEFT OUT") for each in results.values())
