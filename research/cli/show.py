"""The verb `show`: prints what a run folder or a corpus folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from research.config import record_to_json
from research.console import plain_console, wide_console
from research.data.corpus import Corpus
from research.errors import InputError
from research.storage.records import CarriedRecord, FloorRecord, Provenance, RunRecord, RunSummary
from research.storage.run_folder import CONTINUED_BY, RunFolder
from research.storage.untrusted import printable

UNKNOWN = "unknown"


def show(path: str) -> int:
    """Print a run's figures or a corpus's sizes; raises `InputError` for any other folder."""
    folder = Path(path)
    if (folder / "manifest.json").is_file():
        show_corpus(Corpus.open(folder))
    elif (folder / "config.json").is_file():
        show_run(folder)
    else:
        raise InputError(
            f"{path} is neither a run folder (config.json) nor a corpus folder (manifest.json)"
        )
    return 0


def show_corpus(corpus: Corpus) -> None:
    """Print a corpus's sizes, filters, tied timestamps and fingerprint.

    Raises `InputError` when its arrays or options have changed since it was prepared.
    """
    corpus.verify()
    lengths = np.diff(corpus.offsets)
    table = Table(title=f"corpus {corpus.name}", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    rows: dict[str, object] = {
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
    report = dict(corpus.manifest.report)
    warnings = report.pop("warnings", [])
    rows |= flattened(report)
    for name, value in rows.items():
        table.add_row(name, text_of(value))
    console = plain_console()
    console.print(table)
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        console.print(f"warning: {printable(str(warning))}", soft_wrap=True)


def show_run(folder: Path) -> None:
    """Print a run's figures, cost and origin, or how far it is when it has not ended.

    A run whose record or summary is missing has not ended. Raises `InputError` when a file is
    damaged or this version cannot read it.
    """
    reader = RunFolder(folder, writes=False)
    # Files that this version cannot read are refused here.
    record, summary = reader.read(RunRecord), reader.read(RunSummary)
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
    stored = record_to_json(summary)
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
    states = {True: "as committed", False: "with changes", None: "changes unknown"}
    return f"{entry.commit} ({states[entry.clean]})"


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
