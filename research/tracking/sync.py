"""`sync`: upload run folders to W&B, or the part that W&B does not have yet.

It uploads what the run folder says, never the client's own offline files. It asks the server which
lines it has, so a second sync has nothing to send. Runs that have not ended can be synced too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from research.errors import InputError
from research.storage.folders import folders_below, what_is_at
from research.storage.records import RunRecord, RunSummary
from research.storage.run_folder import RunFolder
from research.tracking.config import Tracking
from research.tracking.wandb_fields import config_of
from research.tracking.wandb_mirror import GRACE_SECONDS, call_within, stop_client
from research.tracking.wandb_run import WandbRun, has_key

# Uploading may take long, but waiting for a server that does not answer is limited to 120 s.
SYNCING = Tracking(mode="online", finish_seconds=120.0)


def sync(paths: Sequence[Path], tracking: Tracking = SYNCING) -> int:
    """Upload every run at or below `paths`; returns exit code 0, or 1 when W&B is out of reach.

    After the first run that cannot be uploaded the others are not tried. Raises `InputError` when
    there is no key, when a path holds no run, or when a run folder is damaged.
    """
    runs = list(dict.fromkeys(run for path in paths for run in find_runs(path)))
    if not has_key():
        raise InputError("no W&B key is configured; call `wandb login` or set WANDB_API_KEY")
    for index, run in enumerate(runs):
        try:
            print(f"{run}: {upload(run, tracking)}", flush=True)
        except InputError:
            raise
        except Exception as error:
            stop_client()
            reason = str(error).partition("\n")[0] or type(error).__name__
            remaining = "".join(f"\n  {path}" for path in runs[index:])
            print(f"W&B cannot be reached ({reason}); not fully uploaded:{remaining}", flush=True)
            return 1
    stop_client()
    return 0


def find_runs(path: Path) -> list[Path]:
    """The run folders at or below a path; raises `InputError` when there are none."""
    # However deep: who names a folder to upload means every run in it.
    runs = list(folders_below(path, "run", depth=sys.maxsize))
    if not runs:
        raise InputError(f"{path} holds no run: {what_is_at(path)}")
    return runs


def upload(path: Path, tracking: Tracking) -> str:
    """Upload what the server does not have of a run; returns a sentence with the result and URL."""
    record, summary = read_run_files(path)
    opening = partial(WandbRun, path, record, tracking, "online", live=False)
    run = call_within(opening, tracking.init_seconds + GRACE_SECONDS)
    ended = summary is not None or run.pruned is not None
    sent = run.send_without_summary() if summary is None else run.send_summary(summary)
    call_within(partial(run.finish, 0 if ended else 1), tracking.end_seconds + GRACE_SECONDS)
    message = "nothing new" if sent == 0 else f"{sent} new {'line' if sent == 1 else 'lines'}"
    return f"{message}{'' if ended else ' (it has not ended)'} -> {run.run.url}"


def read_run_files(path: Path) -> tuple[RunRecord, RunSummary | None]:
    """A run's config.json and summary.json (None: it has not ended).

    Raises `InputError` when config.json is missing, or any file whose content is uploaded is
    damaged.
    """
    folder = RunFolder(path, writes=False)
    record, summary = folder.read(RunRecord), folder.read(RunSummary)
    if record is None:
        raise InputError(f"{path} has no {RunRecord.FILE}: it is not a run folder")
    config_of(path, record, summary)
    folder.metrics()
    return record, summary
