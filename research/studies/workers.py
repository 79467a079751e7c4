"""Does a study's jobs, one after another in this process or several at a time in worker processes.

A worker does one job and exits; the result is in the run's folder. A job that shares a stage with a
running one waits until that stage is trained, so that it is trained once. A job that was stopped or
met a temporary problem (see `job.passes`) is left for the same command to continue, and the other
jobs are done.
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
from research.distributed.signals import SIGNALS, Stopped, handle_signals
from research.errors import disk_error_message
from research.runs.execute import RunOptions
from research.runs.stage_reuse import has_finished_stage
from research.storage.run_folder import FolderLocked, RunFolder
from research.storage.untrusted import printable
from research.studies.job import Job, do, record_failure

Outcome = Literal["done", "failed", "stopped"]
# Exit code of a worker that met a file system error (EX_IOERR of sysexits.h).
DISK = 74
# Seconds that a worker has to exit after SIGTERM, before it is killed.
PATIENCE = 10.0
# Seconds added to both the measured and the estimated time where one is divided by the other, so
# that a few short jobs barely change the estimate of the rest.
SHORT = 10.0
# Seconds between checks of which stages the running jobs have finished.
LOOK_AGAIN = 2.0


class Progress:
    """Prints which job begins and ends, and about how long the rest will take."""

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
        """Print that a job begins."""
        self.begun += 1
        self._say(f"— {job.name}  ({self.begun} of {self.total}{self._rest()})")

    def ends(self, job: Job, seconds: float, outcome: Outcome) -> None:
        """Note that a job has ended after `seconds`, and print it.

        Nothing is printed for a job that was done when there is one worker.
        """
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
        # The estimate of the rest is corrected by how far the jobs so far were from theirs.
        seconds *= (self.spent + SHORT) / (self.foreseen + SHORT)
        return f", about {duration(seconds)} left" if seconds >= 1 else ""

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)


def duration(seconds: float) -> str:
    """Seconds as text, in seconds, minutes or hours."""
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
    """A worker process and the job that it is doing."""

    process: BaseProcess
    job: Job
    slot: int
    started: float


def in_processes(
    jobs: Sequence[Job], progress: Progress, options: RunOptions, workers: int, threads: int | None
) -> Mapping[Job, int]:
    """Do the jobs in up to `workers` processes at a time.

    Each gets `threads` CPU threads (None: the usable cores divided by `workers`) and one of the
    visible GPUs, if there are any. Returns the exit code (`FAILED` or `STOPPED`) by job for those
    that were left for the same command to continue.
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
            # The timeout is for jobs that wait for a stage, which a running job may have finished.
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
    """Whether a running job has yet to finish a stage that this job could take over from it."""
    for each in working:
        pairs = zip(job.stage_hashes, each.job.stage_hashes)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common:
            name, mark = job.config.stages[common - 1].name, job.stage_hashes[common - 1]
            donors = [RunFolder(donor, writes=False) for donor in job.donors]
            if not any(has_finished_stage(donor, name, mark) for donor in donors):
                return True
    return False


def ended(job: Job, code: int) -> Outcome:
    """What came of a job, by its process's exit code.

    Writes failed.json when the process ended without having done so, for example by being killed.
    """
    if code == 0:
        return "done"
    # -code: the signal arrived before the process had installed its handlers.
    if code in (STOPPED, DISK) or -code in SIGNALS:
        return "stopped"
    if job.state() != "failed":
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        record_failure(job, RunFolder(job.folder), f"the process ended with {how}", "")
    return "failed"


def stop(working: Sequence[Working]) -> None:
    """Terminate worker processes, and kill those that do not exit within `PATIENCE` seconds.

    What they have written stays readable: files are written whole, and a cut log line is dropped.
    """
    for each in working:
        each.process.terminate()
    for each in working:
        each.process.join(PATIENCE)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()


def usable_cores() -> int:
    """Number of CPU cores that this process may run on."""
    # `sched_getaffinity` does not exist on every system.
    known = "sched_getaffinity" in vars(os)
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def visible_devices(asked: str | None) -> list[str]:
    """GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them; empty: the CPU.

    `asked` is `RunOptions.device`: cpu, cuda, cuda:N or None.
    """
    if asked == "cpu":
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = torch.cuda.device_count()
    names = given.split(",")[:number] if given else [str(each) for each in range(number)]
    if asked is not None and ":" in asked:
        return [names[int(asked.partition(":")[2])]]
    return names


def work(job: Job, options: RunOptions, threads: int, device: str | None) -> None:
    """Do one job in a worker process, and exit with a code that `ended` understands.

    The process exits with its parent.
    """
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # Ctrl-C in a terminal reaches every process; the parent ends this one with SIGTERM instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    if device is not None:
        # Set before CUDA is initialized, so this GPU is the only one that the process sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        options = replace(options, device="cuda")
    try:
        with handle_signals():
            done = do(job, options, make_accelerator(device=options.device))
    except Stopped:
        sys.exit(STOPPED)
    except FolderLocked as error:
        print(f"{job.name}: {printable(str(error))}", file=sys.stderr)
        sys.exit(STOPPED)
    except OSError as error:
        print(f"{job.name}: {printable(disk_error_message(error))}", file=sys.stderr)
        sys.exit(DISK)
    sys.exit(0 if done else 1)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child"
    wait([parent.sentinel])
    os._exit(1)
