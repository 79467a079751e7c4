"""Does a tuning: the trials of all cells, and then the winners with fresh seeds as a study.

Trials are run folders OUT/NAME-trials/CORPUS/CELL-NUMBER/SEED, beside the journal; they select by
validation, and never rank the test part. Once all have ended, the winner of every cell is run in
OUT/NAME with fresh seeds, and the test part is ranked at the end of those runs, for the first time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from rich import box
from rich.table import Table

from research.console import plain_console
from research.data.corpus import Corpus
from research.data.split_config import split_corpus
from research.data.splits import LeaveOneOut
from research.distributed.collectives import Processes
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.corpus import prepare_and_open_corpus
from research.runs.execute import RunOptions
from research.storage.records import RunSummary, read_record
from research.storage.run_folder import lock_folder
from research.storage.tuning_records import TunedCellRecord, TuningRecord, length_words
from research.storage.untrusted import printable
from research.studies.job import Job
from research.studies.optuna_studies import TrialStore, check_optuna
from research.studies.space import check_space
from research.studies.study import StudyOptions, check_workers, run_study
from research.studies.trials import CellTrials, TrialQueue, facts_of
from research.studies.tuning import Tuning
from research.studies.tuning_record import check_like_others, record_of, write_tuning
from research.studies.workers import Progress, run_in_processes, run_in_turn


@dataclass(frozen=True, kw_only=True)
class TuningOutcome:
    """What a call of `tune` has come to."""

    record: TuningRecord
    """What the trials have come to."""
    stopped: tuple[Job, ...] = ()
    """Trials that stopped before their end, with a `stop_code`; the same command continues them."""
    jobs: tuple[Job, ...] | None = None
    """The runs of the winners' study; None: not all trials have ended."""


def tune(
    tuning: Tuning,
    out: Path,
    *,
    options: RunOptions,
    accelerator: Accelerator,
    study_options: StudyOptions = StudyOptions(),
) -> TuningOutcome:
    """Do the trials that are missing, and then the runs of the winners.

    `out` is the folder of all runs. With `plan_only` nothing is done, and with several workers so
    many trials run at a time. Raises `InputError` for a space that cannot be drawn from, for trials
    of another tuning in the folder, when trials are missing on a corpus whose winners have
    been tested, when no trial of a cell is complete, under a launcher, and without Optuna; and
    `FolderLocked` while another process does the tuning.
    """
    check_optuna()
    check_workers(study_options.workers)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "a tuning draws its trials in one process; leave the launcher out, and use --workers "
            "for several trials at a time"
        )
    corpora = open_corpora(tuning, options.data_root, Processes(accelerator))
    for cell, tuned in tuning.tuned_cells.items():
        prunes = tuning.pruner is not None
        check_space(cell, tuned, tuning.seed, options.allow, prunes=prunes)
        check_validation(tuning, cell, corpora)
    if study_options.plan_only:
        return plan(tuning, out, corpora, options, accelerator, study_options)
    folder = out / tuning.trial_study
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    try:
        cells = open_cells(tuning, out, corpora, options.allow)
        stop_codes = do_trials(tuning, out, cells, options, accelerator, study_options)
        record = write_tuning(tuning, out, cells, study_options.command)
        if stop_codes:
            stopped = tuple(replace(job, stop_code=code) for job, code in stop_codes.items())
            return TuningOutcome(record=record, stopped=stopped)
        winners = winners_of(cells, record)
    finally:
        if lock is not None:
            os.close(lock)
    jobs = run_study(
        tuning.study(winners),
        out,
        options=options,
        accelerator=accelerator,
        study_options=study_options,
    )
    return TuningOutcome(record=record, jobs=tuple(jobs))


def plan(
    tuning: Tuning,
    out: Path,
    corpora: Mapping[str, Corpus],
    options: RunOptions,
    accelerator: Accelerator,
    study_options: StudyOptions,
) -> TuningOutcome:
    """Print which trials are missing, or else which runs of the winners; nothing is written.

    Raises what `tune` would raise before its first trial or run.
    """
    cells = open_cells(tuning, out, corpora, options.allow, writes=False)
    for cell in cells:
        while (job := cell.next_job(())) is not None and cell.record_end(job):
            continue
    records = [cell.record() for cell in cells]
    print_trials(tuning, records, list(corpora.values()))
    record = record_of(tuning, records, study_options.command)
    if all(cell.count("running") == 0 and len(cell.trials) == tuning.trials for cell in records):
        run_study(
            tuning.study(winners_of(cells, record)),
            out,
            options=options,
            accelerator=accelerator,
            study_options=study_options,
        )
    return TuningOutcome(record=record)


def open_corpora(tuning: Tuning, data_root: str, processes: Processes) -> dict[str, Corpus]:
    """The corpora by the names that the tuning gives; `InputError` for two of the same name."""
    corpora: dict[str, Corpus] = {}
    for name in tuning.corpora:
        corpus = prepare_and_open_corpus(name, data_root, processes)
        if any(corpus.name == other.name for other in corpora.values()):
            raise InputError(
                f"tuning {tuning.name}: two corpora are called {corpus.name}, and their trials "
                "would share folders; give one of them another name, or leave it out"
            )
        corpora[name] = corpus
    return corpora


def check_validation(tuning: Tuning, cell: str, corpora: Mapping[str, Corpus]) -> None:
    """Raise `InputError` for a cell whose trials would have nothing to be compared by."""
    base = tuning.tuned_cells[cell].base
    if isinstance(base.split, LeaveOneOut) and base.split.validation_in_training:
        raise InputError(
            f"cell {cell}: split.validation_in_training puts the validation items into the "
            "training rows, so that they can choose no trial; set it to False"
        )
    for name, corpus in corpora.items():
        if len(split_corpus(base.split, corpus)[1].validation) == 0:
            raise InputError(
                f"cell {cell}: its split holds nothing out for validation on {name}, so that "
                f"trials have no {tuning.metric} to be chosen by; choose another split"
            )


def open_cells(
    tuning: Tuning,
    out: Path,
    corpora: Mapping[str, Corpus],
    allow: tuple[str, ...],
    *,
    writes: bool = True,
) -> list[CellTrials]:
    """The trials of every tuned cell on every corpus, as far as the journal has them.

    Without `writes` nothing is written. `InputError` when the journal has trials of another tuning
    or more than the tuning asks for, and when trials are missing on a corpus whose winners have
    been tested.
    """
    earlier = read_record(out / tuning.name, TuningRecord)
    if earlier is not None:
        check_like_others(tuning, earlier, [corpus.name for corpus in corpora.values()])
    store = TrialStore(out / tuning.trial_study, writes=writes)
    cells = [
        CellTrials(
            tuning=tuning,
            corpus=corpus,
            corpus_name=name,
            cell=cell,
            out=out,
            stored=store.trials_of(corpus.name, cell, facts_of(tuning, cell, name, corpus)),
            allow=allow,
        )
        for name, corpus in corpora.items()
        for cell in tuning.tuned_cells
    ]
    for each in cells:
        if len(each.stored.all()) > tuning.trials:
            raise InputError(
                f"{store.path} has {len(each.stored.all())} trials of cell {each.cell} on "
                f"{each.corpus.name}, and trials is {tuning.trials}; every cell has as many, so "
                "raise it, or give the tuning another name"
            )
    for each in cells:
        check_untested(each, earlier)
    return cells


def check_untested(cell: CellTrials, earlier: TuningRecord | None) -> None:
    """Raise `InputError` when a trial would be trained although winners there have been tested.

    `earlier` is the tuning's record so far. Another corpus is another search, and a trial that has
    ended is only recorded again when the journal is lost.
    """
    tuning, corpus = cell.tuning, cell.corpus.name
    tested = sorted((cell.out / tuning.name / corpus).glob(f"*/*/{RunSummary.FILE}"))
    number = cell.first_untried() if tested else None
    if number is None:
        return
    known = [] if earlier is None else [(each.corpus, each.cell) for each in earlier.cells]
    if (corpus, cell.cell) not in known:
        remedy = "leave that cell out, or"
    elif earlier is not None and earlier.trials < tuning.trials:
        remedy = f"set trials to {earlier.trials} again, or"
    else:
        remedy = (
            f"neither the journal nor {cell.folder_of(number)} has how it ended, so this tuning "
            "cannot go on:"
        )
    raise InputError(
        f"the winners of tuning {tuning.name} on {corpus} have been tested ({tested[0].parent}), "
        f"and trial {number} of cell {cell.cell} has not been done there: more trials would choose "
        f"with their test in sight; {remedy} give the tuning another name"
    )


def do_trials(
    tuning: Tuning,
    out: Path,
    cells: Sequence[CellTrials],
    options: RunOptions,
    accelerator: Accelerator,
    study_options: StudyOptions,
) -> Mapping[Job, int]:
    """Do the trials that are missing; returns the exit codes of those that stopped, by job."""
    left = sum(
        tuning.trials - sum(trial.state != "running" for trial in cell.stored.all())
        for cell in cells
    )

    def has_ended(cell: CellTrials, job: Job) -> None:
        record = write_tuning(tuning, out, cells, study_options.command)
        # Of a trial that failed the progress has told.
        if not options.quiet and job.state() != "failed":
            print(printable(ending_line(record, cell.record(), job)), flush=True)

    if left and not options.quiet:
        print_trials(tuning, [cell.record() for cell in cells], [cell.corpus for cell in cells])
        most = len(cells) * tuning.at_once
        if study_options.workers > most:
            print(
                f"{study_options.workers} workers, but at most {most} trials run at a time; "
                "at_once of the tuning lets more of one cell do so"
            )
    queue = TrialQueue(cells, has_ended)
    progress = Progress(left, {}, study_options.workers, options.quiet)
    if study_options.workers > 1:
        return run_in_processes(
            queue, progress, options, study_options.workers, study_options.threads
        )
    run_in_turn(queue, progress, options, accelerator)
    return {}


def ending_line(record: TuningRecord, cell: TunedCellRecord, job: Job) -> str:
    """A line for the terminal on a trial that is complete or pruned, and its cell's best so far."""
    trial = next(each for each in cell.trials if each.number == job.trial)
    what = f"{record.metric} {trial.value:.4f}"
    pruned = job.pruned()
    if pruned is not None:
        what += f", pruned after epoch {pruned.epoch}"
    best = cell.winner
    so_far = "" if best is None else f"; best {best.value:.4f} (trial {best.number})"
    return f"  {job.name}: {what}{so_far}"


def winners_of(
    cells: Sequence[CellTrials], record: TuningRecord
) -> dict[str, dict[str, RunConfig]]:
    """The configs of the best trials, by corpus (as the tuning names it) and cell.

    `InputError` when no trial of a cell is complete.
    """
    winners: dict[str, dict[str, RunConfig]] = {cell.corpus_name: {} for cell in cells}
    records = {(each.corpus, each.cell): each for each in record.cells}
    for cell in cells:
        cell_record = records[cell.corpus.name, cell.cell]
        best = cell_record.winner
        if best is None:
            errors = [trial.error for trial in cell_record.trials if trial.error]
            raise InputError(
                f"none of the {len(cell_record.trials)} trials of cell {cell.cell} on "
                f"{cell.corpus.name} is complete"
                + (f" ({len(errors)} failed, the first with: {errors[0]})" if errors else "")
                + "; change its space, and give the tuning another name"
            )
        winners[cell.corpus_name][cell.cell] = cell.config_of(cell.stored.all()[best.number])
    return winners


def print_trials(
    tuning: Tuning, records: Sequence[TunedCellRecord], corpora: Sequence[Corpus]
) -> None:
    """Print how many trials each cell has had, and how many it is to have."""
    console = plain_console()
    console.print(tuning.question)
    console.print(
        f"{tuning.trials} trials of each cell{length_words(tuning.trial_length)}, drawn "
        f"{tuning.sampler}; pruned: {tuning.pruner or 'none'}; the best by {tuning.metric} on the "
        "validation part is then run with seeds "
        f"{', '.join(map(str, tuning.fresh_seeds))} and tested"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("corpus", "cell"):
        table.add_column(name, no_wrap=True)
    for name in ("trials", "complete", "pruned", "failed", "to do"):
        table.add_column(name, justify="right", no_wrap=True)
    known = {(record.corpus, record.cell): record for record in records}
    for corpus in dict.fromkeys(corpus.name for corpus in corpora):
        for cell in tuning.tuned_cells:
            record = known.get((corpus, cell))
            counts = [
                0 if record is None else record.count(state)
                for state in ("complete", "pruned", "failed")
            ]
            left = max(0, tuning.trials - sum(counts))
            table.add_row(corpus, cell, str(tuning.trials), *map(str, counts), str(left))
    console.print(table)
