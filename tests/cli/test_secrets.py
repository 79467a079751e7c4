"""Nothing of a person or a machine stands in what a run, a study or a report leaves behind.

Everything is done in processes of its own with secrets planted in the environment and in the name
of the home folder; then every byte that was written is searched.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from tests import ROOT
from tests.support.command_line import TINY, shop_corpus

pytestmark = pytest.mark.long

USER = "somebody-private"
SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef0badc0de",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "HF_TOKEN": "hf_plantedplantedplanted",
    "MY_PASSWORD": "correct-horse-battery",
    "HOSTNAME": "machine-of-somebody",
}
SASREC = "baselines.sasrec.full_softmax"


class Home:
    """The home folder of somebody, and calls of the command line from there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.corpus = shop_corpus(path / "corpora")
        (path / "experiment.py").write_text(EXPERIMENT)

    def call(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, **SECRETS, "HOME": str(self.path), "USER": USER, "LOGNAME": USER,
            "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "research", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done

    def strays(self, *folders: str) -> list[str]:
        """Where a planted word stands below these folders: in a file, or in its name."""
        words = {**SECRETS, "home": str(self.path), "user": USER}
        found = []
        for folder in folders:
            files = [path for path in (self.path / folder).rglob("*") if path.is_file()]
            assert files, folder
            for path in files:
                content = path.read_bytes()
                name = str(path.relative_to(self.path))
                found += [
                    f"{what} in {name}"
                    for what, word in words.items()
                    if any(each in content for each in spellings(word)) or word in name
                ]
        return found


def spellings(word: str) -> list[bytes]:
    """A word as it is, and as encodings hide it."""
    return [word.encode(), word.encode("utf-16-le"), base64.b64encode(word.encode())[:-4]]


EXPERIMENT = f"""
from dataclasses import replace

from baselines.popularity import popularity
from research.overrides import override
from research.studies.study import Study
from {SASREC.rpartition(".")[0]} import full_softmax


def trained():
    return override(full_softmax(), {list(TINY)!r})


def failing():
    return replace(trained(), start_from="nowhere")


def study():
    cells = {{"trained": trained(), "counted": popularity()}}
    return Study(
        name="mine", question="Which?", cells=cells, base="counted", corpora=("corpora/shop",)
    )
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("homes") / f"home-of-{USER}")


def test_a_study_its_runs_and_its_report_hold_no_secret(home: Home) -> None:
    # W&B is disabled, so that these words reach nobody, but they stand on the command line.
    words = ("--wandb", "--wandb-project", SECRETS["MY_PASSWORD"], "--wandb-entity")
    home.call("study", "experiment.study", "--no-probe", "--quiet", *words, SECRETS["HF_TOKEN"])
    home.call("report", "mine")
    written = {path.name for path in (home.path / "runs" / "mine").iterdir()}
    assert {"study.json", "report.html", "report.csv", "report.tex", "shop"} <= written
    assert home.strays("runs/mine") == []


def config_of(run: Path) -> Mapping[str, str]:
    stored: Mapping[str, str] = json.loads((run / "config.json").read_text())
    return stored


def test_absolute_paths_below_home_are_written_without_it(home: Home) -> None:
    corpus = home.corpus.folder
    given = (f"corpus={corpus}", f"evaluation.negatives_file={negatives_of(home.corpus)}", *TINY)
    home.call("run", SASREC, *given, "--out", home.path / "first", "--quiet")
    start = f"start_from={home.path / 'first'}"
    home.call("run", SASREC, *given, start, "--out", home.path / "second", "--quiet")
    assert home.strays("first", "second") == []
    # The same commands find their runs again, and a run tells where its corpus lies.
    home.call("run", SASREC, *given, start, "--out", home.path / "second", "--quiet")
    home.call("evaluate", home.path / "second")
    relative = ("corpus=corpora/shop", f"evaluation.negatives_file={negatives_of(home.corpus)}")
    home.call("run", SASREC, *relative, *TINY, "--out", "third", "--quiet")
    assert config_of(home.path / "third")["hash"] == config_of(home.path / "first")["hash"]


def test_a_run_says_by_which_command_it_was_done_without_a_secret(home: Home) -> None:
    words = ("--wandb", "--wandb-project", SECRETS["MY_PASSWORD"], "--quiet")
    home.call("run", SASREC, f"corpus={home.corpus.folder}", *TINY, *words, "--out", "told")
    (how,) = json.loads((home.path / "told" / "config.json").read_text())["provenance"]
    assert how["command"].startswith(f"python -m research run {SASREC} corpus=~/corpora/shop ")
    assert "--wandb-project ***" in how["command"]
    assert home.strays("told") == []


def test_what_fails_says_so_without_the_home_folder(home: Home) -> None:
    (home.path / "broken.py").write_text(BROKEN)
    home.call("study", "broken.study", "--no-probe", "--quiet", code=1)
    home.call("report", home.path / "runs" / "broken")
    assert home.strays("runs/broken") == []


BROKEN = """
from dataclasses import dataclass
from pathlib import Path

from experiment import *
from research.evaluation.ranker import RankerConfig


@dataclass(frozen=True, kw_only=True)
class Broken(RankerConfig):
    def build(self, corpus, split):
        raise ValueError(f"there is no {Path.home()}/private/model")


def study():
    cells = {"base": popularity(), "bad": replace(popularity(), ranker=Broken())}
    corpora = (f"{Path.home()}/corpora/shop",)
    return Study(name="broken", question="?", cells=cells, base="base", corpora=corpora)
"""


def negatives_of(corpus: Corpus) -> Path:
    """A file with one negative a user: the first item that is not in the history."""
    path = corpus.folder.parent / "negatives.txt"
    lines = []
    for user in range(corpus.num_users):
        own = set(corpus.items[corpus.offsets[user] : corpus.offsets[user + 1]].tolist())
        other = next(item for item in range(corpus.num_items) if item not in own)
        lines.append(f"{corpus.user_names[user]} {corpus.item_names[other]}")
    path.write_text("\n".join(lines) + "\n")
    return path
