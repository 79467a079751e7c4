"""Doing a study's jobs: one after another in this process, or in several processes at a time.

A process works on one job and ends; what came of it stands in the run's folder. A job that shares a
stage with one that is running waits for it, so that the stage is trained once. One that was stopped
or met trouble that passes is left for the same command to continue, and the rest is done.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Literal

import torch
from accelerate import Accelerator

from research.distributed.accelerator import make_accelerator
from research.distributed.failures import FAILED, STOPPED
from research.distributed.signals import SIGNALS, Stopped, listening
from research.errors import said_of
from research.runs.execute import RunOptions
from research.runs.stage_reuse import has_finished
from research.storage.run_folder import Held, RunFolder
from research.storage.untrusted import plain
from research.studies.job import Job, do, record_failure

Outcome = Literal["done", "failed", "stopped"]
# Exit code of a worker that met an error of the disk, as sysexits.h has it.
DISK = 74
# Seconds that a worker has to end when it is told to.
PATIENCE = 10.0
# Seconds of work whose cost was foreseen well enough to go by.
SHORT = 10.0
# Seconds between looks at what running jobs have finished.
LOOK_AGAIN = 2.0


class Progress:
    """Says which job begins and ends, and how long the rest will take."""

    def __init__(self, jobs: Sequence[Job], seconds: Sequence[float], workers: int, quiet: bool):
        self.total = len(jobs)
        self.left = dict(zip(jobs, seconds))
        self.workers = workers
        self.quiet = quiet
        self.begun = 0
        self.ended = 0
        self.spent = 0.0
        self.foreseen = 0.0

    def begins(self, job: Job) -> None:
        """A job begins."""
        self.begun += 1
        self._say(f"— {job.name}  ({self.begun} of {self.total}{self._rest()})")

    def ends(self, job: Job, seconds: float, outcome: Outcome) -> None:
        """A job has ended after so many seconds."""
        self.ended += 1
        foreseen = self.left.pop(job)
        how = "stopped"
        if outcome != "stopped":
            self.spent += seconds
            self.foreseen += foreseen
            how = f"done in {seconds:.0f} s" if outcome == "done" else f"failed: {job.failure()}"
        if self.workers > 1 or outcome != "done":
            self._say(f"  {job.name}: {how}  ({self.ended} of {self.total}{self._rest()})")

    def _rest(self) -> str:
        seconds = sum(self.left.values()) / self.workers
        # What was foreseen is corrected by what the jobs so far took, short ones with little say.
        seconds *= (self.spent + SHORT) / (self.foreseen + SHORT)
        return f", about {duration(seconds)} left" if seconds >= 1 else ""

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def in_turn(
    jobs: Sequence[Job], progress: Progress, options: RunOptions, accelerator: Accelerator
) -> None:
    """Do the jobs one after another in this process."""
    for job in jobs:
        progress.begins(job)
        started = time.monotonic()
        done = do(job, options, accelerator)
        accelerator.wait_for_everyone()
        progress.ends(job, time.monotonic() - started, "done" if done else "failed")


@dataclass(frozen=True, eq=False)
class Working:
    """A process at its job."""

    process: BaseProcess
    job: Job
    slot: int
    started: float


def in_processes(
    jobs: Sequence[Job], progress: Progress, options: RunOptions, workers: int, threads: int | None
) -> Mapping[Job, int]:
    """Do the jobs in `workers` processes, each with its share of threads or a GPU of its own.

    Gives the jobs that were left for the same command to continue, and with which exit code.
    """
    threads = threads or max(1, usable_cores() // workers)
    context = multiprocessing.get_context("spawn")
    devices = visible_devices(options.device)
    waiting, working = list(jobs), list[Working]()
    quiet = replace(options, quiet=True)
    left: dict[Job, int] = {}
    try:
        while waiting or working:
            free = sorted(set(range(workers)) - {each.slot for each in working})
            job = next((each for each in waiting if not must_wait(each, working)), None)
            if free and job is not None:
                waiting.remove(job)
                device = devices[free[0] % len(devices)] if devices else None
                given = (job, quiet, threads, device)
                process = context.Process(target=work, args=given, daemon=True)
                process.start()
                working.append(Working(process, job, free[0], time.monotonic()))
                progress.begins(job)
                continue
            # A running job may have finished a stage that another one waits for.
            wait([each.process.sentinel for each in working], LOOK_AGAIN)
            for each in [each for each in working if not each.process.is_alive()]:
                working.remove(each)
                outcome = ended(each.job, each.process.exitcode or 0)
                if outcome == "stopped":
                    left[each.job] = FAILED if each.process.exitcode == DISK else STOPPED
                progress.ends(each.job, time.monotonic() - each.started, outcome)
    finally:
        stop(working)
    return left


def must_wait(job: Job, working: Sequence[Working]) -> bool:
    """Whether a running job trains a stage that this one could take over, and has not ended it."""
    for each in working:
        pairs = zip(job.stage_marks, each.job.stage_marks)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common:
            name, mark = job.config.stages[common - 1].name, job.stage_marks[common - 1]
            donors = [RunFolder(donor, writes=False) for donor in job.donors]
            if not any(has_finished(donor, name, mark) for donor in donors):
                return True
    return False


def ended(job: Job, code: int) -> Outcome:
    """What came of a job, by its process's exit code; an unexplained death is recorded."""
    if code == 0:
        return "done"
    # A signal may come before the process listens to it.
    if code in (STOPPED, DISK) or -code in SIGNALS:
        return "stopped"
    if job.state() != "failed":
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        record_failure(job, RunFolder(job.folder), f"the process ended with {how}", "")
    return "failed"


def stop(working: Sequence[Working]) -> None:
    """End processes; what they have written by then is whole."""
    for each in working:
        each.process.terminate()
    for each in working:
        each.process.join(PATIENCE)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()


def usable_cores() -> int:
    """Cores that this process may run on."""
    # Not every system can say which.
    known = "sched_getaffinity" in vars(os)
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def visible_devices(asked: str | None) -> list[str]:
    """GPUs that workers may use, as CUDA_VISIBLE_DEVICES calls them; `asked`: see `RunOptions`."""
    if asked == "cpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = torch.cuda.device_count()
    names = given.split(",")[:number] if given else [str(each) for each in range(number)]
    if asked is not None and ":" in asked:
        return [names[int(asked.partition(":")[2])]]
    return names


def work(job: Job, options: RunOptions, threads: int, device: str | None) -> None:
    """What a worker's process does; it does not outlive the process that began it."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # A terminal's Ctrl-C goes to all; the process that began this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    if device is not None:
        # The only one that this process sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        options = replace(options, device="cuda")
    try:
        with listening():
            done = do(job, options, make_accelerator(device=options.device))
    except Stopped:
        sys.exit(STOPPED)
    except Held as error:
        print(f"{job.name}: {plain(str(error))}", file=sys.stderr)
        sys.exit(STOPPED)
    except OSError as error:
        print(f"{job.name}: {plain(said_of(error))}", file=sys.stderr)
        sys.exit(DISK)
    sys.exit(0 if done else 1)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child"
    wait([parent.sentinel])
    os._exit(1)
