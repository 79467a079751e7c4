"""A package that a run does not need may be absent; one that is needed is named at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import shop_corpus
from tests.support.launching import ROOT

# W&B's client, and what draws a report.
HIDDEN = ("wandb", "wandb_workspaces", "matplotlib", "jinja2", "markupsafe")
SCRIPT = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

hidden, calls = json.loads(sys.argv[1])

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if each is PathFinder else each for each in sys.meta_path]
from research.cli.main import main
answers = []
for call in calls:
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(call)
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""
# An experiment and a study that nothing is overridden of.
EXPERIMENT = """
from dataclasses import replace
from pathlib import Path
from baselines.popularity import popularity
from research.studies.study import Study
from tests.support.small_runs import ENCODER, FINETUNE
from research.runs.config import RunConfig

CORPUS = str(Path(__file__).parent / "shop")

def trained() -> RunConfig:
    return RunConfig(corpus=CORPUS, encoder=ENCODER, stages=(FINETUNE,))

def both() -> Study:
    cells = {"popularity": popularity(), "trained": trained()}
    return Study(name="both", question="Which?", cells=cells, base="popularity", corpora=(CORPUS,))
"""


def answers(folder: Path, *calls: list[str]) -> list[tuple[int, str]]:
    """The exit code and the errors of each call of a process that lacks the packages."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([HIDDEN, calls])],
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.long
def test_runs_and_studies_go_without_every_package_that_they_do_not_need(tmp_path: Path) -> None:
    shop_corpus(tmp_path)
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    done = answers(
        tmp_path,
        ["run", "mine:trained", "--out", "run", "seed=1"],
        ["evaluate", "run"],
        ["recommend", "run", "--items", "B100,B101"],
        ["show", "run"],
        ["show", "shop"],
        ["study", "mine:both", "--no-probe"],
    )
    assert done == [(0, "")] * 6
    run, sync = answers(
        tmp_path,
        ["run", "mine:trained", "--out", "other", "--wandb", "offline"],
        ["sync", "run"],
    )
    wandb = (
        "W&B needs wandb, which is not installed; pip install wandb (a run goes without it, and "
        "`sync` uploads it later)\n"
    )
    assert run == (2, f"sixfold run: {wandb}")
    assert sync == (2, f"sixfold sync: {wandb}")
    assert not (tmp_path / "other").exists()
