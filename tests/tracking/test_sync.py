"""`sync`: what W&B lacks of run folders is uploaded, once, from the folders' own files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.errors import InputError
from research.storage.json_files import write_json
from research.storage.run_folder import RunFolder
from research.tracking.config import Tracking
from research.tracking.sync import SYNCING, find_runs, sync
from research.tracking.wandb_fields import run_id
from research.tracking.wandb_mirror import WandbMirror
from tests.support.command_line import command_error, run_command
from tests.support.records import write_as_json
from tests.support.wandb_run_folders import (
    KEY,
    LINES,
    SHORT_TIMEOUTS,
    SUMMARY,
    shop_run_record,
    silent_server,
    write_run,
)
from tests.support.wandb_server import WandbServer

Capture = pytest.CaptureFixture[str]
Environment = pytest.MonkeyPatch


@pytest.fixture
def server(wandb_client: Environment) -> Iterator[WandbServer]:
    """A W&B server that the client knows, and a key."""
    with WandbServer() as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []


def test_a_run_is_uploaded_and_a_second_sync_has_nothing_new(
    server: WandbServer, capsys: Capture, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "heads" / "shop" / "none" / "0")
    answer = run_command(capsys, "sync", path)
    assert answer.code == 0, answer
    assert answer.out.startswith(f"{path}: 5 new lines -> {server.url}/tester/sixfold/runs/")
    (run,) = server.runs.values()
    assert run.series("first/loss") == [(0, 0.5), (1, 1.0)]
    assert run.series("second/loss") == [(2, 0.5), (3, 1.0), (4, 1.5)]
    assert run.series("global_step") == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert (run.id, run.group, run.name) == (run_id(path), "heads", "none-s0-finetune")
    assert run.summary["test/hr@10"] == 0.5
    assert run.config["model"]["parameters"] == 12
    assert (run.finished, run.exit_code) == (True, 0)
    chunks = list(run.chunks)
    assert run_command(capsys, "sync", path).out.startswith(f"{path}: nothing new -> ")
    assert run.chunks == chunks
    assert len(server.runs) == 1


def test_what_was_mirrored_offline_is_uploaded_under_the_same_name(
    server: WandbServer, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "run")
    mirror = WandbMirror(path, Tracking(mode="offline", project="pets"))
    mirror.begin(shop_run_record())
    mirror.end(SUMMARY)
    assert server.runs == {}
    kept = run_id(path)
    assert sync([path]) == 0
    (run,) = server.runs.values()
    assert (run.id, run.project, len(run.rows)) == (kept, "pets", 5)


def test_only_what_the_server_lacks_is_sent(server: WandbServer, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", LINES[:2], None)
    assert sync([path]) == 0
    (run,) = server.runs.values()
    assert (len(run.rows), run.exit_code, run.summary["status"]) == (2, 1, "unfinished")
    for stage, step in LINES[2:]:
        RunFolder(path).log(stage, step, 0, {f"{stage}/loss": step / 2})
    write_as_json(path, SUMMARY)
    assert sync([path]) == 0
    assert [steps for _, steps in run.chunks] == [[0, 1], [2, 3, 4]]
    assert (run.exit_code, run.summary["status"]) == (0, "finished")


def test_a_stage_that_another_run_has_trained_is_told_in_that_one_only(
    server: WandbServer, tmp_path: Path
) -> None:
    study = tmp_path / "heads" / "shop"
    origin = write_run(study / "all" / "0")
    path = write_run(study / "none" / "0")
    write_json(path / "stages" / "first" / "shared.json", {"run": "../../all/0"})
    assert sync([tmp_path]) == 0
    told = server.runs[run_id(path)]
    assert told.config["shared"] == {"first": run_id(origin)}
    assert told.series("first/loss") == []
    assert told.series("second/loss") == [(2, 0.5), (3, 1.0), (4, 1.5)]
    assert server.runs[run_id(origin)].series("first/loss") == [(0, 0.5), (1, 1.0)]


def test_a_folder_stands_for_all_runs_below_it(server: WandbServer, tmp_path: Path) -> None:
    for cell in ("none", "all"):
        write_run(tmp_path / "heads" / "shop" / cell / "0", [], SUMMARY)
    write_json(tmp_path / "heads" / "config.json.d" / "config.json", {"of": "something else"})
    assert sync([tmp_path / "heads", tmp_path / "heads" / "shop" / "all"]) == 0
    assert sorted(str(run.name) for run in server.runs.values()) == [
        "all-s0-finetune", "none-s0-finetune"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["dead", "hanging"])
def test_a_server_that_does_not_answer_is_tried_once_and_the_runs_are_named(
    wandb_client: Environment, capsys: Capture, tmp_path: Path, kind: str
) -> None:
    runs = [write_run(tmp_path / "heads" / "shop" / cell / "0") for cell in ("a", "b", "c")]
    wandb_client.setenv("WANDB_API_KEY", KEY)
    with silent_server(kind) as address:
        wandb_client.setenv("WANDB_BASE_URL", address)
        started = time.monotonic()
        assert sync([tmp_path], SHORT_TIMEOUTS) == 1
        assert time.monotonic() - started < 12
    said = capsys.readouterr().out
    assert said.startswith("W&B cannot be reached (")
    assert said.endswith("".join(f"\n  {run}" for run in runs) + "\n")


def test_a_refused_key_is_an_answer_of_1(wandb_client: Environment, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with WandbServer(refuses_keys=True) as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        assert sync([tmp_path], SYNCING) == 1


def test_without_a_key_it_says_what_to_do(
    wandb_client: Environment, capsys: Capture, tmp_path: Path
) -> None:
    write_run(tmp_path / "run")
    assert "call `wandb login` or set WANDB_API_KEY" in command_error(capsys, "sync", tmp_path)


def test_runs_are_found_however_deep_they_lie(tmp_path: Path) -> None:
    run = tmp_path.joinpath(*"abcdefgh")
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"hash": "abc"}')
    assert find_runs(tmp_path) == [run]


def test_a_folder_without_a_run_is_refused(capsys: Capture, tmp_path: Path) -> None:
    assert "holds no run" in command_error(capsys, "sync", tmp_path / "none")


@pytest.mark.parametrize("missing", ["config", "summary", "line"])
def test_a_damaged_run_is_named(server: WandbServer, tmp_path: Path, missing: str) -> None:
    path = write_run(tmp_path / "run")
    if missing == "config":
        write_as_json(path, shop_run_record(), config={"seed": 0})
    elif missing == "summary":
        write_json(path / "summary.json", {"status": "finished"})
    else:
        (path / "metrics.jsonl").write_text('{"stage": "first"}\n')
    said = rf"run/{missing}\.json is damaged or of another program or version \(.* is missing"
    if missing == "line":
        said = r"metrics\.jsonl: line 1 has been damaged .* has no stage and step"
    with pytest.raises(InputError, match=said):
        sync([path])
    assert server.runs == {}


def test_the_clients_own_offline_files_are_not_needed(server: WandbServer, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    mirror = WandbMirror(path, Tracking(mode="offline"))
    mirror.begin(shop_run_record())
    mirror.end(SUMMARY)
    shutil.rmtree(tmp_path / "wandb")
    assert sync([path]) == 0
    (run,) = server.runs.values()
    assert len(run.rows) == 5
