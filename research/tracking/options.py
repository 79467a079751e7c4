"""What a command does for a mirror on W&B, with the client imported only where there is one."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from research.errors import optional_import
from research.storage.records import RunRecord, RunSummary, WandbRecord, read_record
from research.tracking.config import Tracking


def needing_wandb() -> AbstractContextManager[None]:
    """A context in which importing W&B's client raises `InputError` when it is not installed."""
    remedy = "pip install wandb (a run goes without it, and `sync` uploads it later)"
    return optional_import(("wandb",), "W&B", remedy)


def resolve_tracking(tracking: Tracking | None, *, main: bool, quiet: bool) -> Tracking | None:
    """The mirror's config with the mode `auto` decided; None: there is to be no mirror.

    Only the `main` process of a job has one. Raises `InputError` for online without a key and for a
    missing W&B client.
    """
    if tracking is None or not main:
        return None
    # The W&B client takes half a second to import.
    with needing_wandb():
        from research.tracking.wandb_mirror import resolve_mode

    return resolve_mode(tracking, quiet)


def mirror_finished_run(path: Path, tracking: Tracking, *, quiet: bool = False) -> None:
    """Mirror a run that had already ended, if WANDB_RUN_ID asks for it under a new id.

    A W&B sweep's agent sets WANDB_RUN_ID, and expects figures under that id also when the run was
    done before.
    """
    requested_id = os.environ.get("WANDB_RUN_ID")
    mirrored = read_record(path, WandbRecord)
    if requested_id is None or (mirrored is not None and mirrored.id == requested_id):
        return
    from research.tracking.wandb_mirror import WandbMirror

    mirror = WandbMirror(path, tracking, quiet=quiet)
    record, summary = read_record(path, RunRecord), read_record(path, RunSummary)
    assert record is not None, "the run has ended"
    assert summary is not None, "the run has ended"
    mirror.begin(record)
    mirror.end(summary)
