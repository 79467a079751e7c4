"""The verb `tune`: does the trials of a tuning and then the study of its winners."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from research.cli import verbs
from research.cli.commands import (
    print_jobs,
    run_options,
    start_accelerator,
    study_options_of,
)
from research.distributed.failures import STOPPED
from research.storage.untrusted import printable
from research.studies.target import load_target
from research.studies.tune import tune as do_tuning
from research.studies.tuning import Tuning
from research.tracking.options import resolve_tracking


def tune(arguments: verbs.TuneCommand, command: str) -> int:
    """Do the trials and runs that are missing, and print the tables; `command` is what was typed.

    Returns 0 when all runs of the winners have finished; trials that failed change nothing of that.
    Returns 75 when trials or runs were stopped, which the same command continues, and 1 when a run
    of a winner failed or another error stopped a trial.
    """
    training = arguments.training
    tuning = load_target(arguments.tuning, Tuning)
    if arguments.trials is not None:
        tuning = replace(tuning, trials=arguments.trials)
    if arguments.corpora:
        tuning = replace(tuning, corpora=arguments.corpora)
    accelerator = start_accelerator(arguments.machine, training)
    tracking = resolve_tracking(arguments.wandb.tracking(), main=True, quiet=training.quiet)
    outcome = do_tuning(
        tuning,
        Path(training.runs),
        options=run_options(arguments.tuning, arguments.machine, training, tracking),
        accelerator=accelerator,
        study_options=study_options_of(arguments, command),
    )
    for cell in outcome.record.cells:
        for trial in cell.trials:
            if trial.error is not None:
                name = f"{cell.corpus} / {cell.cell} / trial {trial.number}"
                print(printable(f"failed: {name}: {trial.error}"), file=sys.stderr)
    for job in outcome.stopped:
        print(printable(f"stopped: {job.name}; the same command continues it"), file=sys.stderr)
    if outcome.stopped:
        return STOPPED if all(job.stop_code == STOPPED for job in outcome.stopped) else 1
    if outcome.jobs is None:
        return 0
    return print_jobs(
        outcome.jobs, Path(training.runs), tuning.name, next_commands=tuning.next_commands
    )
