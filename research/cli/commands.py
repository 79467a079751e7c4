"""The verbs of the command line, called by `main` once their arguments are parsed.

The heavy imports are here, so that `main` imports this file only when a verb needs it. Every verb
returns an exit code.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.table import Table

from research.annotations import suggest
from research.cli import verbs
from research.cli.show import show
from research.cli.verb import MachineOptions, ReadingOptions
from research.config import check_config, hash_of
from research.console import wide_console
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare as prepare_corpus
from research.data.question_counts import questions_line
from research.distributed.accelerator import make_accelerator
from research.distributed.collectives import Processes
from research.distributed.failures import STOPPED
from research.distributed.launcher_environment import several_were_asked_for
from research.errors import InputError
from research.evaluation.candidates import seen_notes
from research.evaluation.list_table import ListTable, lists_file
from research.evaluation.metrics import metrics, of_lists, of_ranks
from research.evaluation.ranker import Ranker
from research.interop.bert4rec_config import read_bert_config
from research.overrides import overridden_fields, override, replace_fields
from research.runs.config import RunConfig
from research.runs.corpus import prepare_and_open_corpus
from research.runs.execute import RunOptions, execute
from research.runs.extension import with_more_epochs
from research.runs.load import check_tested, load_run, records_of
from research.runs.parts import RunParts
from research.storage.records import FailureRecord
from research.storage.run_folder import RunFolder
from research.storage.untrusted import printable
from research.studies.budget import budget_of
from research.studies.job import Job
from research.studies.record import run_folder
from research.studies.shadowing import hidden_message
from research.studies.study import Study, StudyOptions, run_study
from research.studies.target import import_from_working_folder, load_target, package_of
from research.tracking.config import Tracking
from research.tracking.options import mirror_finished_run, resolve_tracking
from research.training.stage_run import CheckpointPlan


def prepare(arguments: verbs.PrepareCommand, overrides: Sequence[str]) -> int:
    """Prepare a corpus from a data set or a format, and print what it holds."""
    config = PrepareConfig(source=arguments.source)
    config = override(
        config,
        overrides,
        program=f"sixfold prepare {arguments.source}",
        own_options="Beside these fields: --out and --data-root, see `sixfold prepare --help`",
    )
    corpus = prepare_corpus(
        config,
        arguments.out,
        data_root=arguments.data_root,
        given=overridden_fields(overrides),
    )
    return show(corpus.folder)


def run(arguments: verbs.RunCommand, overrides: Sequence[str]) -> int:
    """Do a run, or continue it, and print its figures."""
    training = arguments.training
    base = load_target(arguments.experiment, RunConfig)
    config = base
    if arguments.encoder_from is not None:
        config = replace(config, encoder=read_bert_config(Path(arguments.encoder_from)))
    program, packages = f"sixfold run {arguments.experiment}", [package_of(arguments.experiment)]
    config = override(
        config,
        overrides,
        program=program,
        packages=packages,
        own_options="Beside these fields: --out, --cell and others, see `sixfold run --help`",
    )
    check_config(config)
    accelerator = start_accelerator(arguments.machine, training)
    processes = Processes(accelerator)
    folder = Path(arguments.out) if arguments.out else None
    if folder is None:
        cell = arguments.cell or arguments.experiment.replace(":", ".")
        comparable = replace(config, seed=base.seed, corpus=base.corpus)
        if arguments.cell is None and comparable != base:
            cell += f"-{hash_of(comparable)[:6]}"
        corpus = prepare_and_open_corpus(config.corpus, training.data_root, processes)
        folder = run_folder(Path(training.runs), arguments.study, corpus, cell, config.seed)
    if arguments.more_epochs is not None:
        reader = RunFolder(folder, writes=False)
        read_longer = partial(with_more_epochs, config, reader, arguments.more_epochs)
        config = replace_fields(config, processes.from_main(read_longer))
    main, quiet = accelerator.is_main_process, training.quiet
    tracking = resolve_tracking(arguments.wandb.tracking(), main=main, quiet=quiet)
    options = run_options(arguments.experiment, arguments.machine, training, tracking)
    execute(config, folder, options=options, accelerator=accelerator)
    if tracking is not None:
        mirror_finished_run(folder, tracking, quiet=quiet)
    return show(folder) if main else 0


def study(arguments: verbs.StudyCommand, command: str) -> int:
    """Do the missing runs of a study, and print its tables; `command` is what the user typed.

    Returns 0 when all runs have finished. Returns 75 when some were stopped, each by a signal or
    because its folder was locked; the same command continues them. Returns 1 when a run failed, or
    was stopped by another error.
    """
    training = arguments.training
    chosen = load_target(arguments.study, Study)
    if arguments.seeds is not None:
        if arguments.seeds < 1:
            raise InputError(f"--seeds is {arguments.seeds}; it must be at least 1")
        chosen = replace(chosen, seeds=tuple(range(arguments.seeds)))
    unknown = [name for name in arguments.cells or () if name not in chosen.cells]
    if unknown:
        raise InputError(
            f"the study has no cell {unknown[0]!r}{suggest(unknown[0], set(chosen.cells))}"
        )
    if arguments.corpora:
        chosen = replace(chosen, corpora=arguments.corpora)
    if arguments.budget is not None:
        shares = {} if chosen.budget is None else chosen.budget.shares
        chosen = replace(chosen, budget=replace(budget_of(arguments.budget), shares=shares))
    accelerator = start_accelerator(arguments.machine, training)
    main = accelerator.is_main_process
    tracking = resolve_tracking(arguments.wandb.tracking(), main=main, quiet=training.quiet)
    jobs = run_study(
        chosen,
        Path(training.runs),
        options=run_options(arguments.study, arguments.machine, training, tracking),
        accelerator=accelerator,
        cells=arguments.cells,
        study_options=study_options_of(arguments, command),
    )
    if arguments.plan or not main:
        return 0
    is_whole = not (arguments.cells or arguments.corpora)
    report = f"report {{runs}}/{shlex.quote(chosen.name)}   # figures, CSV and LaTeX"
    commands = (chosen.next_commands or (report,)) if is_whole else ()
    return print_jobs(jobs, Path(training.runs), chosen.name, next_commands=commands)


def study_options_of(
    arguments: verbs.StudyCommand | verbs.TuneCommand, command: str
) -> StudyOptions:
    """How a study's runs, or a tuning's, are done; `command` is what the user typed."""
    return StudyOptions(
        workers=arguments.workers,
        threads=arguments.machine.threads,
        retry=arguments.retry,
        probe=not arguments.no_probe,
        plan_only=arguments.plan,
        command=command,
    )


def print_jobs(jobs: Sequence[Job], runs: Path, study: str, *, next_commands: Sequence[str]) -> int:
    """Print the tables of a study once its jobs are done, and what failed; returns the exit code.

    `next_commands`, which read the runs of the whole study, are printed if all have finished.
    """
    failed = [job for job in jobs if job.state() == "failed"]
    stopped = [job for job in jobs if job.stop_code is not None]
    if len(failed) + len(stopped) < len(jobs):
        # It takes half a second to import, and nothing else here needs it.
        from research.cli.report import print_report

        print_report(runs / study)
    if next_commands and not (failed or stopped):
        print_next_commands(next_commands, str(runs))
    for job in failed:
        message = f"failed: {job.name}: {job.failure()} ({job.folder}/{FailureRecord.FILE})"
        print(printable(message), file=sys.stderr)
    for job in stopped:
        print(printable(f"stopped: {job.name}; the same command continues it"), file=sys.stderr)
    if stopped:
        return STOPPED if all(job.stop_code == STOPPED for job in stopped) else 1
    return 1 if failed else 0


def print_next_commands(commands: Sequence[str], runs: str) -> None:
    """Print a study's `next_commands` as lines for a shell; `runs` is the folder of all runs.

    They begin with the interpreter that runs now if it is in a folder below this one, as in the
    virtual environment that `make` creates, which need not be active.
    """
    python, here = Path(sys.executable), Path.cwd()
    name = str(python.relative_to(here)) if python.is_relative_to(here) else "python"
    print("\nto try next:")
    for command in commands:
        filled_in = command.replace("{runs}", shlex.quote(runs))
        print(f"  {name} -m research {filled_in}")


def evaluate(arguments: verbs.EvaluateCommand) -> int:
    """Rank a run's held-out items again under the given options, and print the figures.

    Metrics of recommended lists have a column of their own; the lists are written into the run's
    folder only if that is asked for.
    """
    run_parts, ranker = load(arguments.run, arguments.reading)
    if arguments.part == "test":
        _, summary = records_of(Path(arguments.run))
        check_tested(Path(arguments.run), run_parts.config, summary)
    fields = ("candidates", "metrics", "negatives_file", "seen", "ties")
    changes = {name: getattr(arguments, name) for name in fields if getattr(arguments, name)}
    evaluation = replace(run_parts.config.evaluation, **changes)
    run_parts = replace(run_parts, config=replace(run_parts.config, evaluation=evaluation))
    if arguments.save_lists and not of_lists(evaluation.metrics):
        raise InputError(
            "--save-lists is for metrics of recommended lists; name some, such as --metrics "
            "coverage@10 novelty@10"
        )
    names = of_ranks(evaluation.metrics)
    tables = run_parts.tables(ranker, arguments.part) if names else {}
    figures = {name: metrics(ranks, names, evaluation.ties) for name, ranks in tables.items()}
    lists = run_parts.list_table(ranker, arguments.part)
    if lists is not None:
        figures["lists"] = metrics(lists, of_lists(evaluation.metrics))
    table = Table("metric")
    for name in figures:
        table.add_column(name, justify="right")
    for metric in dict.fromkeys(evaluation.metrics):
        texts = [f"{values[metric]:.4f}" if metric in values else "" for values in figures.values()]
        table.add_row(metric, *texts)
    console = wide_console()
    rules = f"seen items {evaluation.seen}, ties {evaluation.ties}"
    console.print(f"{arguments.run}: {arguments.part} of {run_parts.corpus.name}, {rules}")
    console.print(table)
    console.print(questions_line(run_parts.questions(arguments.part)))
    for note in seen_notes(tables):
        console.print(note)
    if lists is not None and arguments.save_lists:
        path = Path(arguments.run) / lists_file(arguments.part, evaluation.seen)
        console.print(save_longer(lists, path))
    return 0


def save_longer(lists: ListTable, path: Path) -> str:
    """Write lists to a file unless it holds lists at least as long; returns a line to print."""
    if path.is_file():
        length = ListTable.load(path).place.shape[1]
        if length >= lists.place.shape[1]:
            return f"{path} has lists of {length} items already; they are kept"
    lists.save(path)
    return str(path)


def load(run: str, reading: ReadingOptions) -> tuple[RunParts, Ranker]:
    """The parts and the ranker of the finished run that a command names, with its threads set.

    Its config may hold classes of the packages given with --allow.
    """
    use_threads(reading.threads)
    if reading.allow:
        import_from_working_folder()
    return load_run(Path(run), reading.data_root, reading.allow, reading.device)


def run_options(
    target: str,
    machine: MachineOptions,
    training: verbs.TrainingOptions,
    tracking: Tracking | None,
) -> RunOptions:
    """The options of `run` and `study` that change no result."""
    return RunOptions(
        data_root=training.data_root,
        quiet=training.quiet,
        device=machine.device,
        tracking=tracking,
        allow=(package_of(target), *training.allow),
        checkpoints=CheckpointPlan(
            steps=training.checkpoint_steps,
            seconds=training.checkpoint_seconds,
            keep=training.keep_checkpoints,
        ),
    )


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, if one is given; `InputError` when it is below 1."""
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads is {threads}; it must be at least 1")
    torch.set_num_threads(threads)


def start_accelerator(machine: MachineOptions, training: verbs.TrainingOptions) -> Accelerator:
    """Set the threads and join the processes of the job, before any other work.

    Raises `InputError` when the number of processes is not that of --expect-world, or of the
    launcher.
    """
    use_threads(machine.threads)
    accelerator = make_accelerator(device=machine.device)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    expected = launched if training.expect_world is None else training.expect_world
    if accelerator.num_processes != expected:
        raise InputError(
            f"{expected} processes are expected, but this one sees {accelerator.num_processes}; "
            "launch them with `accelerate launch --multi_gpu --num_processes N -m research ...` or "
            "torchrun"
        )
    if expected == 1 and training.expect_world is None and several_were_asked_for():
        print(
            "warning: `accelerate launch` was asked for several processes, but this is the only "
            "one: it starts no more with --cpu, nor without --multi_gpu. For two, on CPUs too, "
            "type `accelerate launch --multi_gpu --num_machines 1 --num_processes 2 -m research "
            "...`; --expect-world 2 makes it an error to get fewer, --expect-world 1 ends this "
            "warning",
            file=sys.stderr,
        )
    if accelerator.is_main_process:
        for name in ("baselines", "experiments"):
            if (message := hidden_message(name)) is not None:
                print(printable(f"warning: {message}"), file=sys.stderr)
    return accelerator
