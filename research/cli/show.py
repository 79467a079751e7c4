"""The verb `show`: prints what a run folder or a corpus folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from research.cli.show_cost import show_cost
from research.console import plain_console, wide_console
from research.data.corpus import Corpus
from research.data.corpus_text import vectors_text
from research.data.profile import CorpusProfile, profile_of
from research.data.question_counts import questions_line
from research.errors import InputError
from research.report.profile_words import sentences_of
from research.storage.atomic import replacing
from research.storage.evaluation_records import FloorRecord
from research.storage.folders import what_is_at
from research.storage.provenance_lines import UNKNOWN, commit_line, machine_line
from research.storage.records import CarriedRecord, Provenance, RunRecord, RunSummary, StageResult
from research.storage.run_folder import CONTINUED_BY, RunFolder
from research.storage.tuning_records import pruned_record
from research.storage.untrusted import printable


def show(folder: Path, html: str | None = None, *, cost: bool = False) -> int:
    """Print the figures of the run, or the profile of the corpus, that a folder holds.

    `html` names the file for a page of a corpus's profile; None: no page. With `cost` a run's cost
    is printed, and nothing else.
    """
    if cost and not (folder / "config.json").is_file():
        raise InputError(f"--cost is for a run, but {folder} is none: {what_is_at(folder)}")
    if (folder / "manifest.json").is_file():
        show_corpus(Corpus.open(folder), html)
    elif html is not None:
        raise InputError(
            f"--html is for a corpus, but {folder} has no manifest.json; `report STUDY` writes a "
            "page of runs"
        )
    else:
        (show_cost if cost else show_run)(folder)
    return 0


def show_corpus(corpus: Corpus, html: str | None = None) -> None:
    """Print a corpus's sizes, filters, tied timestamps and fingerprint, and its profile in words.

    `html` names the file for a page of the profile; None: no page. Raises `InputError` when the
    corpus's arrays or options have changed since it was prepared, when `html` is a folder, and when
    the page needs a package that is not installed.
    """
    corpus.verify()
    facts, profile = facts_of_corpus(corpus), profile_of(corpus)
    table = Table(title=f"corpus {corpus.name}", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    console = plain_console()
    console.print(table)
    warnings = warnings_of(corpus)
    for warning in warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    for sentence in sentences_of(profile):
        console.print(sentence)
    if html is not None:
        # A page is passed on to others, to whom the path says nothing.
        del facts["folder"]
        facts |= {f"warning {number}": text for number, text in enumerate(warnings, 1)}
        write_page(profile, facts, Path(html))
        console.print(html)


def facts_of_corpus(corpus: Corpus) -> dict[str, str]:
    """By name, a corpus's sizes and fingerprint, and what preparation read and removed."""
    lengths = np.diff(corpus.offsets)
    facts: dict[str, object] = {
        "users": f"{corpus.num_users:,}",
        "items": f"{corpus.num_items:,}",
        "interactions": f"{corpus.num_interactions:,}",
        "attributes": f"{corpus.num_attributes:,}",
        "history length (mean / median / longest)": f"{lengths.mean():.1f} / "
        f"{np.median(lengths):.0f} / {lengths.max()}",
        "timestamps": "yes" if corpus.timestamps is not None else "no",
        "fingerprint": corpus.fingerprint[:16],
        "folder": corpus.folder,
    }
    if corpus.item_vectors is not None:
        facts["vectors"] = vectors_text(corpus.item_vectors.shape[1], corpus.manifest.report)
    told_apart = ("warnings", "vectors")
    report = {
        name: value for name, value in corpus.manifest.report.items() if name not in told_apart
    }
    facts |= flattened(report)
    return {name: text_of(value) for name, value in facts.items()}


def warnings_of(corpus: Corpus) -> list[str]:
    """The warnings of preparation, as they stand in the manifest."""
    warnings = corpus.manifest.report.get("warnings", [])
    return [
        printable(str(each)) for each in (warnings if isinstance(warnings, list) else [warnings])
    ]


def write_page(profile: CorpusProfile, facts: Mapping[str, str], path: Path) -> None:
    """Write the page of a corpus's profile into a file, over an older one; see `show_corpus`."""
    if path.is_dir():
        raise InputError(f"--html is {path}, which is a folder; name a file")
    # jinja2 and matplotlib take half a second to import, and nothing else here needs them.
    from research.report.profile_page import profile_page_of

    text = profile_page_of(profile, facts)
    with replacing(path) as file:
        file.write(text.encode())


def show_run(folder: Path) -> None:
    """Print a run's figures, cost and origin, or how far it is when it has not ended.

    A run whose record or summary is missing has not ended, but for a trial that was pruned. Raises
    `InputError` when a file is damaged or this version cannot read it.
    """
    reader = RunFolder(folder, writes=False)
    # Files that this version cannot read are refused here.
    record, summary = reader.read(RunRecord), reader.read(RunSummary)
    pruned = None if record is None else pruned_record(folder, record)
    if pruned is not None:
        print(
            f"{folder}: a trial that was ended early, after epoch {pruned.epoch} of its last "
            f"stage, at {pruned.value:.4f} on the validation part"
        )
        return
    if record is None or summary is None:
        lines = reader.metrics()
        state = f"{lines[-1]['stage']}, step {lines[-1]['step']}" if lines else "not begun"
        state = printable(state)
        print(f"{folder}: not finished ({state}); {CONTINUED_BY}")
        return
    table = Table()
    # `val` is empty when the split holds nothing out for validation.
    figures = {"validation, full": summary.val} if summary.val else {}
    figures |= {f"test, {candidates}": values for candidates, values in summary.test.items()}
    figures |= {"test, lists": summary.lists} if summary.lists else {}
    for floor in summary.floors:
        figures |= {f"{floor.name}, {name}": values for name, values in floor.test.items()}
    table.add_column("metric")
    for part in figures:
        table.add_column(part, justify="right")
    for name in dict.fromkeys(name for values in figures.values() for name in values):
        texts = [f"{values[name]:.4f}" if name in values else "" for values in figures.values()]
        table.add_row(name, *texts)
    console = wide_console()
    # The path is not the table's title, as rich would break that into lines.
    console.print(str(folder))
    console.print(table)
    for name, value in {**facts_of(summary), **origin_of(record, summary)}.items():
        console.print(f"{name}: {value}")
    for note in summary.notes:
        console.print(f"note: {note}")
    for floor in summary.floors:
        console.print(f"this run is {verdict_of(floor)}")


def verdict_of(floor: FloorRecord) -> str:
    """A sentence on whether the run is above popularity; if not, with what to try."""
    difference = (
        f"{floor.difference:+.4f} (95 % of resamples: {floor.low:+.4f} to {floor.high:+.4f})"
    )
    if floor.low > 0.0:
        return f"above {floor.name} by {difference} in {floor.metric}"
    position = f"{'below' if floor.high < 0.0 else 'not above'} {floor.name}"
    return (
        f"{position}: {difference} in {floor.metric}; it has not learned more from the histories "
        "than which items are bought often"
        + ("" if floor.newest_days is None else " of late")
        + ". Train longer (more steps, patience from a minimum on), "
        "with smaller batches or less dropout"
    )


def facts_of(summary: RunSummary) -> dict[str, object]:
    """By name, what a summary says beside its figures and notes."""
    facts: dict[str, object] = {
        f"stage {name}": stage_line(result) for name, result in summary.best.items()
    }
    facts |= {f"carried into {name}": carried_line(part) for name, part in summary.carried.items()}
    # `show --cost` tells the rest of the cost.
    cost, users = summary.cost, summary.users
    by_others = f", {cost.shared_seconds:,.1f} s of it by other runs" if cost.shared_seconds else ""
    facts["trained"] = f"in {cost.seconds:,.1f} s{by_others}" if summary.best else "counted only"
    facts["parameters"] = f"{cost.parameters:,}"
    if cost.items is not None:
        facts["tokens"] = f"{cost.items:,}"
    facts["users"] = f"{users.evaluated:,} evaluated, {users.not_evaluated:,} could not be"
    facts["held-out items that the history has, so never hit"] = f"{summary.missed_share:.1%}"
    for part, questions in summary.questions.items():
        facts[f"questions of the {part}"] = questions_line(questions)
    if (covered := summary.attributes) is not None:
        facts["attributes"] = (
            f"{covered.attributes:,}, of which {covered.never_seen:,} on no item trained on; "
            f"{covered.items_without:,} of {covered.items:,} items have none"
        )
    return {**facts, "fingerprint": summary.fingerprint[:16], "ties": summary.ties}


def stage_line(result: StageResult) -> str:
    """How a stage ended: its best validation, and how long it trained."""
    length = f"{result.epochs:,} epochs, {result.steps:,} steps"
    if result.skipped:
        length += f" ({result.skipped:,} changed nothing, as a loss or gradient was not finite)"
    if result.value is None:
        return f"{length}, no validation"
    return f"best validation {result.value:.4f} after epoch {result.epoch} of {length}"


def origin_of(record: RunRecord, summary: RunSummary) -> dict[str, object]:
    """By name: when, by which commit, on which machine and by which command a run was done.

    A run that was continued has these once for each entry of its provenance. What an earlier
    version of the code did not record is `unknown`.
    """
    facts: dict[str, object] = {"versions": text_of(summary.versions)}
    entries = record.provenance or (Provenance(),)
    for number, entry in enumerate(entries, 1):
        label = f"{number} of {len(entries)}, " if len(entries) > 1 else ""
        facts[f"{label}begun"] = entry.begun or UNKNOWN
        facts[f"{label}commit"] = commit_line(entry)
        facts[f"{label}machine"] = machine_line(entry)
        facts[f"{label}command"] = entry.command or UNKNOWN
    return facts


def carried_line(account: CarriedRecord) -> str:
    """How many parameters a stage took from which source; summary.json has their names."""
    parts = [f"{len(names)} from {source}" for source, names in account.moved.items()]
    parts += [f"{len(account.new)} newly initialized", f"{len(account.left)} not used"]
    parts += [f"{kind}: {text_of(counts)}" for kind, counts in account.rows.items()]
    return ", ".join(parts)


def text_of(value: object) -> str:
    """A value as text for a table: a list becomes one line for each entry."""
    if isinstance(value, list):
        return "\n".join(text_of(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(part)}" for name, part in value.items())
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def flattened(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as a single one, with names joined by a space."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        label = printable(f"{prefix}{name.replace('_', ' ')}")
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{label} ")
        else:
            flat[label] = value
    return flat
