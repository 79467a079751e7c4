"""The verb `show`: prints what a run folder or a corpus folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from research.cli.show_cost import show_cost
from research.config import record_to_json
from research.console import plain_console, wide_console
from research.data.corpus import Corpus
from research.data.profile import CorpusProfile, profile_of
from research.errors import InputError, optional_import
from research.report.profile_words import sentences_of
from research.runs.code_version import commit_with_state
from research.storage.atomic import replacing
from research.storage.folders import what_is_at
from research.storage.records import CarriedRecord, FloorRecord, Provenance, RunRecord, RunSummary
from research.storage.run_folder import CONTINUED_BY, RunFolder
from research.storage.tuning_records import PrunedRecord
from research.storage.untrusted import printable

UNKNOWN = "unknown"


def show(path: str, html: str | None = None, *, cost: bool = False) -> int:
    """Print a run's figures or a corpus's profile; raises `InputError` for any other folder.

    `html` names the file for a page of a corpus's profile; None: no page. With `cost` a run's cost
    is printed, and nothing else.
    """
    folder = Path(path)
    if cost and not (folder / "config.json").is_file():
        raise InputError(f"--cost is for a run, but {path} is none: {what_is_at(folder)}")
    if (folder / "manifest.json").is_file():
        show_corpus(Corpus.open(folder), html)
    elif html is not None:
        raise InputError(
            f"--html is for a corpus, but {path} has no manifest.json; `report STUDY` writes a "
            "page of runs"
        )
    elif (folder / "config.json").is_file():
        (show_cost if cost else show_run)(folder)
    else:
        raise InputError(
            f"{path} is neither a run folder (config.json) nor a corpus folder (manifest.json): "
            f"{what_is_at(folder)}"
        )
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
    report = {name: value for name, value in corpus.manifest.report.items() if name != "warnings"}
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
    extra = "install the extra: pip install 'sixfold[report]'"
    with optional_import(("jinja2", "markupsafe", "matplotlib"), "a page of a corpus", extra):
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
    pruned = reader.read(PrunedRecord)
    if record is not None and pruned is not None and pruned.hash == record.hash:
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
    if summary.popularity is not None:
        figures |= {
            f"popularity, {name}": values for name, values in summary.popularity.test.items()
        }
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
    if summary.popularity is not None:
        console.print(f"this run is {verdict_of(summary.popularity)}")


def verdict_of(floor: FloorRecord) -> str:
    """A sentence on whether the run is above popularity; if not, with what to try."""
    difference = (
        f"{floor.difference:+.4f} (95 % of resamples: {floor.low:+.4f} to {floor.high:+.4f})"
    )
    if floor.low > 0.0:
        return f"above popularity by {difference} in {floor.metric}"
    position = "below popularity" if floor.high < 0.0 else "not above popularity"
    return (
        f"{position}: {difference} in {floor.metric}; it has not learned more from the histories "
        "than which items are bought often. Train longer (more steps, patience from a minimum on), "
        "with smaller batches or less dropout"
    )


def facts_of(summary: RunSummary) -> dict[str, object]:
    """By name, what a summary says beside its figures and notes."""
    # `show --cost` tells the rest of the cost.
    cost = replace(summary.cost, stages=None, evaluation_peak_bytes=None)
    stored = record_to_json(replace(summary, cost=cost))
    facts = flattened({name: stored[name] for name in ("best", "cost", "users", "missed_share")})
    facts |= flattened({"attributes": stored.get("attributes", {})})
    facts |= {f"carried into {name}": carried_line(part) for name, part in summary.carried.items()}
    return {**facts, "fingerprint": summary.fingerprint[:16], "ties": summary.ties}


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


def commit_line(entry: Provenance) -> str:
    """The commit of a run's code, and whether the checkout had uncommitted changes."""
    if entry.commit is None:
        return UNKNOWN if entry.begun is None else "none, the code stood in no git checkout"
    return commit_with_state(entry.commit, entry.clean)


def machine_line(entry: Provenance) -> str:
    """The machine that a run was done on, and the number of processes unless it is 1."""
    if entry.machine is None:
        return UNKNOWN
    machine = entry.machine
    parts = [machine.platform, machine.cpu, f"{machine.cores} cores"]
    parts += [machine.accelerator or "no accelerator"]
    return ", ".join(parts) + (f", {entry.processes} processes" if entry.processes != 1 else "")


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
