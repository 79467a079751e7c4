"""How the runs of a report came about: data, code, versions, machines and commands.

All of it is read from the runs' config.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from research.report.records import StudyRun
from research.report.schema import Fact
from research.storage.provenance_lines import UNKNOWN, commit_line, machine_line
from research.storage.records import DatasetRecord, Provenance, RunRecord
from research.storage.untrusted import printable, short_text

# Most values that a fact shows; it counts the others.
MAX_VALUES = 6
# Filters that keep everything at 0.
CORES = ("user_core", "item_core")


def facts_of(runs: Sequence[StudyRun]) -> tuple[Fact, ...]:
    """What is known of how runs came about, as names and values.

    A run that was continued, maybe by other code or on another machine, has several values.
    """
    records = [run.record for run in runs if run.record is not None]
    if not records:
        return ()
    begun = sorted(entry.begun for entry in entries_of(records) if entry.begun is not None)
    return (
        fact("corpus", records, lambda record: [dataset_line(record.dataset)]),
        fact("corpus fingerprint", records, lambda record: [record.fingerprint]),
        Fact("begun", (" to ".join(dict.fromkeys(begun[:1] + begun[-1:])) or UNKNOWN,)),
        fact("commit", records, each_entry(commit_line)),
        fact("versions", records, each_entry(versions_line)),
        fact("machine", records, each_entry(machine_line)),
        fact("command", records, each_entry(lambda entry: entry.command or UNKNOWN)),
    )


def fact(
    name: str, records: Sequence[RunRecord], values_of: Callable[[RunRecord], Iterable[str]]
) -> Fact:
    """A fact of all records; a value that is not of all says of how many runs it is."""
    counts = Counter(value for record in records for value in dict.fromkeys(values_of(record)))
    texts = [
        printable(value) + (f" ({count} of {len(records)} runs)" if count < len(records) else "")
        for value, count in counts.most_common()
    ]
    if len(texts) > MAX_VALUES:
        texts[MAX_VALUES:] = [f"and {len(texts) - MAX_VALUES} more"]
    return Fact(name, tuple(texts))


def each_entry(line_of: Callable[[Provenance], str]) -> Callable[[RunRecord], Iterable[str]]:
    """A function that gives the line of every entry of a record's provenance."""
    return lambda record: [line_of(entry) for entry in entries_of([record])]


def entries_of(records: Iterable[RunRecord]) -> list[Provenance]:
    """All entries of the records' provenance; one without values where a version kept none."""
    return [entry for record in records for entry in record.provenance or (Provenance(),)]


def versions_line(entry: Provenance) -> str:
    """The versions of Python and of packages, in a line."""
    return ", ".join(f"{name} {version}" for name, version in entry.versions.items()) or UNKNOWN


def dataset_line(dataset: DatasetRecord) -> str:
    """A corpus's name, sizes, and the filters under which it was prepared."""
    # A core of 0 filters nothing; a least rating or a seed of 0 is one that was given.
    filters = {
        name: value
        for name, value in dataset.filters.items()
        if value is not None and not (name in CORES and value == 0)
    }
    shown = ", ".join(f"{name} {short_text(value)}" for name, value in filters.items()) or "none"
    return (
        f"{dataset.name}: {dataset.users:,} users, {dataset.items:,} items, "
        f"{dataset.interactions:,} interactions, {dataset.attributes:,} attributes; "
        f"filters: {shown}"
    )
