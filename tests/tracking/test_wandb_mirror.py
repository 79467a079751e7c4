"""The mirror on W&B: told after the folder, never in the way, whatever the server does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from research.cli.main import with_wandb_mode
from research.data.corpus import Corpus
from research.runs.execute import RunOptions, execute
from research.storage.json_files import read_json
from research.storage.records import FailureRecord, RunRecord, RunSummary, read_record
from research.storage.run_folder import Mirror, RunFolder, Scalar
from research.studies.optuna_studies import Curve
from research.studies.pruning import Pruned, Pruning
from research.studies.search import ASHA
from research.tracking.config import Tracking
from research.tracking.options import mirror_finished_run
from research.tracking.sync import upload
from research.tracking.wandb_mirror import WandbMirror, call_within, resolve_mode
from tests import ROOT
from tests.support.command_line import TINY, command_error, run_command, shop_corpus
from tests.support.records import without_time_and_memory
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of, corpus_in
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


class Recording(Mirror):
    """Remembers what it is told, and the lines that the folder had by then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[tuple[Any, ...]] = []

    def begin(self, record: RunRecord) -> None:
        assert read_record(self.path, RunRecord) == record
        self.told.append(("begin", record))

    def line(self, number: int, line: Mapping[str, Scalar]) -> None:
        assert RunFolder(self.path).metrics()[number] == line
        self.told.append((number, line["stage"], line["step"]))

    def end(self, summary: RunSummary) -> None:
        assert read_record(self.path, RunSummary) == summary
        self.told.append(("end", summary))

    def close(self) -> None:
        self.told.append(("close",))


# What any mirror is told


def test_a_mirror_is_told_after_the_folder_has_it(tmp_path: Path) -> None:
    mirror = Recording(tmp_path)
    with RunFolder(tmp_path, mirror=mirror) as folder:
        folder.write(shop_run_record())
        folder.log("a", 1, 0, {"a/loss": 0.5})
        folder.log("a", 2, 0, {})
        folder.write(FailureRecord(hash="1", error="", traceback="", when=""))
        folder.write(SUMMARY)
    assert mirror.told == [
        ("begin", shop_run_record()),
        (0, "a", 1),
        (1, "a", 2),
        ("end", SUMMARY),
        ("close",),
    ]


def test_lines_after_a_rewind_have_their_numbers_again(tmp_path: Path) -> None:
    mirror = Recording(tmp_path)
    folder = RunFolder(tmp_path, mirror=mirror)
    for step in (1, 2, 3):
        folder.log("a", step, 0, {})
    folder.rewind("a", 1, 1)
    folder.log("a", 2, 0, {})
    assert mirror.told == [(0, "a", 1), (1, "a", 2), (2, "a", 3), (1, "a", 2)]


def test_lines_of_before_and_of_another_run_count(tmp_path: Path) -> None:
    RunFolder(tmp_path).log("a", 1, 0, {})
    mirror = Recording(tmp_path)
    folder = RunFolder(tmp_path, mirror=mirror)
    folder.log("a", 2, 0, {})
    folder.append([{"stage": "b", "step": 1}, {"stage": "b", "step": 2}])
    folder.log("c", 1, 0, {})
    assert mirror.told == [(1, "a", 2), (4, "c", 1)]


def test_a_mirror_is_closed_however_the_run_is_left(tmp_path: Path) -> None:
    mirror = Recording(tmp_path)
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, mirror=mirror):
        raise KeyboardInterrupt
    assert mirror.told == [("close",)]


@pytest.mark.long
def test_running_without_a_mirror_imports_no_client() -> None:
    script = (
        "import sys, research.runs.execute, research.cli.commands; sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


# What is asked for


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["mine:run", "--wandb", "seed=1"], ["mine:run", "--wandb=auto", "seed=1"]),
        (["--wandb", "mine:run"], ["--wandb=auto", "mine:run"]),
        (["mine:run", "--wandb"], ["mine:run", "--wandb=auto"]),
        (["mine:run", "--wandb", "offline"], ["mine:run", "--wandb", "offline"]),
        (["mine:run", "--wandb=online"], ["mine:run", "--wandb=online"]),
    ],
)
def test_what_follows_wandb_is_a_mode_only_if_it_is_one(words: list[str], read: list[str]) -> None:
    assert with_wandb_mode(words) == read


@pytest.mark.parametrize(
    ("asked", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": "short"}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "online"),
        ("offline", {"WANDB_API_KEY": KEY}, "offline"),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, None),
    ],
)
def test_auto_is_online_with_a_key(
    wandb_client: Environment, asked: Any, environment: dict[str, str], mode: str | None
) -> None:
    for name, value in environment.items():
        wandb_client.setenv(name, value)
    found = resolve_mode(Tracking(mode=asked))
    assert (None if found is None else found.mode) == mode


def test_a_key_in_a_netrc_file_counts(wandb_client: Environment, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    # The key is looked up and no server is asked.
    wandb_client.delenv("WANDB_BASE_URL")
    wandb_client.setenv("NETRC", str(tmp_path / "netrc"))
    found = resolve_mode(Tracking())
    assert found is not None
    assert found.mode == "online"


def test_without_a_key_offline_is_said_once(wandb_client: Environment, capsys: Capture) -> None:
    for _ in range(3):
        resolve_mode(Tracking())
    assert capsys.readouterr().out.count("no key is configured") == 1


def test_online_without_a_key_is_refused_before_any_work(
    wandb_client: Environment, capsys: Capture, tmp_path: Path
) -> None:
    shop = shop_corpus(tmp_path)
    words = ("run", "baselines.popularity.popularity", f"corpus={shop.folder}")
    out = tmp_path / "run"
    assert "W&B online needs a key" in command_error(
        capsys, *words, "--out", out, "--wandb", "online"
    )
    assert "add --wandb" in command_error(capsys, *words, "--out", out, "--wandb-project", "pets")
    assert not out.exists()


# Bounds


def test_bounded_gives_what_an_action_returns_or_raises() -> None:
    assert call_within(lambda: 3, 5.0) == 3
    with pytest.raises(ZeroDivisionError):
        call_within(lambda: 1 / 0, 5.0)
    with pytest.raises(RuntimeError, match=r"the W&B client ended \(SystemExit\(1\)\)"):
        call_within(partial(sys.exit, 1), 5.0)
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        call_within(partial(time.sleep, 1.0), 0.01)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("small") / "corpus")


def summary_in(path: Path, corpus: Corpus, tracking: Tracking | None) -> RunSummary:
    """The summary of a two-stage run, without its times."""
    options = RunOptions(quiet=True, tracking=tracking)
    summary = execute(config_of(corpus, PRETRAIN, FINETUNE), path, options=options)
    return without_time_and_memory(summary)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dead", "hanging"])
def test_a_server_that_does_not_answer_delays_one_run_and_changes_none(
    wandb_client: Environment, capsys: Capture, corpus: Corpus, tmp_path: Path, kind: str
) -> None:
    plain = summary_in(tmp_path / "plain", corpus, None)
    # SIXFOLD_BOUNDS=default tries what users have: 45 s at most, a minute or so for both kinds.
    as_given = os.environ.get("SIXFOLD_BOUNDS") == "default"
    tracking, most = (Tracking(mode="online"), 45) if as_given else (SHORT_TIMEOUTS, 20)
    with silent_server(kind) as address:
        wandb_client.setenv("WANDB_BASE_URL", address)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        started = time.monotonic()
        assert summary_in(tmp_path / "a", corpus, tracking) == plain
        assert time.monotonic() - started < most
        assert summary_in(tmp_path / "b", corpus, tracking) == plain
    # Only the first has tried to reach the server.
    assert len(list((tmp_path / "wandb").glob("run-*"))) == 1
    assert capsys.readouterr().err.count("the server cannot be used") == 1
    for name in ("a", "b"):
        assert read_json(tmp_path / name / "wandb.json")["mode"] == "offline"
        mirrored = read_json(tmp_path / name / "wandb.json")["id"]
        assert list((tmp_path / "wandb").glob(f"offline-run-*/run-{mirrored}.wandb"))


@pytest.mark.parametrize("key", [KEY, "short"])
def test_a_key_that_is_refused_leaves_the_run_offline(
    wandb_client: Environment, capsys: Capture, tmp_path: Path, key: str
) -> None:
    path = write_run(tmp_path / "run")
    with WandbServer(refuses_keys=True) as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", key)
        mirror = WandbMirror(path, SHORT_TIMEOUTS)
        mirror.begin(shop_run_record())
        mirror.end(SUMMARY)
        assert server.runs == {}
    assert read_json(path / "wandb.json")["mode"] == "offline"
    assert capsys.readouterr().out.count("sixfold sync") == 1


@pytest.mark.long
def test_a_server_that_falls_silent_does_not_hold_up_the_end(
    wandb_client: Environment, capsys: Capture, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "run", lines=[], summary=None)
    with WandbServer() as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        mirror = WandbMirror(path, SHORT_TIMEOUTS)
        mirror.begin(shop_run_record())
    folder = RunFolder(path, mirror=mirror)
    started = time.monotonic()
    for step in range(1, 4):
        folder.log("first", step, 0, {"first/loss": 0.5})
    mirror.end(SUMMARY)
    assert time.monotonic() - started < 10
    assert "not everything was confirmed" in capsys.readouterr().out


def test_a_client_that_breaks_is_left_and_the_run_goes_on(
    wandb_client: Environment, capsys: Capture, tmp_path: Path
) -> None:
    path = write_run(tmp_path / "run", lines=[], summary=None)
    mirror = WandbMirror(path, SHORT_TIMEOUTS)
    mirror.begin(shop_run_record())
    assert mirror.run is not None
    mirror.run.run.finish()
    folder = RunFolder(path, mirror=mirror)
    for step in range(1, 4):
        folder.log("first", step, 0, {})
    mirror.end(SUMMARY)
    assert [line["step"] for line in folder.metrics()] == [1, 2, 3]
    assert capsys.readouterr().out.count("a line could not be sent") == 1


# What arrives


def test_an_offline_run_holds_every_line_of_metrics(
    wandb_client: Environment, capsys: Capture, tmp_path: Path
) -> None:
    shop = shop_corpus(tmp_path)
    run = tmp_path / "runs" / "heads" / "shop" / "one" / "0"
    words = ["run", "baselines.sasrec.full_softmax", f"corpus={shop.folder}", "--wandb", *TINY]
    answer = run_command(
        capsys, *words, "--study", "heads", "--cell", "one", "--runs", tmp_path / "runs"
    )
    assert answer.code == 0
    assert answer.out.count("no key is configured") == 1
    # Where `wandb sync` looks, if it is called in the folder that WANDB_DIR names.
    (written,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert not (run / "wandb").exists()
    wandb_program = Path(sys.executable).with_name("wandb")
    inspected = subprocess.run(
        [wandb_program, "leet", "inspect", "--json", written.parent],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    records = [json.loads(line) for line in inspected.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    lines = RunFolder(run).metrics()
    assert len(rows) == len(lines) > 2
    for number, (row, line) in enumerate(zip(rows, lines)):
        assert row["_step"] == number
        assert row["train/step"] == line.pop("step")
        own = {name: row[name] for name in row if name not in ("train/step", "global_step")}
        assert {name: own[name] for name in own if not name.startswith("_")} == line
    (told,) = [record["run"] for record in records if record["type"] == "run"]
    assert (told["run_group"], told["display_name"]) == ("heads", "one-s0-train")
    assert told["run_id"] == read_json(run / "wandb.json")["id"]
    assert told["config"]["update"]["objectives"]["next"] == 1
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["status"] == "finished"
    finished: Any = read_json(run / "summary.json")
    assert summary["test/ndcg@10"] == finished["test"]["full"]["ndcg@10"]
    assert str(Path.home()) not in inspected
    assert str(tmp_path) not in inspected


@pytest.fixture
def online(wandb_client: Environment) -> Any:
    with WandbServer() as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []


def test_a_run_that_is_left_and_continued_is_one_run_with_each_line_once(
    online: WandbServer, tmp_path: Path
) -> None:
    first = WandbMirror(tmp_path, Tracking())
    with RunFolder(tmp_path, mirror=first) as folder:
        folder.write(shop_run_record())
        for step in (1, 2, 3):
            folder.log("first", step, 0, {"first/loss": step / 2})
    (run,) = online.runs.values()
    assert (run.exit_code, run.summary["status"]) == (1, "unfinished")
    # It comes back at the checkpoint of step 2.
    second = WandbMirror(tmp_path, Tracking())
    with RunFolder(tmp_path, mirror=second) as folder:
        folder.write(shop_run_record())
        folder.rewind("first", 2, 9)
        folder.log("first", 3, 0, {"first/loss": 1.5})
        folder.log("second", 1, 0, {"second/loss": 9.0})
        folder.write(SUMMARY)
    (run,) = online.runs.values()
    assert run.series("first/loss") == [(0, 0.5), (1, 1.0), (2, 1.5)]
    assert run.series("second/loss") == [(3, 9.0)]
    assert run.series("global_step") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert (run.exit_code, run.summary["status"]) == (0, "finished")
    assert (run.project, run.group) == ("sixfold", "single")


def test_nothing_that_is_sent_names_a_path_of_this_machine(
    online: WandbServer, tmp_path: Path, monkeypatch: Environment
) -> None:
    sent: list[bytes] = []
    answer = online.answer

    def overheard(method: str, path: str, body: bytes) -> Any:
        sent.append(path.encode() + body)
        return answer(method, path, body)

    monkeypatch.setattr(online, "answer", overheard)
    mirror = WandbMirror(tmp_path / "run", Tracking())
    write_run(tmp_path / "run")
    mirror.begin(shop_run_record())
    mirror.end(SUMMARY)
    everything = b"".join(sent)
    assert b"uniform-100" in everything
    for path in (tmp_path, ROOT, Path(sys.executable)):
        assert str(path).encode() not in everything
    assert KEY.encode() not in everything


def test_the_id_that_a_sweep_gives_wins_for_one_run(
    online: WandbServer, tmp_path: Path, monkeypatch: Environment
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-sweep")
    for name in ("a", "b"):
        mirror = WandbMirror(write_run(tmp_path / name), Tracking())
        mirror.begin(shop_run_record())
        mirror.end(SUMMARY)
    assert len(online.runs) == 2
    assert online.runs["of-a-sweep"].name == "a-s0-finetune"
    assert read_json(tmp_path / "a" / "wandb.json")["id"] == "of-a-sweep"


def test_a_sweep_that_asks_for_a_finished_run_gets_it(
    online: WandbServer, tmp_path: Path, monkeypatch: Environment
) -> None:
    path = write_run(tmp_path / "run")
    mirror_finished_run(path, Tracking())
    assert online.runs == {}
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-sweep")
    mirror_finished_run(path, Tracking())
    assert len(online.runs["of-a-sweep"].rows) == len(LINES)
    requests = online.requests
    mirror_finished_run(path, Tracking())
    assert online.requests == requests


def test_a_pruned_trial_has_ended_and_has_not_failed(online: WandbServer, tmp_path: Path) -> None:
    record = shop_run_record()
    better = Curve(((1, 0.9),), 0.9)
    pruning = Pruning(pruner=ASHA(), earlier=(better,), stage="first", metric="mrr")

    def run_trial() -> None:
        with RunFolder(tmp_path, mirror=WandbMirror(tmp_path, Tracking())) as folder:
            folder.write(record)
            watch = pruning.watch(folder, record.hash)
            folder.log("first", 1, 1, {"val/mrr": 0.25})
            watch("first", 1, {"val/mrr": 0.25})

    with pytest.raises(Pruned):
        run_trial()
    (run,) = online.runs.values()
    assert (run.exit_code, run.summary["status"]) == (0, "pruned")
    assert run.series("val/mrr") == [(0, 0.25)]
    assert read_json(tmp_path / "pruned.json") == {
        "hash": record.hash, "epoch": 1, "value": 0.25
    }  # fmt: skip
    assert upload(tmp_path, Tracking(mode="online")).startswith("nothing new ->")
    (run,) = online.runs.values()
    assert (run.exit_code, run.summary["status"]) == (0, "pruned")
