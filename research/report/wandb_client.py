"""Saves one report and view with W&B's client: `python -m research.report.wandb_client FILE WHERE`.

`publish.save_in_child` runs it as a child process, which is killed when it takes too long; so it
imports little. The package `wandb-workspaces` comes with the extra `workspaces`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from research.errors import InputError, extra_remedy
from research.storage.json_files import read_json


def reports_module() -> ModuleType:
    """The module wandb_workspaces.reports.v2; raises `InputError` when it is not installed."""
    return client_module("wandb_workspaces.reports.v2")


def workspaces_module() -> ModuleType:
    """The module wandb_workspaces.workspaces; raises `InputError` when it is not installed."""
    return client_module("wandb_workspaces.workspaces")


def client_module(name: str) -> ModuleType:
    """A module of the package wandb-workspaces."""
    try:
        with warnings.catch_warnings():
            # It is written for an earlier pydantic, which warns about each of its classes.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"a W&B report needs wandb-workspaces ({error}); {extra_remedy('workspaces')}"
        ) from error


def save(document: Mapping[str, object], project: str, entity: str | None) -> dict[str, str]:
    """Save a report and its workspace view on W&B; returns where, their ids and urls, and a link.

    `document` is what `publish` writes; the link is view-only and open to anyone. What was saved
    before on the same server, project and entity is replaced.
    """
    import wandb
    from wandb_workspaces.reports.v2 import internal

    wr = reports_module()
    api = wandb.Api()
    destination = {
        "server": str(api.settings["base_url"]),
        "project": project,
        "entity": entity or str(api.default_entity),
    }
    view = internal.ReportViewspec.model_validate(
        {
            "displayName": document["title"],
            "description": document["description"],
            "project": {"name": project, "entityName": destination["entity"]},
            "spec": document["spec"],
        }
    )
    report = wr.Report._from_model(view)
    # `_from_model` restores everything but the width.
    report.width = view.spec.width
    earlier = cast(Mapping[str, str], document["saved"] or {})
    earlier = earlier if destination.items() <= earlier.items() else {}
    report.id = earlier.get("id", "")
    try:
        report.save()
    except Exception:
        if not report.id:
            raise
        # The earlier report may have been deleted on the server, so a new one is made.
        report.id = ""
        report.save()
    # The link is made from the title without escaping, so a `?` in it would cut the link.
    report.title = re.sub(r"[^A-Za-z0-9]+", "-", report.title).strip("-") or "report"
    link = report.enable_share_link()
    saved = {**destination, "id": report.id, "url": report.url, "link": link}
    workspace = cast(Mapping[str, object], document["workspace"])
    return saved | save_workspace(workspace, destination, earlier.get("workspace_id", ""))


def save_workspace(
    document: Mapping[str, object], destination: Mapping[str, str], earlier_id: str
) -> dict[str, str]:
    """Save a workspace view on W&B; returns its id and url.

    `document` is what `wandb_workspace.workspace_of` returns; `earlier_id` is the id of the view
    that is replaced, empty for none.
    """
    internal = client_module("wandb_workspaces.workspaces.internal")
    view = internal.View(
        entity=destination["entity"],
        project=destination["project"],
        display_name=document["title"],
        name=document["name"],
        id=earlier_id,
        spec=internal.WorkspaceViewspec.model_validate(document["spec"]),
    )
    try:
        answer = internal.upsert_view2(view)
    except Exception:
        if not view.id:
            raise
        # The earlier view may have been deleted on the server, so a new one is made.
        view.id = ""
        answer = internal.upsert_view2(view)
    workspace = workspaces_module().Workspace(entity=view.entity, project=view.project)
    workspace._internal_name = view.name
    return {"workspace_id": answer["upsertView"]["view"]["id"], "workspace": workspace.url}


def main(arguments: list[str]) -> int:
    """Save a report and print a line of JSON: what `save` returns, or {"error": message}.

    `arguments` are the specification's file, and JSON with the project and entity.
    """
    destination = json.loads(arguments[1])
    try:
        response = save(
            read_json(Path(arguments[0])), destination["project"], destination["entity"]
        )
    except Exception as error:
        message = " ".join(str(error).split()) or "no message"
        response = {"error": f"{type(error).__name__}: {message:.300}"}
    print(json.dumps(response), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
