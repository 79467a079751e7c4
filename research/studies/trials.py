"""The trials of a tuning as jobs: which may begin, what they are, and what has come of them.

A trial is drawn when those that it may know of have ended, so that the trials of a cell do not
depend on the number of workers, nor on interruptions. It is in the journal before its run begins:
one that was interrupted is continued with the values that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from research.config import hash_of, to_json
from research.data.corpus import Corpus
from research.errors import InputError
from research.randomness import seed_of
from research.runs.config import RunConfig
from research.storage.records import FailureRecord, RunSummary
from research.storage.run_folder import RunFolder
from research.storage.tuning_records import PrunedRecord, TrialRecord, TrialState, TunedCellRecord
from research.studies.job import Job
from research.studies.optuna_studies import (
    Curve,
    StoredTrial,
    StoredTrials,
    drawing,
    importances_of,
)
from research.studies.pruning import Pruning, points_of
from research.studies.record import run_folder
from research.studies.space import TunedCell, check_first, given_first, replay, run_of
from research.studies.study import make_job
from research.studies.tuning import Tuning
from research.studies.workers import JobQueue, Worker, must_wait


@dataclass(frozen=True, kw_only=True, eq=False)
class CellTrials:
    """The trials of one cell on one corpus."""

    tuning: Tuning
    """The tuning that they belong to."""
    corpus: Corpus
    """The corpus."""
    corpus_name: str
    """The corpus as the tuning names it."""
    cell: str
    """The cell's name."""
    out: Path
    """The folder of all runs."""
    stored: StoredTrials
    """The trials in the journal."""
    allow: tuple[str, ...]
    """Packages whose config classes may be named."""
    jobs: dict[int, Job] = field(default_factory=dict)
    """The jobs of trials by number, each made once; as files of runs are read, it takes a while."""

    @property
    def tuned(self) -> TunedCell:
        """The cell's base and space."""
        return self.tuning.tuned_cells[self.cell]

    def next_job(self, out_already: Sequence[Job]) -> Job | None:
        """The job of a trial that may begin or go on now, and is not among those handed out.

        A new trial is drawn if it may be. None: none may now.
        """
        trials = self.stored.all()
        for trial in trials:
            job = self.job(trial, trials) if trial.state == "running" else None
            if job is not None and job not in out_already:
                return job
        known = trials[: self._known_before(len(trials))]
        if len(trials) == self.tuning.trials or any(each.state == "running" for each in known):
            return None
        self._draw(trials, known)
        trials = self.stored.all()
        return self.job(trials[-1], trials)

    def _known_before(self, number: int) -> int:
        """How many trials, from the first on, must have ended before trial `number` begins.

        They are those by which it is drawn and pruned.
        """
        return max(0, number - self.tuning.at_once + 1)

    def _draw(self, trials: Sequence[StoredTrial], known: Sequence[StoredTrial]) -> None:
        """Draw the next trial by those in `known`, and add it to the journal.

        `InputError`, and nothing is added, when its folder holds another run.
        """
        number = len(trials)
        seed = seed_of(self.tuning.seed, "trial", number) % (1 << 32)
        draw = drawing(self.tuning.sampler, seed, known, trials[len(known) :])
        draw = given_first(self.tuned, number, draw)
        drawn = run_of(self.cell, self.tuned, draw, self.allow)
        check_first(self.cell, self.tuned, number, drawn.parameters)
        trial = StoredTrial(
            number=number,
            state="running",
            value=None,
            parameters=drawn.parameters,
            distributions=drawn.distributions,
            curve=Curve((), None),
        )
        job = self._make_job(trial, [*trials, trial])
        job.state()
        self.stored.begin(trial)
        self.jobs[number] = job

    def job(self, trial: StoredTrial, trials: Sequence[StoredTrial]) -> Job:
        """The job of a trial; `InputError` when the space now makes no such run of its values."""
        if trial.number not in self.jobs:
            self.jobs[trial.number] = self._make_job(trial, trials)
        return self.jobs[trial.number]

    def _make_job(self, trial: StoredTrial, trials: Sequence[StoredTrial]) -> Job:
        config = self.tuning.trial_run(self.config_of(trial), self.corpus_name)
        folder = self.folder_of(trial.number)
        earlier = [self.job(each, trials) for each in trials[: trial.number]]
        job = make_job(config, self.corpus, self.cell, folder, self.allow)
        return replace(
            job,
            trial=trial.number,
            reuse_from=tuple(
                other.folder for other in earlier if other.stage_hashes[:1] == job.stage_hashes[:1]
            ),
            pruning=self._pruning(trial, trials, job),
        )

    def folder_of(self, number: int) -> Path:
        """The run folder of a trial: its number is part of the cell, and the seed is below it."""
        name, tuning = f"{self.cell}-{number}", self.tuning
        return run_folder(self.out, tuning.trial_study, self.corpus, name, tuning.seed)

    def first_untried(self) -> int | None:
        """The number of the first trial that would be trained; None: none would.

        Of a trial that has ended either the journal knows or its folder, from which it is recorded
        again.
        """
        ended = {trial.number for trial in self.stored.all() if trial.state != "running"}
        return next(
            (
                number
                for number in range(self.tuning.trials)
                if number not in ended and not has_ended(self.folder_of(number))
            ),
            None,
        )

    def config_of(self, trial: StoredTrial) -> RunConfig:
        """What the space makes of a trial's values; `InputError` when it has changed since."""
        drawn = replay(self.cell, self.tuned, trial.parameters, self.allow)
        changed = [
            name
            for name, distribution in trial.distributions.items()
            if drawn.distributions[name] != distribution
        ]
        if changed:
            name = changed[0]
            raise InputError(
                f"cell {self.cell}: {name!r} is drawn from {drawn.distributions[name]}, and was "
                f"drawn from {trial.distributions[name]} in trial {trial.number}; undo the change, "
                "or give the tuning another name"
            )
        return drawn.config

    def _pruning(
        self, trial: StoredTrial, trials: Sequence[StoredTrial], job: Job
    ) -> Pruning | None:
        if self.tuning.pruner is None or not job.config.stages:
            return None
        earlier = trials[: self._known_before(trial.number)]
        return Pruning(
            pruner=self.tuning.pruner,
            earlier=tuple(each.curve for each in earlier if each.state in ("complete", "pruned")),
            stage=job.config.stages[-1].name,
            metric=self.tuning.metric,
        )

    def record_end(self, job: Job) -> bool:
        """Record in the journal how a trial has ended; False: it has not, and goes on later."""
        number, state = job.trial, job.state()
        assert number is not None, "the job is a trial's"
        if state in ("new", "begun"):
            return False
        if state == "failed":
            self.stored.end(number, "failed", None, Curve((), None))
            return True
        pruned = job.pruned() if state == "pruned" else None
        value = job.summary().val[self.tuning.metric] if pruned is None else pruned.value
        stages = job.config.stages
        points = (
            points_of(RunFolder(job.folder, writes=False), stages[-1].name, self.tuning.metric)
            if stages
            else ()
        )
        ending: TrialState = "complete" if pruned is None else "pruned"
        self.stored.end(number, ending, value, Curve(points, value))
        return True

    def record(self) -> TunedCellRecord:
        """What tuning.json says of the trials so far."""
        trials = self.stored.all()
        has_ended = len(trials) == self.tuning.trials and all(
            trial.state != "running" for trial in trials
        )
        return TunedCellRecord(
            corpus=self.corpus.name,
            cell=self.cell,
            trials=tuple(
                TrialRecord(
                    number=trial.number,
                    state=trial.state,
                    value=trial.value,
                    parameters=trial.parameters,
                    error=self.job(trial, trials).failure() if trial.state == "failed" else None,
                )
                for trial in trials
            ),
            importances=importances_of(trials) if has_ended else None,
        )


def has_ended(folder: Path) -> bool:
    """Whether a trial's folder says how it ended."""
    kinds = (RunSummary, PrunedRecord, FailureRecord)
    return any((folder / kind.FILE).is_file() for kind in kinds)


def facts_of(tuning: Tuning, cell: str, corpus_name: str, corpus: Corpus) -> dict[str, object]:
    """All that decides a cell's trials but for its space, as JSON values by a word for messages."""
    tuned = tuning.tuned_cells[cell]
    base = tuning.trial_run(tuned.base, corpus_name)
    # One trial's values stand alone, as they did before several could be given.
    firsts = [dict(values) for values in tuned.firsts]
    given = {"first": firsts[0] if len(firsts) == 1 else firsts} if firsts else {}
    return {
        "metric": tuning.metric,
        "corpus": corpus.fingerprint,
        "sampler": to_json(tuning.sampler, short=True),
        "pruner": None if tuning.pruner is None else to_json(tuning.pruner, short=True),
        "at_once": tuning.at_once,
        "seed": tuning.seed,
        "budget": None if tuning.budget is None else str(tuning.budget),
        "base": hash_of(replace(base, corpus="")),
        **given,
    }


@final
class TrialQueue(JobQueue):
    """Hands out trials, those of the cell first that has begun the fewest."""

    def __init__(
        self, cells: Sequence[CellTrials], ended: Callable[[CellTrials, Job], None]
    ) -> None:
        """`ended` is called with a trial whose end has been recorded."""
        self.cells = list(cells)
        self.ended = ended
        self.handed_out: dict[Job, CellTrials] = {}

    def next(self, running: Sequence[Worker]) -> Job | None:
        """The next trial that may begin; one that has ended unrecorded is only recorded."""
        for cell in sorted(self.cells, key=lambda each: len(each.stored.all())):
            while (job := cell.next_job(list(self.handed_out))) is not None:
                if job.state() not in ("new", "begun"):
                    cell.record_end(job)
                    self.ended(cell, job)
                elif must_wait(job, running):
                    break
                else:
                    self.handed_out[job] = cell
                    return job
        return None

    def end(self, job: Job) -> None:
        """Record how the trial has ended; one that was stopped is not handed out again."""
        cell = self.handed_out[job]
        if cell.record_end(job):
            del self.handed_out[job]
            self.ended(cell, job)
