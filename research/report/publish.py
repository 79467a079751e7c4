"""Saves a report's specification to W&B, from a process of its own that is ended when it is late.

`publish` writes `report.wandb.json` into the study's folder whatever happens; online it also saves
the report and enables its view-only link. Where the file says that it was saved before, the same
report is replaced, links stay, and what was edited by hand on W&B is lost.
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
from research.report.schema import Report
from research.report.wandb_report import specification
from research.storage.json_files import read_json, write_json
from research.storage.records import WandbRecord, read_record
from research.tracking.config import Tracking
from research.tracking.wandb_run import PROJECT, has_key

SPECIFICATION = "report.wandb.json"
# Save and share take 2 s on a near server; the client alone would try a dead one for minutes.
SECONDS = 60.0


@dataclass(frozen=True)
class Published:
    """What came of publishing a report."""

    file: Path
    """Its specification."""
    link: str | None
    """Where anyone can read it without an account; None: it was not saved."""
    problem: str | None
    """Why it could not be saved, in a line; None: it was, or nobody asked for it."""


def publish(
    report: Report, folder: Path, tracking: Tracking, *, seconds: float = SECONDS
) -> Published:
    """Write a study's specification into its folder, and save it to W&B if there is a key.

    Takes `seconds` at most, and raises nothing for a server that is dead, slow or refuses; the
    specification is written then as well. The same command again saves what could not be saved.
    `InputError`: the extra `report` is missing, or online is asked for and there is no key.
    """
    path = folder / SPECIFICATION
    document: dict[str, object] = {**specification(report), "saved": saved_before(path)}
    write_json(path, document)
    if not online(tracking):
        return Published(path, None, None)
    try:
        answer = saved(path, where(folder, tracking), seconds)
    except subprocess.TimeoutExpired:
        return Published(path, None, f"W&B did not answer within {seconds:.0f} s")
    if "error" in answer:
        return Published(path, None, answer["error"])
    link = answer.pop("link")
    # The link opens the report to anyone, so it is told once and kept nowhere.
    write_json(path, {**document, "saved": answer})
    return Published(path, link, None)


def online(tracking: Tracking) -> bool:
    """Whether to save to W&B: there is a key, and nobody said offline or disabled."""
    asked = os.environ.get("WANDB_MODE", "")
    if tracking.mode == "offline" or (
        tracking.mode == "auto" and asked in ("offline", "dryrun", "disabled")
    ):
        return False
    if has_key():
        return True
    if tracking.mode == "online":
        raise InputError("W&B online needs a key; call `wandb login` or set WANDB_API_KEY")
    return False


def where(folder: Path, tracking: Tracking) -> dict[str, str | None]:
    """Project and entity: as asked for, else where the study's runs were mirrored to."""
    mirrored = sorted(folder.glob(f"*/*/*/{WandbRecord.FILE}"))
    known = read_record(mirrored[0].parent, WandbRecord) if mirrored else None
    project = None if known is None else known.project
    entity = None if known is None else known.entity
    return {
        "project": tracking.project or project or os.environ.get("WANDB_PROJECT", PROJECT),
        "entity": tracking.entity or entity or os.environ.get("WANDB_ENTITY"),
    }


def saved_before(path: Path) -> object:
    """The report's server, project, entity and id on W&B; None when it was never saved."""
    try:
        return read_json(path).get("saved")
    except InputError:
        return None


def saved(path: Path, wanted: Mapping[str, str | None], seconds: float) -> dict[str, str]:
    """What the process that saves answers; it and all its children have ended."""
    above = str(Path(research.__file__).parent.parent)
    paths = [above, *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-m", "research.report.wandb_client", str(path), json.dumps(wanted)],
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
