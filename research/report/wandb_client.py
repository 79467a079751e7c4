"""W&B's client for reports: `python -m research.report.wandb_client FILE WHERE` saves one.

It runs in a process of its own (`wandb_publish.saved`), which is ended when it takes too long, and
so imports little. `wandb-workspaces` comes with the extra `report`.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from research.errors import InputError
from research.storage.json_files import read_json


def reports_module() -> ModuleType:
    """wandb_workspaces.reports.v2; `InputError` when it is not installed."""
    try:
        with warnings.catch_warnings():
            # It is written for an earlier pydantic, which says so of every class.
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.reports.v2 as module
    except ImportError as error:
        raise InputError(
            f"a W&B report needs wandb-workspaces ({error}); install the extra: "
            "pip install 'sixfold[report]'"
        ) from error
    return module


def save(document: Mapping[str, object], project: str, entity: str | None) -> dict[str, str]:
    """Save a specification with the W&B client; where it lies, and its view-only link."""
    import wandb
    from wandb_workspaces.reports.v2 import internal

    wr = reports_module()
    api = wandb.Api()
    place = {
        "server": str(api.settings["base_url"]),
        "project": project,
        "entity": entity or str(api.default_entity),
    }
    view = internal.ReportViewspec.model_validate(
        {
            "displayName": document["title"],
            "description": document["description"],
            "project": {"name": project, "entityName": place["entity"]},
            "spec": document["spec"],
        }
    )
    report = wr.Report._from_model(view)
    # The one thing that the way back leaves out.
    report.width = view.spec.width
    before = cast(Mapping[str, str], document["saved"] or {})
    if place.items() <= before.items():
        report.id = before["id"]
    try:
        report.save()
    except Exception:
        if not report.id:
            raise
        # The earlier one is gone from the server; whoever deleted it gets a new one.
        report.id = ""
        report.save()
    # Links are made of the title as it stands, and a `?` in it would end them.
    report.title = re.sub(r"[^A-Za-z0-9]+", "-", report.title).strip("-") or "report"
    link = report.enable_share_link()
    return {**place, "id": report.id, "url": report.url, "link": link}


def main(arguments: list[str]) -> int:
    """Save the file named first and print where it lies, or the error, as a line of JSON."""
    wanted = json.loads(arguments[1])
    try:
        answer = save(read_json(Path(arguments[0])), wanted["project"], wanted["entity"])
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        answer = {"error": f"{type(error).__name__}: {said:.300}"}
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
