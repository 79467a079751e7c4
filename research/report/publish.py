"""Saves a report to W&B, through a child process that is killed when it takes too long.

`publish` always writes the report's specification, `report.wandb.json`, into the study's folder,
with that of a workspace view of the study's runs. Online it also saves both on W&B and enables the
report's view-only link. If the file says that they were saved before, those are replaced: links
stay, and edits made by hand on W&B are lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import research
from research.errors import InputError
from research.report.names import STEMS
from research.report.schema import Report
from research.report.wandb_report import specification
from research.report.wandb_workspace import workspace_of
from research.storage.json_files import read_json, write_json
from research.storage.records import WandbRecord, read_record
from research.tracking.config import Tracking
from research.tracking.wandb_run import PROJECT, has_key

# Saving and sharing take 2 s on a near server; W&B's client would try a dead one for minutes.
SECONDS = 60.0


@dataclass(frozen=True)
class Published:
    """The result of publishing a report."""

    file: Path
    """The file with its specification."""
    link: str | None
    """The URL at which anyone can read it without an account; None: it was not saved."""
    workspace: str | None
    """The URL of the saved view of the study's runs, for members of the project; None: it was not
    saved."""
    problem: str | None
    """Why it could not be saved, in a line; None: it was saved, or saving was not asked for."""


def publish(
    report: Report, folder: Path, tracking: Tracking, *, seconds: float = SECONDS
) -> Published:
    """Write a report's specification into the study's folder, and save it to W&B if there is a key.

    Saving takes at most `seconds`. A server that is dead, slow or refuses raises nothing: the
    result names the problem, and the same command can be tried again. The specification is written
    in any case.
    Raises `InputError` when the extra `workspaces` is not installed, or when online is asked for
    and there is no key.
    """
    path = folder / f"{STEMS[report.part]}.wandb.json"
    document: dict[str, object] = {
        **specification(report),
        "workspace": workspace_of(report),
        "saved": last_saved(path),
    }
    write_json(path, document)
    if not saves_online(tracking):
        return Published(path, None, None, None)
    try:
        response = save_in_child(path, destination_of(folder, tracking), seconds)
    except subprocess.TimeoutExpired:
        return Published(path, None, None, f"W&B did not answer within {seconds:.0f} s")
    if "error" in response:
        return Published(path, None, None, response["error"])
    link = response.pop("link")
    # The link opens the report to anyone, so it is printed once and stored nowhere.
    write_json(path, {**document, "saved": response})
    return Published(path, link, response["workspace"], None)


def saves_online(tracking: Tracking) -> bool:
    """Whether to save to W&B: there is a key, and neither `tracking` nor WANDB_MODE forbids it.

    Raises `InputError` when `tracking` asks for online and there is no key.
    """
    variable = os.environ.get("WANDB_MODE", "")
    if tracking.mode == "offline" or (
        tracking.mode == "auto" and variable in ("offline", "dryrun", "disabled")
    ):
        return False
    if has_key():
        return True
    if tracking.mode == "online":
        raise InputError("W&B online needs a key; call `wandb login` or set WANDB_API_KEY")
    return False


def destination_of(folder: Path, tracking: Tracking) -> dict[str, str | None]:
    """The W&B project and entity to save to.

    They are those of `tracking`, else those that the study's runs were mirrored to, else those of
    the environment, else the default project and (None) the key's own entity.
    """
    mirrored = sorted(folder.glob(f"*/*/*/{WandbRecord.FILE}"))
    earlier = read_record(mirrored[0].parent, WandbRecord) if mirrored else None
    project = None if earlier is None else earlier.project
    entity = None if earlier is None else earlier.entity
    return {
        "project": tracking.project or project or os.environ.get("WANDB_PROJECT", PROJECT),
        "entity": tracking.entity or entity or os.environ.get("WANDB_ENTITY"),
    }


def last_saved(path: Path) -> object:
    """The report's server, project, entity, id and URL on W&B; None: it was never saved."""
    try:
        return read_json(path).get("saved")
    except InputError:
        return None


def save_in_child(
    path: Path, destination: Mapping[str, str | None], seconds: float
) -> dict[str, str]:
    """Run W&B's client in a child process, and return the answer that it prints.

    The answer is what `wandb_client.save` returns, or {"error": message}. The child and all that it
    started have been killed when this returns or raises. Raises `subprocess.TimeoutExpired` after
    `seconds`.
    """
    root = str(Path(research.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-m", "research.report.wandb_client", str(path), json.dumps(destination)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WANDB_SILENT": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            out, errors = child.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    try:
        return cast(dict[str, str], json.loads(out.splitlines()[-1]))
    except (IndexError, ValueError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        return {"error": f"the W&B client ended with code {child.returncode}: {last:.300}"}
