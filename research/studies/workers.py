"""Does a study's jobs, one after another in this process or several at a time in worker processes.

A worker does one job and exits; the result is in the run's folder. A job that shares a stage with a
running one waits until that stage is trained, so that it is trained once. A job that was stopped or
met a temporary problem (see `job.is_temporary`) is continued by the same command later; the other
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
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Literal, final

import torch
from accelerate import Accelerator

from research.distributed.accelerator import make_accelerator
from research.distributed.cores import usable_cores
from research.distributed.failures import FAILED, STOPPED
from research.distributed.signals import SIGNALS, Stopped, handle_signals
from research.errors import disk_error_message
from research.runs.execute import RunOptions
from research.runs.stage_reuse import has_finished_stage
from research.storage.run_folder import FolderLocked, RunFolder
from research.storage.untrusted import printable
from research.studies.job import Job, record_failure, run_job

if TYPE_CHECKING:
    # Not every system has the second.
    from multiprocessing.context import ForkServerContext, SpawnContext

Outcome = Literal["done", "failed", "stopped"]
# Exit code of a worker that met a file system error (EX_IOERR of sysexits.h).
DISK_ERROR = 74
# Exit code that `multiprocessing` gives a worker whose fork server ended before it.
SERVER_ENDED = 255
# Seconds that a worker has to exit after SIGTERM, before it is killed.
EXIT_SECONDS = 10.0
# Seconds added to both the measured and the estimated time where one is divided by the other, so
# that a few short jobs barely change the estimate of the rest.
SMOOTHING_SECONDS = 10.0
# Seconds between checks of which stages the running jobs have finished.
POLL_SECONDS = 2.0


class Progress:
    """Prints which job begins and ends, and about how long the rest will take."""

    def __init__(self, total: int, seconds: Mapping[Job, float], workers: int, quiet: bool):
        """`total` is the number of jobs, and `seconds` what those that are known are to take."""
        self.total = total
        self.remaining = dict(seconds)
        self.workers = workers
        self.quiet = quiet
        self.num_begun = 0
        self.num_ended = 0
        self.seconds_spent = 0.0
        self.seconds_estimated = 0.0

    def begin(self, job: Job) -> None:
        """Print that a job begins."""
        self.num_begun += 1
        self._print(f"— {job.name}  ({self.num_begun} of {self.total}{self._remaining_text()})")

    def end(self, job: Job, seconds: float, outcome: Outcome) -> None:
        """Note that a job has ended after `seconds`, and print it.

        Nothing is printed for a job that was done when there is one worker.
        """
        self.num_ended += 1
        estimate = self.remaining.pop(job, 0.0)
        result = "stopped"
        if outcome != "stopped":
            self.seconds_spent += seconds
            self.seconds_estimated += estimate
            result = f"done in {seconds:.0f} s" if outcome == "done" else f"failed: {job.failure()}"
        if self.workers > 1 or outcome != "done":
            counts = f"{self.num_ended} of {self.total}{self._remaining_text()}"
            self._print(f"  {job.name}: {result}  ({counts})")

    def _remaining_text(self) -> str:
        seconds = sum(self.remaining.values()) / self.workers
        # The estimate of the rest is corrected by how far the jobs so far were from theirs.
        spent = self.seconds_spent + SMOOTHING_SECONDS
        seconds *= spent / (self.seconds_estimated + SMOOTHING_SECONDS)
        return f", about {duration_text(seconds)} left" if seconds >= 1 else ""

    def _print(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)


def duration_text(seconds: float) -> str:
    """Seconds as text, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class JobQueue(ABC):
    """Abstract: the jobs that are left, handed out as they may begin."""

    @abstractmethod
    def next(self, running: Sequence[Worker]) -> Job | None:
        """Hand out a job that may begin beside those that `running` are doing.

        None: there is none now, or none at all once nothing runs.
        """

    @abstractmethod
    def end(self, job: Job) -> None:
        """Called when a job that was handed out has ended, or was stopped."""


@final
class JobList(JobQueue):
    """Jobs that are known from the beginning, in order but where one must wait for a stage."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = list(jobs)

    def next(self, running: Sequence[Worker]) -> Job | None:
        """The first job that shares no stage with a running one that has yet to train it."""
        job = next((job for job in self.waiting if not must_wait(job, running)), None)
        if job is not None:
            self.waiting.remove(job)
        return job

    def end(self, job: Job) -> None:
        """Nothing depends on how a job of a list ends."""


def run_in_turn(
    queue: JobQueue, progress: Progress, options: RunOptions, accelerator: Accelerator
) -> None:
    """Do the jobs of a queue one after another in this process."""
    while (job := queue.next(())) is not None:
        progress.begin(job)
        started = time.monotonic()
        done = run_job(job, options, accelerator)
        accelerator.wait_for_everyone()
        progress.end(job, time.monotonic() - started, "done" if done else "failed")
        queue.end(job)


class Output:
    """This process's file descriptors of standard output and error, to be given to a worker.

    Pickled while a worker is made, which gets copies of them. A fork server has the descriptors of
    the time when it was started, and this process's may have been redirected since.
    """

    def __getstate__(self) -> list[object]:
        return [reduction.DupFd(number) for number in (1, 2)]

    def __setstate__(self, state: list[object]) -> None:
        self.copies = state

    def use(self) -> None:
        """Write to them from now on; called in the worker."""
        for number, copy in zip((1, 2), self.copies):
            os.dup2(copy.detach(), number)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class Worker:
    """A worker process and the job that it is doing."""

    process: BaseProcess
    job: Job
    slot: int
    started: float


def run_in_processes(
    queue: JobQueue, progress: Progress, options: RunOptions, workers: int, threads: int | None
) -> Mapping[Job, int]:
    """Do the jobs of a queue in up to `workers` processes at a time.

    Each gets `threads` CPU threads (None: `threads_of_each`) and one of the visible GPUs, if there
    are any. Returns the exit code (`FAILED` or `STOPPED`) by job for those that were left for the
    same command to continue.
    """
    threads = threads or threads_of_each(workers)
    context = process_context()
    devices = visible_devices(options.device)
    running: list[Worker] = []
    stop_codes: dict[Job, int] = {}
    try:
        while True:
            free = sorted(set(range(workers)) - {worker.slot for worker in running})
            job = queue.next(running) if free else None
            if job is not None:
                device = devices[free[0] % len(devices)] if devices else None
                beside_others = replace(options, prefix=f"  {job.name}: ")
                output = Output() if sys.platform == "linux" else None
                arguments = (job, beside_others, threads, device, dict(os.environ), output)
                process = context.Process(target=work_on, args=arguments, daemon=True)
                process.start()
                running.append(Worker(process, job, free[0], time.monotonic()))
                progress.begin(job)
                continue
            if not running:
                break
            # The timeout is for jobs that wait for a stage, which a running job may have finished.
            wait([worker.process.sentinel for worker in running], POLL_SECONDS)
            for worker in [worker for worker in running if not worker.process.is_alive()]:
                running.remove(worker)
                outcome = outcome_of(worker.job, worker.process.exitcode or 0)
                if outcome == "stopped":
                    stop_codes[worker.job] = (
                        FAILED if worker.process.exitcode == DISK_ERROR else STOPPED
                    )
                progress.end(worker.job, time.monotonic() - worker.started, outcome)
                queue.end(worker.job)
    finally:
        stop_workers(running)
    return stop_codes


def process_context() -> SpawnContext | ForkServerContext:
    """How worker processes are made: forked from a server that has imported all they need.

    A process that starts from nothing imports for 3 s. The server itself trains nothing and has no
    threads, so a fork of it is as good as a new process. macOS's libraries do not bear a fork, and
    Windows has none: there each worker starts from nothing.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def must_wait(job: Job, running: Sequence[Worker]) -> bool:
    """Whether a running job has yet to finish a stage that this job could take over from it."""
    for worker in running:
        pairs = zip(job.stage_hashes, worker.job.stage_hashes)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if common:
            name, stage_hash = job.config.stages[common - 1].name, job.stage_hashes[common - 1]
            runs = [RunFolder(path, writes=False) for path in job.reuse_from]
            if not any(has_finished_stage(run, name, stage_hash) for run in runs):
                return True
    return False


def outcome_of(job: Job, code: int) -> Outcome:
    """What came of a job, by its process's exit code.

    Writes failed.json when the process ended without having done so, for example by being killed.
    """
    if code == 0:
        return "done"
    # -code: the signal arrived before the process had installed its handlers.
    if code in (STOPPED, DISK_ERROR, SERVER_ENDED) or -code in SIGNALS:
        return "stopped"
    if job.state() != "failed":
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        record_failure(job, RunFolder(job.folder), f"the process ended with {ending}", "")
    return "failed"


def stop_workers(running: Sequence[Worker]) -> None:
    """Terminate worker processes, and kill those that do not exit within `EXIT_SECONDS` seconds.

    What they have written stays readable: files are written whole, and a cut log line is dropped.
    """
    for worker in running:
        worker.process.terminate()
    for worker in running:
        worker.process.join(EXIT_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def threads_of_each(workers: int) -> int:
    """The CPU threads that each of so many workers gets: its share of the usable cores, or one."""
    return max(1, int(usable_cores() / workers))


def visible_devices(device: str | None) -> list[str]:
    """GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them; empty: the CPU.

    `device` is `RunOptions.device`: cpu, cuda, cuda:N or None.
    """
    if device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    num_devices = torch.cuda.device_count()
    names = (
        visible.split(",")[:num_devices]
        if visible
        else [str(index) for index in range(num_devices)]
    )
    if device is not None and ":" in device:
        return [names[int(device.partition(":")[2])]]
    return names


def work_on(
    job: Job,
    options: RunOptions,
    threads: int,
    device: str | None,
    environment: Mapping[str, str],
    output: Output | None,
) -> None:
    """Do one job in a worker process, and exit with a code that `outcome_of` understands.

    The process exits with its parent. `environment` has the parent's environment variables and
    `output` its standard output and error: a server that has made other workers before has older
    ones.
    """
    if output is not None:
        output.use()
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Ctrl-C in a terminal reaches every process; the parent ends this one with SIGTERM instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    if device is not None:
        # Set before CUDA is initialized, so this GPU is the only one that the process sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        options = replace(options, device="cuda")
    try:
        with handle_signals():
            done = run_job(job, options, make_accelerator(device=options.device))
    except Stopped:
        sys.exit(STOPPED)
    except FolderLocked as error:
        print(f"{job.name}: {printable(str(error))}", file=sys.stderr)
        sys.exit(STOPPED)
    except OSError as error:
        print(f"{job.name}: {printable(disk_error_message(error))}", file=sys.stderr)
        sys.exit(DISK_ERROR)
    sys.exit(0 if done else 1)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child"
    wait([parent.sentinel])
    os._exit(1)
