"""SIGKILL or SIGTERM at any moment, again and again: the run ends as if nothing had happened.

`SIXFOLD_KILLS=200 python -m pytest tests/faults -k killed` is the longer mode; it prints how many
kills met which kind of run in which phase.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed, Whole
from tests.faults.harness import (
    Job,
    checkpoints,
    differences,
    lines_of,
    outcome,
    unfinished,
    words,
)

pytestmark = pytest.mark.long

# SIGKILLs in all: three of five meet a run of one process, the others one of two ranks. Beside them
# come two SIGTERMs for five.
KILLS = int(os.environ.get("SIXFOLD_KILLS", "5"))
STOPPED = 75
# A run is disturbed at most so often before it is left to end.
PER_RUN = 8
# The last stage has ten epochs of five steps; it validates after each.
EPOCH, EPOCHS = 5, 10
Sign = Callable[[], bool]


def snapshot(run: Path) -> dict[str, tuple[int, int]]:
    """Every file of a run, its size and when it was written."""
    paths = [path for path in run.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def phase(run: Path, before: dict[str, tuple[int, int]], stale: set[Path]) -> str:
    """What a run that was killed had been at, from what its folder shows."""
    if set(unfinished(run)) - stale:
        return "saving"
    if (run / "summary.json").exists():
        return "after the end"
    if snapshot(run) == before:
        return "start-up"
    if validates(run / "metrics.jsonl"):
        return "validation"
    lines = lines_of(run)
    if lines and "val/mrr" in lines[-1] and lines[-1]["epoch"] == EPOCHS:
        return "final ranking"
    return "training"


def validates(lines: Path) -> bool:
    """Whether the last line is the one before a validation."""
    content = lines.read_bytes() if lines.exists() else b""
    last = content[: content.rfind(b"\n") + 1].splitlines()[-1:]
    if not last:
        return False
    line = json.loads(last[0])
    return line["stage"] == "finetune" and line["step"] % EPOCH == 0 and "val/mrr" not in line


def signs(run: Path, whole: Whole, draws: random.Random) -> tuple[Sign, float]:
    """What a kill waits for, and for how long after that at most."""
    end = checkpoints(whole.run, "finetune")[-1].name
    lines = run / "metrics.jsonl"
    stale, size = set(unfinished(run)), size_of(lines)
    saved = {*checkpoints(run, "pretrain"), *checkpoints(run, "finetune")}
    more = draws.randint(1, 10)
    moment = time.monotonic() + whole.seconds * draws.uniform(0.3, 0.9)
    return draws.choice(
        [
            (lambda: time.monotonic() > moment, 0.0),
            (lambda: time.monotonic() > moment, 0.0),
            # While a checkpoint is being written, and when it has been: old ones are removed then.
            (lambda: bool(set(unfinished(run)) - stale), 0.01),
            (lambda: len(new_checkpoints(run, saved)) >= more, 0.01),
            # An epoch's last line is followed by validation.
            (lambda: size_of(lines) >= size + more * 200 and validates(lines), 0.003),
            (lambda: (run / "stages" / "finetune" / end).exists(), 0.03),
        ]
    )


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def new_checkpoints(run: Path, saved: set[Path]) -> set[Path]:
    return {*checkpoints(run, "pretrain"), *checkpoints(run, "finetune")} - saved


def ended_by(number: signal.Signals, job: Job) -> None:
    """End a job that goes on; by SIGTERM it ends itself, in order unless it has just been begun."""
    if number == signal.SIGKILL:
        job.kill()
        assert all(code in (0, -signal.SIGKILL) for code in job.codes), job.said
        return
    job.send(number)
    codes = job.result()
    if -number in codes:
        # Before a process listens, it dies as any, and the other ends without it; so may one that
        # is done and only takes itself down.
        assert set(codes) <= {-number, 0, 1, STOPPED}, job.said
    else:
        assert set(codes) <= {0, STOPPED}, job.said


def disturbed(
    number: signal.Signals, ranks: int, times: int, whole: Whole, data: Path, folder: Path
) -> Counter[str]:
    """Runs that are ended so often in all; how often in each phase. Fails if one ends otherwise.

    A run goes on after each time; when it has ended, or was disturbed often enough, the next one.
    """
    draws, phases = random.Random(times + ranks), Counter[str]()
    runs = 0
    while phases.total() < times:
        runs += 1
        run = folder / f"run-{ranks}-{runs}"
        command = words(run, data)
        for _ in range(min(PER_RUN, times - phases.total())):
            before, stale = snapshot(run), set(unfinished(run))
            with Job(command, folder / "said", ranks=ranks) as job:
                sign, longest = signs(run, whole, draws)
                if job.until(sign, every=0.002):
                    time.sleep(draws.uniform(0.0, longest))
                going = job.codes != [0] * ranks
                ended_by(number, job)
            if not going:
                break
            phases[phase(run, before, stale)] += 1
        with Job(command, folder / "said", ranks=ranks) as job:
            assert job.result() == [0] * ranks, job.said
        assert differences(outcome(run), whole.outcome) == [], run
        shutil.rmtree(run)
    return phases


@pytest.mark.parametrize(
    ("number", "ranks", "times"),
    [
        (signal.SIGKILL, 1, KILLS - KILLS * 2 // 5),
        (signal.SIGKILL, 2, KILLS * 2 // 5),
        (signal.SIGTERM, 1, -(-KILLS // 5)),
        (signal.SIGTERM, 2, KILLS // 5),
    ],
    ids=["killed", "killed, two ranks", "stopped", "stopped, two ranks"],
)
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(
    number: signal.Signals,
    ranks: int,
    times: int,
    undisturbed: Undisturbed,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = time.monotonic()
    phases = disturbed(number, ranks, times, undisturbed(ranks), data, tmp_path)
    if "SIXFOLD_KILLS" in os.environ:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(phases.items()))
        with capsys.disabled():
            print(
                f"\n{phases.total()} times {number.name} to runs of {ranks}: {counted}; all ended "
                f"as if undisturbed; {time.monotonic() - begun:.0f} s"
            )
