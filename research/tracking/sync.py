"""`sync`: upload run folders to W&B, or what W&B lacks of them.

The run folder is what is uploaded, never the client's own offline files. The server is asked how
far it is, so a second sync has nothing to send; runs that have not ended can be synced too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from research.errors import InputError
from research.storage.json_files import read_json
from research.storage.records import RunRecord, RunSummary
from research.storage.run_folder import RunFolder
from research.tracking.config import Tracking
from research.tracking.wandb_fields import config_of
from research.tracking.wandb_mirror import GRACE, bounded, stop_client
from research.tracking.wandb_run import WandbRun, has_key

# Uploading may take as long as it takes; waiting for a server that says nothing may not.
SYNCING = Tracking(mode="online", finish_seconds=120.0)


def sync(paths: Sequence[Path], tracking: Tracking = SYNCING) -> int:
    """Upload every run at or below `paths`; returns 0, or 1 when W&B could not be reached.

    `InputError` when there is no key, or no run. After the first run that cannot be uploaded the
    others are not tried.
    """
    runs = list(dict.fromkeys(run for path in paths for run in runs_in(path)))
    if not has_key():
        raise InputError("no W&B key is configured; call `wandb login` or set WANDB_API_KEY")
    for place, run in enumerate(runs):
        try:
            print(f"{run}: {upload(run, tracking)}", flush=True)
        except InputError:
            raise
        except Exception as error:
            stop_client()
            why = str(error).partition("\n")[0] or type(error).__name__
            left = "".join(f"\n  {each}" for each in runs[place:])
            print(f"W&B cannot be reached ({why}); not uploaded, or not wholly:{left}", flush=True)
            return 1
    stop_client()
    return 0


def runs_in(path: Path) -> list[Path]:
    """The run folders at or below a path; `InputError` when there is none."""
    configs = [path / "config.json"] if (path / "config.json").is_file() else []
    configs = configs or sorted(path.glob("**/config.json"))
    runs = [config.parent for config in configs if "hash" in read_json(config)]
    if not runs:
        raise InputError(f"{path} holds no run: there is no config.json of one at or below it")
    return runs


def upload(path: Path, tracking: Tracking) -> str:
    """Upload a run, or what the server lacks of it; says what came of it."""
    record, summary = checked(path)
    opening = partial(WandbRun, path, record, tracking, "online")
    run = bounded(opening, tracking.init_seconds + GRACE)
    ended = summary is not None
    sent = run.leave() if summary is None else run.conclude(summary)
    bounded(partial(run.finish, 0 if ended else 1), tracking.finish_seconds + GRACE)
    told = "nothing new" if sent == 0 else f"{sent} new {'line' if sent == 1 else 'lines'}"
    return f"{told}{'' if ended else ' (it has not ended)'} -> {run.run.url}"


def checked(path: Path) -> tuple[RunRecord, RunSummary | None]:
    """config.json and summary.json; `InputError` where something is damaged that W&B is told."""
    folder = RunFolder(path, writes=False)
    record, summary = folder.read(RunRecord), folder.read(RunSummary)
    if record is None:
        raise InputError(f"{path} has no {RunRecord.FILE}: it is not a run folder")
    config_of(path, record, summary)
    folder.metrics()
    return record, summary
