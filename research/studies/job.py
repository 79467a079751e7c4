"""A job: one run of a study, what is there of it, and doing it so that a failure is recorded.

Trouble that passes (a full disk, a folder that another process holds) is no failure of the run: it
ends the study, and the same command continues.
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
from research.storage.run_folder import Held, RunFolder

State = Literal["finished", "failed", "begun", "new"]
# What every process of a run meets alike.
EVERYWHERE = (InputError, FloatingPointError)


@dataclass(frozen=True, eq=False)
class Job:
    """One cell on one corpus with one seed."""

    corpus: str
    """The corpus's name, as its folder has it."""
    cell: str
    seed: int
    config: RunConfig
    folder: Path
    """The run's folder."""
    record: RunRecord
    """What recognizes the run."""
    donors: tuple[Path, ...] = ()
    """Folders of the study's other runs with the same first stage."""
    left: int | None = None
    """The exit code of a study that left the run for the same command to continue."""

    @property
    def name(self) -> str:
        """As a person reads it."""
        return f"{self.corpus} / {self.cell} / seed {self.seed}"

    @property
    def stage_marks(self) -> tuple[str, ...]:
        """By stage, the hash of all that decides its weights: jobs with equal ones can share it."""
        return tuple(self.record.stages.values())

    def state(self) -> State:
        """What is there of the run; `InputError` when its folder holds another run."""
        folder = RunFolder(self.folder, writes=False)
        stored = folder.read(RunRecord)
        if stored is not None and stored.hash != self.record.hash:
            why = other_run(stored, self.record, self.config)
            raise InputError(
                f"{self.folder} holds another run ({why}): the cell has changed since; remove that "
                "folder, or give the study another name or --runs"
            )
        if stored is not None and folder.read(RunSummary) is not None:
            return "finished"
        if self.failure() is not None:
            return "failed"
        return "new" if stored is None else "begun"

    def summary(self) -> RunSummary:
        """A finished run's summary."""
        summary = RunFolder(self.folder, writes=False).read(RunSummary)
        assert summary is not None, "asked of finished runs alone"
        return summary

    def seconds(self) -> float:
        """What a finished run took, without the stages that it took over."""
        cost = self.summary().cost
        return cost.seconds - (cost.shared_seconds or 0.0)

    def failure(self) -> str | None:
        """The first line of a failed run's error; None: it has not failed."""
        failure = RunFolder(self.folder, writes=False).read(FailureRecord)
        if failure is None or failure.hash != self.record.hash:
            return None
        return failure.error.partition("\n")[0]


def do(job: Job, options: RunOptions, accelerator: Accelerator) -> bool:
    """Do a job, or what is left of it; False: it failed, and failed.json says how.

    Trouble that passes is raised again and not recorded. With several processes so is an error that
    only one of them may have met, recorded or not: the others wait for it in vain, and a launcher
    ends them all.
    """
    folder = RunFolder(job.folder, writes=accelerator.is_main_process)
    if folder.writes:
        (job.folder / FailureRecord.FILE).unlink(missing_ok=True)
    options = replace(options, donors=job.donors)
    try:
        execute(job.config, job.folder, options=options, accelerator=accelerator)
    except Exception as error:
        if passes(error, accelerator.num_processes):
            raise
        record_failure(job, folder, f"{type(error).__name__}: {error}", traceback.format_exc())
        if accelerator.num_processes > 1 and not isinstance(error, EVERYWHERE):
            raise
        return False
    return True


def passes(error: Exception, processes: int) -> bool:
    """Whether an error tells nothing of the run, which the same command continues.

    One process that ran out of memory would do so again; of several another one may be lost, or
    have taken the memory.
    """
    if isinstance(error, (OSError, Held)):
        return True
    return processes > 1 and (is_out_of_memory(error) or is_consequence(error))


def record_failure(job: Job, folder: RunFolder, error: str, trace: str) -> None:
    """Write failed.json; paths below the home folder are written without it, wherever they stand.

    A compiler's complaint, say, has them in the midst of words.
    """
    home = os.path.join(os.path.expanduser("~"), "")
    if home not in ("/", "~/"):
        error, trace = error.replace(home, "~/"), trace.replace(home, "~/")
    folder.write(FailureRecord(hash=job.record.hash, error=error, traceback=trace, when=now()))
