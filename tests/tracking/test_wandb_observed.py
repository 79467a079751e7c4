"""What W&B gets beside metrics: commit, versions and load, and artifacts on request."""

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
import wandb

from research.cli.verbs import WandbOptions
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.execute import RunOptions, execute
from research.storage.records import Provenance, RunRecord, read_record
from research.tracking import wandb_run
from research.tracking.config import Tracking
from research.tracking.sync import SYNCING, sync
from research.tracking.wandb_fields import run_id
from research.tracking.wandb_mirror import WandbMirror
from research.tracking.wandb_run import settings_of
from tests.support.records import write_as_json
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of, corpus_in
from tests.support.wandb_run_folders import KEY, SUMMARY, shop_run_record, write_run
from tests.support.wandb_server import WandbServer

Environment = pytest.MonkeyPatch
COMMIT = "c0ffee" * 6 + "c0ff"
RECORD = replace(shop_run_record(), provenance=(Provenance(commit=COMMIT, clean=True),))


@pytest.fixture
def online(wandb_client: Environment) -> Iterator[WandbServer]:
    with WandbServer() as server:
        wandb_client.setenv("WANDB_BASE_URL", server.url)
        wandb_client.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("small") / "corpus")


def mirrored(path: Path, tracking: Tracking) -> None:
    """Mirror a run that has ended, as if it had just been done."""
    write_run(path)
    mirror = WandbMirror(path, tracking)
    mirror.begin(RECORD)
    mirror.end(SUMMARY)


def test_a_run_has_the_commit_and_the_versions_of_packages(
    online: WandbServer, tmp_path: Path
) -> None:
    mirrored(tmp_path / "run", Tracking())
    (run,) = online.runs.values()
    assert run.commit == COMMIT
    assert run.config["code"] == {"commit": COMMIT, "clean": True}
    assert b"numpy==" in run.files["requirements.txt"]
    # Names of the machine, its user and its folders are in a file that is not made.
    assert "wandb-metadata.json" not in run.files


def test_a_silent_run_has_none_of_them(online: WandbServer, tmp_path: Path) -> None:
    mirrored(tmp_path / "run", Tracking(silent=True))
    (run,) = online.runs.values()
    assert run.commit is None
    assert {"code", "machine", "env"} & run.config.keys() == set()
    assert "requirements.txt" not in run.files
    assert run.events == {}


def test_load_is_that_of_the_run_and_not_of_an_upload() -> None:
    live = settings_of(Tracking(), RECORD, live=True)
    assert (live.x_disable_stats, live.x_save_requirements, live.git_commit) == (
        False, True, COMMIT,
    )  # fmt: skip
    upload = settings_of(Tracking(), RECORD, live=False)
    assert (upload.x_disable_stats, upload.x_save_requirements, upload.git_commit) == (
        True, False, COMMIT,
    )  # fmt: skip
    silent = settings_of(Tracking(silent=True), RECORD, live=True)
    assert (silent.x_disable_stats, silent.x_save_requirements, silent.git_commit) == (
        True, False, None,
    )  # fmt: skip
    # The client measures the load only together with what it calls machine info.
    assert [each.x_disable_machine_info for each in (live, upload, silent)] == [False, True, True]
    for settings in (live, upload, silent):
        assert settings.host == ""
        assert settings.x_disable_meta
        assert settings.disable_git


def test_an_upload_has_the_commit_of_the_run(online: WandbServer, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    write_as_json(path, RECORD)
    assert sync([path]) == 0
    (run,) = online.runs.values()
    assert (run.commit, "requirements.txt" in run.files) == (COMMIT, False)


def test_checkpoint_and_rank_tables_are_uploaded_on_request(
    online: WandbServer, corpus: Corpus, tmp_path: Path, monkeypatch: Environment
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "heads" / "small" / "one" / "0"
    execute(config_of(corpus, PRETRAIN, FINETUNE), path, options=RunOptions(quiet=True))
    assert sync([path]) == 0
    assert online.artifacts == {}
    assert sync([path], replace(SYNCING, artifacts=True)) == 0
    artifacts = {str(each.input["artifactTypeName"]): each for each in online.artifacts.values()}
    assert sorted(artifacts) == ["model", "ranks"]
    assert all(artifact.committed for artifact in artifacts.values())
    ranks, model = artifacts["ranks"], artifacts["model"]
    assert ranks.files["ranks/test-full.npz"] == (path / "ranks" / "test-full.npz").read_bytes()
    assert {"ranks/validation-full.npz", "ranks/test-full.npz"} <= ranks.files.keys()
    (weights,) = (name for name in model.files if name.endswith("model.safetensors"))
    assert weights.startswith(f"stages/{FINETUNE.name}/")
    assert model.files[weights] == (path / weights).read_bytes()
    assert not any("optimizer" in name for name in model.files)
    record = read_record(path, RunRecord)
    assert record is not None
    assert json.loads(model.input["metadata"])["hash"] == record.hash
    everything = json.dumps([artifact.input for artifact in artifacts.values()])
    assert str(tmp_path) not in everything
    assert str(tmp_path).encode() not in b"".join(ranks.files.values())


@pytest.mark.parametrize(
    "options", [WandbOptions(wandb_artifacts=True), WandbOptions(wandb_silent=True)]
)
def test_the_options_need_a_mirror(options: WandbOptions) -> None:
    with pytest.raises(InputError, match="need --wandb"):
        options.tracking()
    asked = replace(options, wandb="auto").tracking()
    assert asked is not None
    assert (asked.artifacts, asked.silent) == (options.wandb_artifacts, options.wandb_silent)


@pytest.mark.long
def test_a_run_without_an_undamaged_checkpoint_says_so(online: WandbServer, tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    (path / "ranks").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        sync([path], replace(SYNCING, artifacts=True))


@pytest.mark.long
def test_the_load_of_the_machine_arrives_and_its_name_does_not(
    online: WandbServer, tmp_path: Path, monkeypatch: Environment
) -> None:
    def often(tracking: Tracking, record: RunRecord, *, live: bool) -> wandb.Settings:
        settings = settings_of(tracking, record, live=live)
        settings.x_stats_sampling_interval = 0.5
        return settings

    sent: list[bytes] = []
    answer = online.answer

    def overheard(method: str, path: str, body: bytes) -> Any:
        sent.append(body)
        return answer(method, path, body)

    monkeypatch.setattr(wandb_run, "settings_of", often)
    monkeypatch.setattr(online, "answer", overheard)
    write_run(tmp_path / "run")
    mirror = WandbMirror(tmp_path / "run", Tracking())
    mirror.begin(RECORD)
    time.sleep(4)
    mirror.end(SUMMARY)
    (run,) = online.runs.values()
    assert any("system.memory_percent" in event for event in run.events.values())
    everything = b"".join(sent)
    for told in (f'"host":"{socket.gethostname()}"', str(Path.home()), str(tmp_path)):
        assert told.encode() not in everything


@pytest.mark.long
def test_an_offline_run_is_found_and_sent_by_the_clients_own_command(
    online: WandbServer, tmp_path: Path
) -> None:
    mirrored(tmp_path / "run", Tracking(mode="offline"))
    assert online.runs == {}
    subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", "--yes"],
        env={**os.environ, **online.environment(tmp_path)}, cwd=tmp_path,
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    (run,) = online.runs.values()
    assert (run.id, len(run.rows)) == (run_id(tmp_path / "run"), 5)
    # Ours finds nothing left to send.
    assert sync([tmp_path / "run"]) == 0
    assert [steps for _, steps in run.chunks] == [[0, 1, 2, 3, 4]]
