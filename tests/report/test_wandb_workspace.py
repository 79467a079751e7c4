"""The saved view of a study's runs on W&B: its specification, and saving it on a fake server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from research.report.publish import publish
from research.report.wandb_workspace import workspace_of
from research.storage.json_files import read_json, write_json
from research.tracking.config import Tracking
from tests.report.test_wandb_report import report_of, server
from tests.support.wandb_server import WandbServer

__all__ = ["server"]


def test_a_view_groups_the_studys_runs_by_cell_and_orders_them_by_validation() -> None:
    document: Any = workspace_of(report_of())
    assert document["title"] == "Study heads"
    section = document["spec"]["section"]
    (runs,) = section["runSets"]
    filters = runs["filters"]["filters"]
    assert [(each["key"]["name"], each["value"]) for each in filters] == [
        ("group", "heads"), ("tags", ["dataset:ml-100k"]),
    ]  # fmt: skip
    assert [each["name"] for each in runs["grouping"]] == [
        "dataset.value.name", "ablation.value.cell",
    ]  # fmt: skip
    (key,) = runs["sort"]["keys"]
    assert (key["key"]["name"], key["ascending"]) == ("best/val/ndcg@10", False)
    cells, _ = section["panelBankConfig"]["sections"]
    assert [panel["config"].get("metrics") for panel in cells["panels"]] == [
        ["train/loss/mip"], ["val/ndcg@10"], ["test/ndcg@10"],
    ]  # fmt: skip


def test_a_view_on_validation_shows_no_test_metric() -> None:
    text = json.dumps(workspace_of(replace(report_of(), part="validation")))
    assert "test/ndcg@10" not in text
    assert "best/val/ndcg@10" in text


def test_equal_reports_have_equal_views_and_a_hostile_name_changes_no_filter() -> None:
    assert workspace_of(report_of()) == workspace_of(report_of())
    assert "unset" not in json.dumps(workspace_of(report_of()))
    hostile: Any = workspace_of(replace(report_of(), name="x' or Name = 'y 🎉"))
    (runs,) = hostile["spec"]["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == "x' or Name = 'y 🎉"


@pytest.mark.long
def test_a_view_is_saved_with_the_report_and_then_replaced(
    server: WandbServer, tmp_path: Path
) -> None:
    published = publish(report_of(), tmp_path, Tracking())
    assert published.problem is None
    (view,) = server.workspaces.values()
    document: Any = workspace_of(report_of())
    assert json.loads(view["spec"]) == document["spec"]
    assert (view["displayName"], view["type"]) == ("Study heads", "project-view")
    name = document["name"].removeprefix("nw-").removesuffix("-v")
    assert published.workspace == f"{server.url}/tester/sixfold?nw={name}"
    assert publish(report_of(), tmp_path, Tracking()).workspace == published.workspace
    assert len(server.workspaces) == 1
    # One that was deleted on the server is made anew.
    stored: Any = read_json(published.file)
    write_json(published.file, {**stored, "saved": {**stored["saved"], "workspace_id": "gone"}})
    assert publish(report_of(), tmp_path, Tracking()).problem is None
    assert list(server.workspaces) == ["View1", "View2"]
    assert server.unknown == ["UpsertView2 'gone'"]
