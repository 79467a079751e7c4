"""Whose stage it is: the run that trained a stage which this one took over."""

from __future__ import annotations

from research.storage.records import OriginRecord, read_record
from research.storage.run_folder import RunFolder


def taken_from(folder: RunFolder, name: str) -> str | None:
    """The run, relative to this one's folder, whose stage this is; None: this run's own."""
    record = read_record(folder.path, OriginRecord, f"stages/{name}")
    return None if record is None else record.run
