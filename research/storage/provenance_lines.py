"""The provenance of a run in lines that people read; `show` and reports write it this way."""

from __future__ import annotations

from research.storage.records import Provenance

UNKNOWN = "unknown"


def commit_with_state(commit: str, clean: bool | None) -> str:
    """A commit and whether the checkout was as it says."""
    states = {True: "as committed", False: "with changes", None: "changes unknown"}
    return f"{commit} ({states[clean]})"


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
