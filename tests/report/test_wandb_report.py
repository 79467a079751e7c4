"""The W&B Report and the view of a study: specifications, and saving them on a fake server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from research.errors import InputError
from research.evaluation.statistics import Comparison, Estimate
from research.report import publish as wandb_publish
from research.report import wandb_report
from research.report.markdown import code_span, figures_table
from research.report.publish import publish
from research.report.schema import (
    Change,
    CorpusPart,
    Cost,
    Figure,
    Panel,
    ProtocolTable,
    Report,
    Row,
    RunLine,
)
from research.report.wandb_report import specification
from research.report.wandb_workspace import workspace_of
from research.storage.json_files import read_json, write_json
from research.storage.records import WandbRecord, write_record
from research.tracking import wandb_fields
from research.tracking.config import Tracking
from tests.support.wandb_server import KEY, WandbServer

ESTIMATE = Estimate(mean=0.125, deviation=0.01, low=0.1, high=0.15, seeds=2, users=943)
BETTER = Comparison(
    difference=0.02, low=0.01, high=0.03, p=0.0004, effect=0.25, smallest=0.015, seeds=2, users=943
)


def report_of(cell: str = "no mip", question: str = "What does MIP add?") -> Report:
    """Two cells on one corpus."""
    rows = (
        Row("all", (0, 1), {"ndcg@10": Figure(ESTIMATE, None, None, 2)}),
        Row(cell, (0, 1), {"ndcg@10": Figure(ESTIMATE, BETTER, 0.0004, 1)}),
    )
    table = ProtocolTable(
        candidates="full", title="all items ranked", protocol={"part": "test"}, users=943,
        rows=rows, has_base=True, slicings=(), notes=("One note.",),
    )  # fmt: skip
    cost = Cost(
        cell=cell, done=(0, 1), failed=(), unfinished=(), missing=(), seconds=12.5,
        shared_seconds=0.0, items=1000.0, parameters=211_008, shared=(),
    )  # fmt: skip
    corpus = CorpusPart(
        name="ml-100k", tables=(table,), cosines=(), costs=(cost,), notes=(),
        panels=(Panel(("train",), "loss/mip", ()), Panel(("train",), "val/ndcg@10", ())),
        runs=(RunLine(cell, 0, "failed", f"heads/ml-100k/{cell}/0", "ab12", None, "no | room"),),
    )  # fmt: skip
    change = Change("stages.0.objectives.mip.weight", "0.2", "0.0")
    return Report(
        name="heads", question=question, base="all", cells=("all", cell),
        changes={cell: (change,)}, seeds=(0, 1), metrics=("ndcg@10",), compared="ndcg@10",
        budget=None, ties="expected", command="python -m research study heads", folder="runs/heads",
        corpora=(corpus,), notes=(),
    )  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A W&B server to which every client of the test goes."""
    with WandbServer() as fake:
        for name, value in fake.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(wandb_publish, "has_key", lambda: True)
        yield fake


def blocks_of(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in document["spec"]["blocks"] if block["type"] == kind]


def text_of(block: dict[str, Any]) -> str:
    return "".join(child.get("text", "") for child in block["children"])


def test_the_specification_says_question_table_and_command() -> None:
    document = specification(report_of())
    assert document["title"] == "heads: What does MIP add?"
    said = [text_of(block) for block in blocks_of(document, "paragraph")]
    assert "What does MIP add?" in said
    assert "Base cell: all. Seeds: 0, 1. Compared by test NDCG@10." in said
    assert "One note." in said
    tables = [block["content"] for block in blocks_of(document, "markdown-block")]
    assert tables[1].splitlines() == [
        "| cell | seeds | NDCG@10 | NDCG@10 vs `all` | 95 % interval | effect | p |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| `all` | 2 | 0.1250 ±.0250 |  |  |  |  |",
        "| `no mip` | 2 | 0.1250 ±.0250 | +0.0200 ±.0100 | +0.0100 to +0.0300 | +0.25 "
        "| &lt;0.001 † |",
    ]
    assert "python -m research study heads" in json.dumps(blocks_of(document, "code-block"))


def test_panels_are_grouped_by_cell_over_the_studys_runs() -> None:
    (grid,) = blocks_of(specification(report_of()), "panel-grid")
    (runs,) = grid["metadata"]["runSets"]
    assert "project" not in runs
    filters = runs["filters"]["filters"]
    assert [(each["key"]["name"], each["op"], each["value"]) for each in filters] == [
        ("group", "=", "heads"),
        ("tags", "IN", ["dataset:ml-100k"]),
    ]
    assert runs["grouping"] == [{"section": "config", "name": "ablation.value.cell"}]
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    drawn = [(each["viewType"], each["config"].get("metrics")) for each in panels]
    assert drawn == [
        ("Run History Line Plot", ["train/loss/mip"]),
        ("Run History Line Plot", ["val/ndcg@10"]),
        ("Bar Chart", ["test/ndcg@10"]),
        ("Run Comparer", None),
    ]
    assert {each["config"]["groupBy"] for each in panels[:3]} == {"ablation.value.cell"}
    assert [each["config"]["xAxis"] for each in panels[:2]] == ["train/step", "epoch"]


def test_equal_reports_have_equal_specifications_without_place_or_owner() -> None:
    first, second = specification(report_of()), specification(report_of())
    assert first == second
    assert "unset" not in json.dumps(first)


def test_a_long_question_is_cut_to_the_title_that_wandb_takes() -> None:
    document = specification(report_of(question="Why? " * 60))
    assert len(str(document["title"])) == 128
    assert "Why? " * 60 in [text_of(block) for block in blocks_of(document, "paragraph")]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>", "`<script>alert(1)</script>`"),
        ("[x](javascript:y)", "`[x](javascript:y)`"),
        ("a|b", "`a¦b`"),
        ("`b`", "`ˋbˋ`"),
        ("two\nlines", "`two lines`"),
        ("  ", ""),
    ],
)
def test_a_name_in_a_table_is_a_code_span_that_it_cannot_leave(name: str, shown: str) -> None:
    assert code_span(name) == shown


def test_a_hostile_cell_adds_no_row_column_or_block() -> None:
    bad = "<script>|`x`|\n| y' or Name = 'z"
    hostile, tame = report_of(bad, question=f"# {bad}"), report_of()
    tables = [figures_table(each, each.corpora[0].tables[0]) for each in (hostile, tame)]
    shapes = [[line.count("|") for line in table.splitlines()] for table in tables]
    assert shapes[0] == shapes[1]
    kinds = [
        [block["type"] for block in specification(each)["spec"]["blocks"]]
        for each in (hostile, tame)
    ]
    assert kinds[0] == kinds[1]


def test_a_hostile_study_changes_no_filter() -> None:
    study = replace(report_of(), name="x' or Name = 'y")
    (grid,) = blocks_of(specification(study), "panel-grid")
    first, second = grid["metadata"]["runSets"][0]["filters"]["filters"]
    assert first["value"] == "x' or Name = 'y"
    assert second["connector"] == "AND"


def test_groups_and_tags_are_cut_as_the_mirror_cuts_them() -> None:
    ours, theirs = wandb_report, wandb_fields
    assert ours.MAX_NAME_LENGTH == theirs.MAX_NAME_LENGTH
    assert ours.MAX_TAG_LENGTH == theirs.MAX_TAG_LENGTH


def test_offline_writes_the_specification_and_asks_no_server(
    server: WandbServer, tmp_path: Path
) -> None:
    published = publish(report_of(), tmp_path, Tracking(mode="offline"))
    assert (published.link, published.problem) == (None, None)
    assert published.file == tmp_path / "report.wandb.json"
    stored = json.loads(published.file.read_text())
    assert stored == {
        **specification(report_of()),
        "workspace": workspace_of(report_of()),
        "saved": None,
    }
    assert server.requests == 0


def test_without_a_key_nothing_is_saved_unless_online_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_publish, "has_key", lambda: False)
    assert publish(report_of(), tmp_path, Tracking()).problem is None
    with pytest.raises(InputError, match="needs a key"):
        publish(report_of(), tmp_path, Tracking(mode="online"))


READ_BACK = """
import json, sys
import wandb_workspaces.reports.v2 as wr
report = wr.Report.from_url(sys.argv[1].partition("?")[0])
print(json.dumps([report.title, [type(each).__name__ for each in report.blocks]]))
"""


@pytest.mark.long
def test_a_report_is_saved_shared_read_back_and_then_saved_as_the_same(
    server: WandbServer, tmp_path: Path
) -> None:
    write_record(tmp_path / "ml-100k" / "all" / "0", WandbRecord(id="0", project="pets"))
    published = publish(report_of(), tmp_path, Tracking())
    assert published.problem is None
    assert published.link is not None
    assert published.link.endswith("--Vmlldzo1?accessToken=share-Vmlldzo1-1")
    (report,) = server.reports.values()
    assert (report.variables["projectName"], report.variables["entityName"]) == ("pets", "tester")
    # What the client sends is what the file says.
    document = specification(report_of())
    assert report.spec == document["spec"]
    assert report.tokens[0]["projects"] == [{"entityName": "tester", "name": "pets"}]
    assert "share-" not in published.file.read_text()

    seen = subprocess.run(
        [sys.executable, "-c", READ_BACK, published.link],
        env={**os.environ, "WANDB_SILENT": "true"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    title, blocks = json.loads(seen.stdout.splitlines()[-1])
    assert title == "heads: What does MIP add?"
    assert {"H1", "P", "MarkdownBlock", "PanelGrid", "CodeBlock", "TableOfContents"} <= set(blocks)

    again = publish(report_of(), tmp_path, Tracking())
    assert again.link == published.link
    assert len(server.reports) == 1
    assert server.unknown == []


def test_a_report_that_was_deleted_on_the_server_is_saved_anew(
    server: WandbServer, tmp_path: Path
) -> None:
    place = {"server": server.url, "project": "sixfold", "entity": "tester", "id": "gone"}
    write_json(tmp_path / "report.wandb.json", {"saved": place})
    published = publish(report_of(), tmp_path, Tracking())
    assert published.problem is None
    assert list(server.reports) == ["Vmlldzo1"]


def test_missing_modules_are_named_with_the_extra_that_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(
        InputError, match=r"install the extra workspaces: pip install '\.\[workspaces\]'"
    ):
        specification(report_of())


def test_a_refused_key_leaves_the_specification_and_says_why(
    server: WandbServer, tmp_path: Path
) -> None:
    server.refuses_keys = True
    published = publish(report_of(), tmp_path, Tracking())
    assert published.link is None
    assert published.problem is not None
    assert "invalid API key" in published.problem
    assert published.file.is_file()


@pytest.mark.long
def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setattr(wandb_publish, "has_key", lambda: True)
        before = time.monotonic()
        published = publish(report_of(), tmp_path, Tracking(), seconds=3)
    assert time.monotonic() - before < 8
    assert published.problem == "W&B did not answer within 3 s"
    assert published.file.is_file()


# The view of a study's runs


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
