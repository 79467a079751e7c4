"""The verbs of the command line, called by `main` once their arguments are parsed.

The heavy imports are here, so that `main` imports this file only when a verb needs it. Every verb
returns an exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.table import Table

from research.annotations import near
from research.cli.show import show
from research.cli.target import found, import_from_here, package_of
from research.config import check, hash_of
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
from research.overrides import changed, override
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.corpus import opened_corpus
from research.runs.execute import RunOptions, execute
from research.runs.extension import with_more_epochs
from research.runs.load import load_run
from research.runs.parts import RunParts
from research.storage.records import FailureRecord
from research.storage.run_folder import RunFolder
from research.storage.untrusted import plain
from research.studies.budget import budget_of
from research.studies.study import Study, StudyOptions, run_folder, run_study
from research.tracking.config import Tracking
from research.tracking.options import mirror_finished, tracking_of
from research.training.stage_run import CheckpointPlan


def prepare(source: str, out: str | None, data_root: str, rest: Sequence[str]) -> int:
    """Prepare a corpus from a data set or format `source`, and print what it holds."""
    config = override(PrepareConfig(source=source), rest, program="sixfold prepare")
    corpus = prepare_corpus(config, out, data_root=data_root)
    return show(str(corpus.folder))


def run(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Do a run, or what is left of it, and print its figures."""
    config = found(known.target, RunConfig)
    given = config
    if known.encoder_from is not None:
        given = replace(given, encoder=read_bert_config(Path(known.encoder_from)))
    program = f"sixfold run {known.target}"
    given = override(given, rest, program=program, packages=[package_of(known.target)])
    check(given)
    accelerator = started(known)
    processes = Processes(accelerator)
    folder = Path(known.out) if known.out else None
    if folder is None:
        cell = known.cell or known.target.replace(":", ".")
        alike = replace(given, seed=config.seed, corpus=config.corpus)
        if known.cell is None and alike != config:
            cell += f"-{hash_of(alike)[:6]}"
        corpus = opened_corpus(given.corpus, known.data_root, processes)
        folder = run_folder(Path(known.runs), known.study, corpus, cell, given.seed)
    if known.more_epochs is not None:
        there = RunFolder(folder, writes=False)
        longer = partial(with_more_epochs, given, there, known.more_epochs)
        given = changed(given, processes.from_main(longer))
    tracking = tracking_of(known, main=accelerator.is_main_process)
    options = options_of(known, tracking)
    execute(given, folder, options=options, accelerator=accelerator)
    if tracking is not None:
        mirror_finished(folder, tracking, quiet=known.quiet)
    return show(str(folder)) if accelerator.is_main_process else 0


def study(known: argparse.Namespace) -> int:
    """Do what is missing of a study, and print its tables.

    Returns 75 when every run that was left for the same command to continue was stopped by a
    signal, or found its folder locked. Otherwise returns 1 when a run was left or failed, else 0.
    """
    chosen = found(known.target, Study)
    if known.seeds is not None:
        if known.seeds < 1:
            raise InputError(f"--seeds is {known.seeds}; it must be at least 1")
        chosen = replace(chosen, seeds=tuple(range(known.seeds)))
    unknown = [name for name in known.cells or () if name not in chosen.cells]
    if unknown:
        raise InputError(f"no cell {unknown[0]!r}{near(unknown[0], set(chosen.cells))}")
    if known.corpora:
        chosen = replace(chosen, corpora=tuple(known.corpora))
    if known.budget is not None:
        shares = {} if chosen.budget is None else chosen.budget.shares
        chosen = replace(chosen, budget=replace(budget_of(known.budget), shares=shares))
    accelerator = started(known)
    jobs = run_study(
        chosen,
        Path(known.runs),
        options=options_of(known, tracking_of(known, main=accelerator.is_main_process)),
        accelerator=accelerator,
        cells=known.cells,
        how=StudyOptions(
            workers=known.workers,
            threads=known.threads,
            retry=known.retry,
            probe=not known.no_probe,
            plan_only=known.plan,
            command=known.command,
        ),
    )
    if known.plan or not accelerator.is_main_process:
        return 0
    failed = [job for job in jobs if job.state() == "failed"]
    left = [job for job in jobs if job.left is not None]
    if len(failed) + len(left) < len(jobs):
        # It takes half a second to import, and nothing else here needs it.
        from research.cli.report import print_report

        print_report(Path(known.runs) / chosen.name)
    for job in failed:
        said = f"failed: {job.name}: {job.failure()} ({job.folder}/{FailureRecord.FILE})"
        print(plain(said), file=sys.stderr)
    for job in left:
        print(plain(f"stopped: {job.name}; the same command continues it"), file=sys.stderr)
    if left:
        return STOPPED if all(job.left == STOPPED for job in left) else 1
    return 1 if failed else 0


def evaluate(known: argparse.Namespace) -> int:
    """Rank a run's held-out items again under the options asked for, and print the figures."""
    use_threads(known)
    bench, ranker = load(known)
    asked = bench.config.evaluation
    if known.candidates:
        asked = replace(asked, candidates=tuple(known.candidates))
    if known.metrics:
        asked = replace(asked, metrics=tuple(known.metrics))
    if known.negatives_file:
        asked = replace(asked, negatives_file=known.negatives_file)
    if known.seen:
        asked = replace(asked, seen=known.seen)
    if known.ties:
        asked = replace(asked, ties=known.ties)
    bench = replace(bench, config=replace(bench.config, evaluation=asked))
    table = Table("metric")
    figures = []
    for name, ranks in bench.tables(ranker, known.part).items():
        table.add_column(name, justify="right")
        figures.append(metrics(ranks, asked.metrics, asked.ties))
    for name in dict.fromkeys(asked.metrics):
        table.add_row(name, *(f"{values[name]:.4f}" for values in figures))
    console = wide_console()
    asked_for = f"{known.part} of {bench.corpus.name}, seen items {asked.seen}, ties {asked.ties}"
    console.print(f"{known.run}: {asked_for}")
    console.print(table)
    return 0


def recommend(known: argparse.Namespace) -> int:
    """Print the items that a run ranks highest after a history of raw item ids.

    Raises `InputError` for a run whose encoder reads more of an event than its item.
    """
    use_threads(known)
    if known.k < 1:
        raise InputError(f"--k is {known.k}; it must be at least 1")
    bench, ranker = load(known)
    corpus = bench.corpus
    names = [name.strip() for name in known.items.split(",") if name.strip()]
    if not names:
        raise InputError("--items is empty; give raw item ids, oldest first, with commas between")
    if bench.config.stages and bench.config.encoder.fields:
        read = ", ".join(bench.config.encoder.fields)
        raise InputError(
            f"--items gives items alone, but the run's encoder reads the {read} of every event as "
            "well; recommend from a run whose encoder does not"
        )
    history = [corpus.item_names.index(name) for name in names]
    encoded = ranker.encode(Packed.from_lists([history]), torch.zeros(1).long())
    excluded = [] if known.keep_seen else history
    scores, items = best_items(encoded, known.k, corpus.num_items, excluded, CPU_TILE)
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


def load(known: argparse.Namespace) -> tuple[RunParts, Ranker]:
    """The parts and the ranker of the finished run that a command names.

    Its config may hold classes of the packages given with --allow.
    """
    if known.allow:
        import_from_here()
    return load_run(Path(known.run), known.data_root, known.allow, known.device)


def import_file(known: argparse.Namespace) -> int:
    """Import a foreign file as a run folder; print what became of each key, and the figures."""
    use_threads(known)
    account = import_run(
        Path(known.file),
        Path(known.out),
        corpus=known.corpus,
        heads=known.heads,
        keep_zero_rows=known.keep_zero_rows,
        special_classes=known.special_classes,
        data_root=known.data_root,
        device=known.device,
    )
    print_account(account, f"{known.file} -> {known.out}", "went to")
    return show(known.out)


def export(known: argparse.Namespace) -> int:
    """Export a run's stage as a foreign file, and print where each key came from."""
    use_threads(known)
    if known.allow:
        import_from_here()
    account = export_stage(known.run, Path(known.out), data_root=known.data_root, allow=known.allow)
    print_account(account, f"{known.run} -> {known.out}", "came from")
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


def options_of(known: argparse.Namespace, tracking: Tracking | None) -> RunOptions:
    """The options of `run` and `study` that change no result."""
    return RunOptions(
        data_root=known.data_root,
        quiet=known.quiet,
        device=known.device,
        tracking=tracking,
        allow=(package_of(known.target), *known.allow),
        checkpoints=CheckpointPlan(
            steps=known.checkpoint_steps,
            seconds=known.checkpoint_seconds,
            keep=known.keep_checkpoints,
        ),
    )


def use_threads(known: argparse.Namespace) -> None:
    """Set torch's CPU threads to --threads, if it is given."""
    if known.threads is None:
        return
    if known.threads < 1:
        raise InputError(f"--threads is {known.threads}; it must be at least 1")
    torch.set_num_threads(known.threads)


def started(known: argparse.Namespace) -> Accelerator:
    """Set the threads and join the processes of the job, before any other work.

    Raises `InputError` when the number of processes is not that of --expect-world, or of the
    launcher.
    """
    use_threads(known)
    accelerator = make_accelerator(device=known.device)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = launched if known.expect_world is None else known.expect_world
    if accelerator.num_processes != wanted:
        raise InputError(
            f"{wanted} processes are wanted but this one sees {accelerator.num_processes}; launch "
            "with `accelerate launch --multi_gpu --num_processes N -m research ...` or torchrun"
        )
    return accelerator
