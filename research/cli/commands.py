"""The verbs of the command line, called by `main` once their arguments are parsed.

The heavy imports are here, so that `main` imports this file only when a verb needs it. Every verb
returns an exit code.
"""

from __future__ import annotations

import os
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
from research.cli.target import found, import_from_here, package_of
from research.config import check_config, hash_of
from research.console import plain_console, wide_console
from research.data.corpus import Corpus
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.prepare import prepare as prepare_corpus
from research.distributed.accelerator import make_accelerator
from research.distributed.collectives import Processes
from research.distributed.failures import STOPPED
from research.errors import InputError
from research.evaluation.chunks import CPU_TILE
from research.evaluation.metrics import metrics
from research.evaluation.ranker import Ranker
from research.evaluation.tiles import best_items
from research.interop.bert4rec_config import read_bert_config
from research.interop.import_export import Account, export_stage, import_run
from research.overrides import override, replace_fields
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.corpus import prepare_and_open_corpus
from research.runs.execute import RunOptions, execute
from research.runs.extension import with_more_epochs
from research.runs.load import load_run
from research.runs.parts import RunParts
from research.storage.records import FailureRecord
from research.storage.run_folder import RunFolder
from research.storage.untrusted import printable
from research.studies.budget import budget_of
from research.studies.study import Study, StudyOptions, run_folder, run_study
from research.tracking.config import Tracking
from research.tracking.options import decided, mirror_finished
from research.training.stage_run import CheckpointPlan


def prepare(asked: verbs.Prepare, overrides: Sequence[str]) -> int:
    """Prepare a corpus from a data set or a format, and print what it holds."""
    config = PrepareConfig(source=asked.source)
    config = override(config, overrides, program="sixfold prepare")
    corpus = prepare_corpus(config, asked.out, data_root=asked.data_root)
    return show(str(corpus.folder))


def run(asked: verbs.Run, overrides: Sequence[str]) -> int:
    """Do a run, or what is left of it, and print its figures."""
    training = asked.training
    base = found(asked.experiment, RunConfig)
    config = base
    if asked.encoder_from is not None:
        config = replace(config, encoder=read_bert_config(Path(asked.encoder_from)))
    program, packages = f"sixfold run {asked.experiment}", [package_of(asked.experiment)]
    config = override(config, overrides, program=program, packages=packages)
    check_config(config)
    accelerator = started(asked.machine, training)
    processes = Processes(accelerator)
    folder = Path(asked.out) if asked.out else None
    if folder is None:
        cell = asked.cell or asked.experiment.replace(":", ".")
        alike = replace(config, seed=base.seed, corpus=base.corpus)
        if asked.cell is None and alike != base:
            cell += f"-{hash_of(alike)[:6]}"
        corpus = prepare_and_open_corpus(config.corpus, training.data_root, processes)
        folder = run_folder(Path(training.runs), asked.study, corpus, cell, config.seed)
    if asked.more_epochs is not None:
        there = RunFolder(folder, writes=False)
        longer = partial(with_more_epochs, config, there, asked.more_epochs)
        config = replace_fields(config, processes.from_main(longer))
    main, quiet = accelerator.is_main_process, training.quiet
    tracking = decided(asked.wandb.tracking(), main=main, quiet=quiet)
    options = options_of(asked.experiment, asked.machine, training, tracking)
    execute(config, folder, options=options, accelerator=accelerator)
    if tracking is not None:
        mirror_finished(folder, tracking, quiet=quiet)
    return show(str(folder)) if main else 0


def study(asked: verbs.Study, command: str) -> int:
    """Do what is missing of a study, and print its tables; `command` is what the user typed.

    Returns 75 when every run that was left for the same command to continue was stopped by a
    signal, or found its folder locked. Otherwise returns 1 when a run was left or failed, else 0.
    """
    training = asked.training
    chosen = found(asked.study, Study)
    if asked.seeds is not None:
        if asked.seeds < 1:
            raise InputError(f"--seeds is {asked.seeds}; it must be at least 1")
        chosen = replace(chosen, seeds=tuple(range(asked.seeds)))
    unknown = [name for name in asked.cells or () if name not in chosen.cells]
    if unknown:
        raise InputError(f"no cell {unknown[0]!r}{suggest(unknown[0], set(chosen.cells))}")
    if asked.corpora:
        chosen = replace(chosen, corpora=asked.corpora)
    if asked.budget is not None:
        shares = {} if chosen.budget is None else chosen.budget.shares
        chosen = replace(chosen, budget=replace(budget_of(asked.budget), shares=shares))
    accelerator = started(asked.machine, training)
    main = accelerator.is_main_process
    tracking = decided(asked.wandb.tracking(), main=main, quiet=training.quiet)
    jobs = run_study(
        chosen,
        Path(training.runs),
        options=options_of(asked.study, asked.machine, training, tracking),
        accelerator=accelerator,
        cells=asked.cells,
        how=StudyOptions(
            workers=asked.workers,
            threads=asked.machine.threads,
            retry=asked.retry,
            probe=not asked.no_probe,
            plan_only=asked.plan,
            command=command,
        ),
    )
    if asked.plan or not main:
        return 0
    failed = [job for job in jobs if job.state() == "failed"]
    left = [job for job in jobs if job.left is not None]
    if len(failed) + len(left) < len(jobs):
        # It takes half a second to import, and nothing else here needs it.
        from research.cli.report import print_report

        print_report(Path(training.runs) / chosen.name)
    for job in failed:
        said = f"failed: {job.name}: {job.failure()} ({job.folder}/{FailureRecord.FILE})"
        print(printable(said), file=sys.stderr)
    for job in left:
        print(printable(f"stopped: {job.name}; the same command continues it"), file=sys.stderr)
    if left:
        return STOPPED if all(job.left == STOPPED for job in left) else 1
    return 1 if failed else 0


def evaluate(asked: verbs.Evaluate) -> int:
    """Rank a run's held-out items again under the options asked for, and print the figures."""
    use_threads(asked.machine.threads)
    run_parts, ranker = load(asked)
    names = ("candidates", "metrics", "negatives_file", "seen", "ties")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name)}
    evaluation = replace(run_parts.config.evaluation, **given)
    run_parts = replace(run_parts, config=replace(run_parts.config, evaluation=evaluation))
    table = Table("metric")
    figures = []
    for name, ranks in run_parts.tables(ranker, asked.part).items():
        table.add_column(name, justify="right")
        figures.append(metrics(ranks, evaluation.metrics, evaluation.ties))
    for name in dict.fromkeys(evaluation.metrics):
        table.add_row(name, *(f"{values[name]:.4f}" for values in figures))
    console = wide_console()
    rules = f"seen items {evaluation.seen}, ties {evaluation.ties}"
    console.print(f"{asked.run}: {asked.part} of {run_parts.corpus.name}, {rules}")
    console.print(table)
    return 0


def recommend(asked: verbs.Recommend) -> int:
    """Print the items that a run ranks highest after a history of raw item ids.

    Raises `InputError` for a run whose encoder reads more of an event than its item.
    """
    use_threads(asked.machine.threads)
    if asked.k < 1:
        raise InputError(f"--k is {asked.k}; it must be at least 1")
    run_parts, ranker = load(asked)
    corpus = run_parts.corpus
    names = [name.strip() for name in asked.items.split(",") if name.strip()]
    if not names:
        raise InputError("--items is empty; give raw item ids, oldest first, with commas between")
    if run_parts.config.stages and run_parts.config.encoder.fields:
        read = ", ".join(run_parts.config.encoder.fields)
        raise InputError(
            f"--items gives items alone, but the run's encoder reads the {read} of every event as "
            "well; recommend from a run whose encoder does not"
        )
    history = [corpus.item_names.index(name) for name in names]
    encoded = ranker.encode(Packed.from_lists([history]), torch.zeros(1).long())
    excluded = [] if asked.keep_seen else history
    scores, items = best_items(encoded, asked.k, corpus.num_items, excluded, CPU_TILE)
    table = Table()
    for name in ("rank", "item", "title", "score"):
        table.add_column(name, overflow="fold")
    for rank, (score, item) in enumerate(zip(scores, items), 1):
        if score > -float("inf"):
            title = "" if corpus.item_titles is None else corpus.item_titles[item]
            table.add_row(str(rank), corpus.item_names[item], title, f"{score:.3f}")
    console = plain_console()
    console.print(f"after {', '.join(titled(corpus, item) for item in history)}")
    console.print(table)
    return 0


def load(asked: verbs.Evaluate | verbs.Recommend) -> tuple[RunParts, Ranker]:
    """The parts and the ranker of the finished run that a command names.

    Its config may hold classes of the packages given with --allow.
    """
    if asked.allow:
        import_from_here()
    return load_run(Path(asked.run), asked.data_root, asked.allow, asked.machine.device)


def import_file(asked: verbs.Import) -> int:
    """Import a foreign file as a run folder; print what became of each key, and the figures."""
    use_threads(asked.machine.threads)
    account = import_run(
        Path(asked.file),
        Path(asked.out),
        corpus=asked.corpus,
        heads=asked.heads,
        keep_zero_rows=asked.keep_zero_rows,
        special_classes=asked.special_classes,
        data_root=asked.data_root,
        device=asked.machine.device,
    )
    print_account(account, f"{asked.file} -> {asked.out}", "went to")
    return show(asked.out)


def export(asked: verbs.Export) -> int:
    """Export a run's stage as a foreign file, and print where each key came from."""
    use_threads(asked.threads)
    if asked.allow:
        import_from_here()
    account = export_stage(asked.run, Path(asked.out), data_root=asked.data_root, allow=asked.allow)
    print_account(account, f"{asked.run} -> {asked.out}", "came from")
    return 0


def print_account(account: Account, heading: str, column: str) -> None:
    """Print an import's or export's keys as a table, and its remarks below."""
    table = Table("key", "shape", column)
    for row in account.keys:
        table.add_row(row.key, str(row.shape), row.place)
    console = plain_console()
    console.print(heading)
    console.print(table)
    for remark in account.remarks:
        console.print(remark)


def titled(corpus: Corpus, item: int) -> str:
    """An item's title, or its raw id where it has none."""
    title = "" if corpus.item_titles is None else corpus.item_titles[item]
    return title or corpus.item_names[item]


def options_of(
    target: str,
    machine: verbs.MachineOptions,
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


def started(machine: verbs.MachineOptions, training: verbs.TrainingOptions) -> Accelerator:
    """Set the threads and join the processes of the job, before any other work.

    Raises `InputError` when the number of processes is not that of --expect-world, or of the
    launcher.
    """
    use_threads(machine.threads)
    accelerator = make_accelerator(device=machine.device)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = launched if training.expect_world is None else training.expect_world
    if accelerator.num_processes != wanted:
        raise InputError(
            f"{wanted} processes are wanted but this one sees {accelerator.num_processes}; launch "
            "with `accelerate launch --multi_gpu --num_processes N -m research ...` or torchrun"
        )
    return accelerator
