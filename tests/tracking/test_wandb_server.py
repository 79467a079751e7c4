"""The fake W&B server: what a wandb client tells it can be read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wandb_server import WandbServer

RUN = """
import sys, wandb
first, last, resume = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
run = wandb.init(
    project="pets", id="rex", name="Rex", group="dogs", job_type="single", tags=["loud"],
    config={"objectives": {"mip": {"weight": 0.2}}, "seed": 1}, resume=resume,
)
print(run.resumed, run.starting_step)
for step in range(first, last):
    run.log({"loss": 1 / (step + 1)}, step=step)
run.summary["best/ndcg@10"] = 0.5
run.finish()
"""


def client(server: WandbServer, folder: Path, *arguments: str) -> str:
    """What a client process says on stdout; it has 60 s."""
    environment = {**os.environ, **server.environment(folder), "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_logged_and_read_back(tmp_path: Path) -> None:
    with WandbServer() as server:
        assert client(server, tmp_path, "0", "3", "allow") == "False 0\n"
    run = server.runs["rex"]
    assert (run.entity, run.project, run.group, run.job_type) == (
        "tester",
        "pets",
        "dogs",
        "single",
    )
    assert (run.name, run.tags) == ("Rex", ["loud"])
    assert run.config == {"objectives": {"mip": {"weight": 0.2}}, "seed": 1}
    assert run.series("loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.summary["best/ndcg@10"] == 0.5
    assert (run.finished, run.exit_code) == (True, 0)
    assert "config.yaml" in run.files
    assert server.unknown == []


@pytest.mark.long
def test_a_resumed_run_continues_where_the_first_part_ended(tmp_path: Path) -> None:
    with WandbServer() as server:
        client(server, tmp_path, "0", "3", "allow")
        assert client(server, tmp_path, "3", "5", "allow") == "True 3\n"
    run = server.runs["rex"]
    assert [row["_step"] for row in run.rows] == [0, 1, 2, 3, 4]
    assert sorted(run.history) == [0, 1, 2, 3, 4]
    assert server.unknown == []


def test_a_key_is_refused_when_the_server_refuses_keys(tmp_path: Path) -> None:
    with WandbServer(refuses_keys=True) as server:
        environment = {**os.environ, **server.environment(tmp_path), "WANDB_SILENT": "true"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, "0", "1", "allow"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert server.runs == {}
