"""A job: one run of a study, how far it is, and how it is done so that a failure is recorded.

A temporary problem (a full disk, a folder that another process has locked) is no failure of the
run, and the same command continues it later. It ends a study that does its runs in one process;
with several workers the other runs are done.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from research.distributed.failures import is_consequence, is_out_of_memory
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.differences import other_run
from research.runs.execute import RunOptions, execute
from research.runs.provenance import now
from research.storage.records import FailureRecord, RunRecord, RunSummary
from research.storage.run_folder import FolderLocked, RunFolder
from research.storage.tuning_records import PrunedRecord, pruned_record
from research.storage.untrusted import printable
from research.studies.pruning import Pruned, Pruning

State = Literal["finished", "pruned", "failed", "begun", "new"]
# Errors that every process of a run raises at the same point.
ERRORS_OF_ALL_PROCESSES = (InputError, FloatingPointError)


@dataclass(frozen=True)
class JobCost:
    """What a job takes, by an estimate or as it was measured."""

    seconds: float
    """Seconds of training and evaluation, without stages that other runs train."""
    peak_bytes: int | None = None
    """Most memory that the main process holds, on its accelerator or else resident; None: unknown.
    """


@dataclass(frozen=True, eq=False)
class Job:
    """One cell on one corpus with one seed."""

    corpus: str
    """The corpus's name, which is also a folder's name in the run's path."""
    cell: str
    seed: int
    config: RunConfig
    folder: Path
    """The run's folder."""
    record: RunRecord
    """What config.json says of the run; its hash identifies the run."""
    reuse_from: tuple[Path, ...] = ()
    """Folders of the study's other runs that have the same first stage, and may have trained it."""
    trial: int | None = None
    """The number of the trial of a tuning that the run is; None: a run of a study."""
    pruning: Pruning | None = None
    """By what the run is ended before its end; None: by nothing."""
    stop_code: int | None = None
    """The worker's exit code (`FAILED` or `STOPPED`) for a run that stopped before its end, which
    the same command continues; None: it did not stop."""

    @property
    def name(self) -> str:
        """Corpus, cell and seed or trial, for messages; a terminal obeys none of its characters."""
        which = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
        return printable(f"{self.corpus} / {self.cell} / {which}")

    @property
    def stage_hashes(self) -> tuple[str, ...]:
        """For each stage in order, the hash of all that decides its weights.

        Jobs with equal hashes can share the stage.
        """
        return tuple(self.record.stages.values())

    def state(self) -> State:
        """How far the run is; raises `InputError` when its folder holds another run."""
        folder = RunFolder(self.folder, writes=False)
        stored = folder.read(RunRecord)
        if stored is not None and stored.hash != self.record.hash:
            difference = other_run(stored, self.record, self.config)
            # A trial that was done counts, so that its folder is not to be removed.
            remedy = (
                "remove that folder, or give the study another name or --runs"
                if self.trial is None
                else "undo the change, or give the tuning another name or --runs"
            )
            raise InputError(
                f"{self.folder} holds another run ({difference}): the cell has changed since; "
                f"{remedy}"
            )
        if stored is not None and folder.read(RunSummary) is not None:
            return "finished"
        if self.pruned() is not None:
            return "pruned"
        if self.failure() is not None:
            return "failed"
        return "new" if stored is None else "begun"

    def summary(self) -> RunSummary:
        """The summary of a run that has finished."""
        summary = RunFolder(self.folder, writes=False).read(RunSummary)
        assert summary is not None, "it is called for finished runs only"
        return summary

    def cost(self) -> JobCost:
        """What a finished run took, as far as it was recorded."""
        cost = self.summary().cost
        stages = (cost.stages or {}).values()
        peaks = [cost.evaluation_peak_bytes, *(stage.peak_bytes for stage in stages)]
        return JobCost(
            cost.seconds - (cost.shared_seconds or 0.0) + (cost.evaluation_seconds or 0.0),
            max((peak for peak in peaks if peak is not None), default=None),
        )

    def pruned(self) -> PrunedRecord | None:
        """Where the run was ended before its end; None: it was not."""
        return pruned_record(self.folder, self.record)

    def failure(self) -> str | None:
        """The first line of the run's error, for messages; None: the run has not failed."""
        failure = RunFolder(self.folder, writes=False).read(FailureRecord)
        if failure is None or failure.hash != self.record.hash:
            return None
        return printable(failure.error.partition("\n")[0])


def run_job(job: Job, options: RunOptions, accelerator: Accelerator) -> bool:
    """Do a job, or continue it; returns False when it failed, and failed.json says how.

    A run that is ended early has not failed; pruned.json says where it was.

    A temporary problem is raised again and not recorded (see `is_temporary`). With several
    processes, an error that only one of them may have met is raised again too (recorded, if the
    main process met it): the others wait for this process, and its exit lets the launcher end them
    all.
    """
    folder = RunFolder(job.folder, writes=accelerator.is_main_process)
    if folder.writes:
        (job.folder / FailureRecord.FILE).unlink(missing_ok=True)
    watch = None if job.pruning is None else job.pruning.watch(folder, job.record.hash)
    options = replace(options, reuse_from=job.reuse_from, watch=watch)
    try:
        execute(job.config, job.folder, options=options, accelerator=accelerator)
    except Pruned:
        return True
    except Exception as error:
        if is_temporary(error, accelerator.num_processes):
            raise
        record_failure(job, folder, f"{type(error).__name__}: {error}", traceback.format_exc())
        if accelerator.num_processes > 1 and not isinstance(error, ERRORS_OF_ALL_PROCESSES):
            raise
        return False
    return True


def is_temporary(error: Exception, processes: int) -> bool:
    """Whether an error is a temporary problem that says nothing about the run itself.

    The same command then continues the run. A single process that ran out of memory would do so
    again, so that counts as a failure. With several processes it does not, as another process may
    have taken the memory; nor does an error that only follows from the loss of another process.
    """
    if isinstance(error, (OSError, FolderLocked)):
        return True
    return processes > 1 and (is_out_of_memory(error) or is_consequence(error))


def record_failure(job: Job, folder: RunFolder, error: str, trace: str) -> None:
    """Write failed.json, with the home folder replaced by `~` in the error and the traceback.

    It is replaced anywhere in the text, since a compiler's message, for example, has paths in the
    middle of other words.
    """
    home = os.path.join(os.path.expanduser("~"), "")
    if home not in ("/", "~/"):
        error, trace = error.replace(home, "~/"), trace.replace(home, "~/")
    folder.write(FailureRecord(hash=job.record.hash, error=error, traceback=trace, when=now()))
