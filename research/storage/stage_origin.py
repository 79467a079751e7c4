"""Which run trained a stage that was copied into this one (see `runs/stage_reuse.py`)."""

from __future__ import annotations

from research.storage.records import OriginRecord, read_record
from research.storage.run_folder import RunFolder


def stage_origin(folder: RunFolder, name: str) -> str | None:
    """The folder, relative to this run's, of the run that trained stage `name`; None: this run."""
    record = read_record(folder.path, OriginRecord, f"stages/{name}")
    return None if record is None else record.run
