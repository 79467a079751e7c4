"""Runs that leave the test part alone, as a tuning's trials do (`evaluation.test` off)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sixfold as sf
from baselines.popularity import popularity
from research.cli.listing import of_runs
from research.config import to_json
from research.data.corpus import Corpus
from research.data.splits import UserHoldout
from research.errors import InputError
from research.runs.config import EvaluationConfig
from research.runs.execute import execute
from research.runs.load import load_run
from research.runs.parts import RunParts
from tests.support.command_line import command_error, run_command
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in, weights_of

Capture = pytest.CaptureFixture[str]
UNTESTED = EvaluationConfig(test=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("untested") / "films")


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untested run."""
    folder = tmp_path_factory.mktemp("runs") / "trials" / "films" / "cell" / "0"
    execute(config_of(corpus, FINETUNE, evaluation=UNTESTED), folder, options=QUIET)
    return folder


@pytest.mark.parametrize("counts", [False, True])
def test_only_the_validation_part_is_ever_ranked(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: bool
) -> None:
    ranked: list[str] = []
    real = RunParts.tables

    def tables(self: RunParts, ranker: object, part: str, sets: object = None) -> object:
        ranked.append(part)
        return real(self, ranker, part, sets)  # type: ignore[arg-type]

    monkeypatch.setattr(RunParts, "tables", tables)
    config = config_of(corpus, FINETUNE)
    config = replace(popularity(), corpus=config.corpus) if counts else config
    summary = execute(replace(config, evaluation=UNTESTED), tmp_path / "run", options=QUIET)
    assert set(ranked) == {"validation"}
    assert (summary.test, summary.popularity) == ({}, None)
    assert summary.protocol["part"] == "validation"
    assert [path.name for path in (tmp_path / "run" / "ranks").iterdir()] == ["validation-full.npz"]


def test_it_is_the_run_that_is_tested_but_for_the_test(
    corpus: Corpus, run: Path, tmp_path: Path
) -> None:
    tested = execute(config_of(corpus, FINETUNE), tmp_path / "run", options=QUIET)
    summary = sf.load(run).summary
    assert summary.val == tested.val
    assert summary.hash != tested.hash
    best = next((run / "stages" / "finetune").glob("best_*")).name
    ours, theirs = (
        weights_of(each / "stages" / "finetune" / best) for each in (run, tmp_path / "run")
    )
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_it_is_never_tested_later_either(capsys: Capture, run: Path) -> None:
    run_parts, ranker = load_run(run, "data", (), "cpu")
    with pytest.raises(InputError, match=r"evaluation\.test of this run is off"):
        run_parts.tables(ranker, "test")
    with pytest.raises(InputError, match=r"evaluation\.test of this run is off"):
        sf.load(run).evaluate()
    assert "evaluation.test of this run is off" in command_error(capsys, "evaluate", run)
    assert run_command(capsys, "evaluate", run, "--part", "validation").code == 0
    lists = ("evaluate", run, "--metrics", "coverage@2", "--save-lists")
    assert "its test part is never ranked" in command_error(capsys, *lists)
    assert not list((run / "ranks").glob("lists-*"))


def test_what_shows_a_run_shows_its_validation(capsys: Capture, run: Path) -> None:
    (facts,) = of_runs(run.parent)
    summary = sf.load(run).summary
    assert (facts["metric"], facts["value"]) == ("ndcg@10", summary.val["ndcg@10"])
    assert facts["candidates"] == "full, validation"
    assert "\n  validation, full ranking of 15 users: " in repr(sf.load(run))
    shown = run_command(capsys, "show", run)
    assert (shown.code, "test, " in shown.out, "validation, full" in shown.out) == (0, False, True)


def test_a_run_of_which_nothing_would_be_ranked_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    config = config_of(corpus, replace(FINETUNE, validation=None), evaluation=UNTESTED)
    with pytest.raises(InputError, match="nothing would be ranked; choose another split"):
        execute(
            replace(config, split=UserHoldout(validation_share=0.0, test_share=0.4)),
            tmp_path / "run",
            options=QUIET,
        )
    assert not (tmp_path / "run").exists()


def test_the_default_has_the_hash_of_runs_before_there_was_the_field(corpus: Corpus) -> None:
    assert "evaluation" not in to_json(config_of(corpus, FINETUNE), short=True)
    short = to_json(config_of(corpus, FINETUNE, evaluation=UNTESTED), short=True)
    assert short["evaluation"] == {"class": "EvaluationConfig", "test": False}
