"""Compares this checkout of the project with another one, by CPU times in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median


def cpu_seconds(checkout: Path, name: str, steps: int | None) -> float:
    """CPU seconds of a work with one thread, measured by the benchmark of a checkout."""
    command = [sys.executable, "-m", "experiments.benchmark", "--here", name, "--threads", "1"]
    command += [] if steps is None else ["--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(result.stdout.rsplit("CPU ", 1)[1].split()[0])


def compare_with(other: Path, name: str, pairs: int, steps: int | None) -> None:
    """Run a work in another checkout and in this one in turn, and print CPU time ratios."""
    other_times, own_times = [], []
    for _ in range(pairs):
        other_times.append(cpu_seconds(other, name, steps))
        own_times.append(cpu_seconds(Path.cwd(), name, steps))
    ratios = sorted(own / other_time for own, other_time in zip(own_times, other_times))
    chance = sorted(second / first for first, second in pairwise(other_times))
    chance_text = f", other / other {chance[0]:.3f} to {chance[-1]:.3f}" if chance else ""
    print(
        f"{name}: CPU {median(other_times):.3f} s in the other checkout, {median(own_times):.3f} s "
        f"in this one; ratio this / other median {median(ratios):.3f} ({ratios[0]:.3f} to "
        f"{ratios[-1]:.3f}){chance_text}",
        flush=True,
    )
