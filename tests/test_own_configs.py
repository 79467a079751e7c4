"""Runs of a user's own config classes, and what is refused of them before anything is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig, popularity
from baselines.sasrec import full_softmax
from research.data.corpus import Corpus
from research.data.windows import Sliding
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.studies.study import Study, run_study
from tests.support.command_line import TINY, command_error, run_command, shop_corpus

SASREC = "baselines.sasrec.full_softmax"
Capture = pytest.CaptureFixture[str]
OWN_LOSS = """
from dataclasses import dataclass, replace
from baselines.sasrec import full_softmax
from research.objectives.next_item import NextItemConfig

@dataclass(frozen=True, kw_only=True)
class {name}(NextItemConfig):
    own: int = 3

def cell():
    config = full_softmax()
    (stage,) = config.stages
    return replace(config, stages=(replace(stage, objectives={{"next": {name}(own=4)}}),))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; modules of it that a test imports are gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.mark.long
def test_a_run_of_ones_own_classes_starts_from_an_earlier_one_of_them(
    capsys: Capture, shop: Corpus, here: Path
) -> None:
    (here / "own_loss.py").write_text(OWN_LOSS.format(name="OwnNextConfig"))
    given = [f"corpus={shop.folder}", "--quiet", *TINY]
    assert run_command(capsys, "run", "own_loss:cell", *given, "--out", "first").code == 0
    again = ["run", "own_loss:cell", *given, "--out", "again", "--start_from", "first"]
    assert run_command(capsys, *again).code == 0
    ours = ["run", SASREC, *given, "--out", "ours", "--start_from", "first"]
    assert "outside research, baselines; name its package with --allow own_loss" in command_error(
        capsys, *ours
    )
    assert not (here / "ours").exists()
    assert run_command(capsys, *ours, "--allow", "own_loss").code == 0


def test_a_class_of_ones_own_is_named_on_the_command_line(
    capsys: Capture, shop: Corpus, here: Path
) -> None:
    (here / "own_loss.py").write_text(OWN_LOSS.format(name="OwnNextConfig"))
    key = "stages.0.objectives.next"
    given = ["run", "own_loss:cell", f"corpus={shop.folder}", *TINY, "--out", "r"]
    message = command_error(capsys, *given, f"{key}=OwnNexConfig")
    assert f"{key} is 'OwnNexConfig'; did you mean OwnNextConfig" in message
    answer = run_command(capsys, *given, f"{key}=OwnNextConfig", f"{key}.own=9", "--help")
    assert f"--{key}.own  int\n    (default: 9)" in answer.out
    assert not (here / "r").exists()


def test_a_class_with_a_name_of_ours_is_refused_when_the_run_begins(
    capsys: Capture, shop: Corpus, here: Path
) -> None:
    (here / "own_loss.py").write_text(OWN_LOSS.format(name="ClozeConfig"))
    message = command_error(
        capsys, "run", "own_loss:cell", f"corpus={shop.folder}", *TINY, "--out", "r"
    )
    assert (
        f"config.stages.0.objectives.next: class ClozeConfig of {here / 'own_loss.py'}" in message
    )
    assert "has the name of a class in " in message
    assert "research/objectives/cloze.py" in message
    assert not (here / "r").exists()


def test_a_run_with_a_field_of_the_wrong_type_is_refused_before_anything_is_written(
    shop: Corpus, here: Path
) -> None:
    config = replace(full_softmax(), corpus=str(shop.folder))
    stage = replace(config.stages[0], windows=Sliding(stride="2"))
    config = replace(config, stages=(stage,))
    message = r"^config\.stages\.0\.windows\.stride is '2'; allowed: int \| None$"
    with pytest.raises(InputError, match=message):
        execute(config, here / "r", options=RunOptions(quiet=True))
    assert list(here.iterdir()) == []


def test_a_study_names_the_cell_with_a_field_of_the_wrong_type(shop: Corpus, here: Path) -> None:
    ranker = PopularityConfig()
    # A class of one's own may not check its fields.
    object.__setattr__(ranker, "newest_share", "1")
    wrong = replace(popularity(), ranker=ranker)
    cells: dict[str, RunConfig] = {"a": popularity(), "b": wrong}
    study = Study(name="s", question="?", cells=cells, base="a", corpora=(str(shop.folder),))
    message = r"^cell b: config\.ranker\.newest_share is '1'; allowed: float$"
    with pytest.raises(InputError, match=message):
        run_study(study, here, options=RunOptions(quiet=True), accelerator=make_accelerator())
    assert list(here.iterdir()) == []
