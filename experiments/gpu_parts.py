"""Runs the parts of `gpu_checks` one after another, and writes the results after each of them.

A part is a function of a `Setting` that returns an `Outcome`. Each part has a time limit and all
together have one, so that a borrowed machine goes back in time, with the results until then.
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

from experiments.gpu_setting import BEAUTY, ML_1M, ML_20M, SEED, PartSkipped, Setting
from research.storage.json_files import write_json


class OutOfTime(Exception):
    """Raised in a part that exceeds its time limit."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a part."""

    passed: bool | None
    """Whether the check passed; None: the part only measures."""
    line: str
    """The text that the terminal shows."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Measured numbers by name."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Further JSON values, for a closer look."""


@dataclass(frozen=True)
class Part:
    """One check or measurement."""

    run: Callable[[Setting], Outcome]
    """The function that does it."""
    seconds: float
    """Its time limit."""


def machine(setting: Setting) -> dict[str, object]:
    """The device, its properties, and the versions of the software, for the results file."""
    facts: dict[str, object] = {"device": platform.processor() or "cpu"}
    if setting.gpu:
        properties = torch.cuda.get_device_properties(setting.device)
        facts = {"device": properties.name, "memory": properties.total_memory, "driver": driver()}
        facts["capability"] = f"{properties.major}.{properties.minor}"
    packages = ("accelerate", "numpy", "triton")
    return {
        **facts,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: installed_version(name) for name in packages},
    }


def installed_version(package: str) -> str | None:
    """The version of a package; None: it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    """The version of the GPU's driver; None: nvidia-smi is absent or does not say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().partition("\n")[0] or None


def fingerprints(setting: Setting) -> dict[str, str]:
    """The fingerprint of each corpus that exists, by name."""
    by_corpus = {}
    for name in (BEAUTY, ML_1M, ML_20M):
        path = setting.folder(name) / "manifest.json"
        if path.is_file():
            by_corpus[name] = str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    return by_corpus


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """A context in which `OutOfTime` is raised after `seconds`."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"not done within {seconds:.3g} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def run_part(part: Part, setting: Setting, seconds: float) -> dict[str, object]:
    """Run a part within `seconds` and its own limit; returns its entry in the results file.

    An exception of the part is its result: LEFT OUT for `PartSkipped`, else FAIL with a traceback.
    """
    started = time.perf_counter()
    if seconds <= 0.0:
        return {"result": "NO TIME", "line": "the time for all parts is over"}
    try:
        with time_limit(min(part.seconds, seconds)):
            outcome = part.run(setting)
    except PartSkipped as reason:
        return {"result": "LEFT OUT", "line": str(reason)}
    except Exception as error:
        # A borrowed machine cannot be asked again, so the traceback is kept.
        details = {"traceback": traceback.format_exc()[-4000:]}
        line = f"{type(error).__name__}: {error}"[:500]
        outcome = Outcome(passed=False, line=line, details=details)
    result = {None: "FIGURE", True: "PASS", False: "FAIL"}[outcome.passed]
    return {
        "result": result,
        "line": outcome.line,
        "seconds": round(time.perf_counter() - started, 2),
        "figures": {name: json_number(value) for name, value in outcome.figures.items()},
        "details": dict(outcome.details),
    }


def json_number(value: float) -> float | str:
    """A number that JSON can hold: NaN and infinity become text."""
    return value if math.isfinite(value) else str(value)


def run_all(
    parts: Mapping[str, Part], setting: Setting, out: Path, minutes: float, command: Sequence[str]
) -> bool:
    """Run the parts, print a line for each, and write `out` after each.

    Returns whether none failed and none ran out of time; parts may be left out.
    """
    began = time.perf_counter()
    results: dict[str, dict[str, object]] = {}
    head = {"command": list(command), "machine": machine(setting), "seed": SEED}
    for name, part in parts.items():
        remaining = 60.0 * minutes - (time.perf_counter() - began)
        results[name] = run_part(part, setting, remaining)
        print(f"{results[name]['result']:8} {name}: {results[name]['line']}", flush=True)
        seconds = round(time.perf_counter() - began, 1)
        stored = {**head, "corpora": fingerprints(setting), "seconds": seconds, "parts": results}
        write_json(out, stored)
    return all(result["result"] in ("PASS", "FIGURE", "LEFT OUT") for result in results.values())
