"""experiments/sweep.yaml, as it ships, under `wandb sweep` and `wandb agent` on a fake server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.support.command_line import shop_corpus
from tests.support.wandb_records import FakeSweep
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.long

SHIPPED = ROOT / "experiments" / "sweep.yaml"
TINY = {
    "encoder.length": 6, "encoder.width": 8, "encoder.layers": 1, "encoder.feed_forward": 8,
    "stages.0.epochs": 2, "stages.0.batches.sequences_per_batch": 32,
}  # fmt: skip
# `wandb` whose agent looks every 0.2 s, not every 5 s, whether there is something to do.
IMPATIENT = """
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent
Agent.POLL_INTERVAL = 0.2
cli()
"""
SWEPT = {"stages.0.optimizer.lr": [0.01], "encoder.embedding_norm": [True, False], "seed": [3]}


def other_command() -> list[str]:
    """The command that the shipped file's comments give for several processes."""
    text = re.search(r"# command:\n(?:#   - .*\n)+", SHIPPED.read_text())
    assert text is not None
    return yaml.safe_load(text[0].replace("# ", ""))["command"]


def wandb(
    server: WandbServer, folder: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """`wandb ARGUMENTS` in `folder`; it and all that it began have 120 s, and end in any case."""
    environment = {
        **os.environ, **server.environment(folder), "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *map(str, arguments)],
        env=environment, cwd=folder, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        try:
            said, _ = child.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(child.args, child.returncode, said)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> tuple[WandbServer, Path]:
    """The server after a sweep of tiny values was made, and the folder in which an agent did one
    run of it through `accelerate launch`."""
    folder = tmp_path_factory.mktemp("sweep")
    corpus = shop_corpus(folder).folder
    sweep = yaml.safe_load(SHIPPED.read_text())
    fixed = {name: {"value": value} for name, value in {"corpus": str(corpus), **TINY}.items()}
    sweep["parameters"] = fixed | {name: {"values": values} for name, values in SWEPT.items()}
    sweep |= {"method": "grid", "command": other_command()}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    with WandbServer() as server:
        made = wandb(server, folder, "sweep", "--project", "pets", "sweep.yaml")
        assert made.returncode == 0, made.stdout
        done = wandb(server, folder, "agent", "--count", "1", "tester/pets/sweep001")
    assert done.returncode == 0, done.stdout
    assert [run.finished for run in server.runs.values()] == [True], done.stdout
    assert server.unknown == []
    return server, folder


def stored(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_an_agents_run_ends_in_a_run_folder_with_the_swept_values(
    after: tuple[WandbServer, Path],
) -> None:
    _, folder = after
    (run,) = (folder / "runs" / "sweep-sweep001" / "shop").glob("baselines.sasrec.full_softmax-*/3")
    assert stored(run / "summary.json")["status"] == "finished"
    config = stored(run / "config.json")["config"]
    assert config["seed"] == 3
    assert config["encoder"]["embedding_norm"] is True
    assert config["encoder"]["width"] == 8
    assert config["stages"][0]["optimizer"]["lr"] == 0.01


def test_an_agents_run_is_on_the_server_under_the_sweep_with_its_metric(
    after: tuple[WandbServer, Path],
) -> None:
    server, folder = after
    run = server.runs["sweep001r1"]
    assert (run.sweep, run.project, run.finished) == ("sweep001", "pets", True)
    metric = server.sweeps["sweep001"].config["metric"]["name"]
    (summary,) = (folder / "runs").glob("*/*/*/*/summary.json")
    assert run.summary[metric] == stored(summary)["val"]["ndcg@10"]
    assert len(run.series("val/ndcg@10")) == 2


EXPAND = """
import json, sys
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
command, values = json.loads(sys.argv[1])
args = create_sweep_command_args({"args": values})["args_no_hyphens"]
given = {"${env}": ["env"], "${interpreter}": ["python"], "${program}": ["P"]}
given["${args_no_hyphens}"] = args
words = [given.get(word, [word]) for word in create_sweep_command(command)]
print(" ".join(sum(words, [])))
"""


def test_both_commands_say_the_same_to_the_run_that_they_start() -> None:
    values = {"encoder.embedding_norm": {"value": True}, "stages.0.optimizer.lr": {"value": 0.01}}
    told = []
    for command in (yaml.safe_load(SHIPPED.read_text())["command"], other_command()):
        done = subprocess.run(
            [sys.executable, "-c", EXPAND, json.dumps([command, values])],
            env={**os.environ, "WANDB_SWEEP_ID": "abc"},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        told.append(done.stdout.strip())
    rest = "--wandb encoder.embedding_norm=True stages.0.optimizer.lr=0.01"
    assert told == [
        f"env python -m research run P --study=sweep-abc {rest}",
        "env python -m accelerate.commands.launch --num_processes=1 --module research run P "
        f"--study=sweep-abc --expect-world=1 {rest}",
    ]


def test_the_shipped_sweep_names_fields_of_its_program() -> None:
    from baselines import sasrec
    from research.overrides import override

    sweep = yaml.safe_load(SHIPPED.read_text())
    assert sweep["program"] == "baselines.sasrec.full_softmax"
    first = FakeSweep("sweep001", "pets", yaml.safe_dump(sweep)).grid()[0]
    given = override(sasrec.full_softmax(), [f"{name}={value}" for name, value in first.items()])
    assert given.corpus == "ml-100k"
    assert given.stages[0].optimizer.lr == 0.0003
    assert given.encoder.hidden_dropout == 0.1
    assert given.encoder.embedding_norm is True
