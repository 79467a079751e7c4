"""What a user is told who takes a trial for a run, and of an error within a space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.errors import InputError
from research.public.run import load
from research.storage.json_files import read_json
from research.studies.changes import Changes
from research.studies.search import ASHA, RandomSearch
from research.studies.space import Trial, TunedCell, check_space
from tests.support.command_line import command_error, run_command
from tests.support.small_runs import FINETUNE, config_of, corpus_in
from tests.support.tunings import done, tuning_of

pytest.importorskip("optuna")
Capture = pytest.CaptureFixture[str]
NEVER = (
    "evaluation.test of this run is off, as of a tuning's trials, so that its test part is never"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("messages") / "films")


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a tuning of which trial 0 is complete and trial 1 is pruned."""

    def space(trial: Trial) -> Changes:
        return {"stages.0.optimizer.lr": trial.log_uniform("lr", 1e-4, 1e-1)}

    out = tmp_path_factory.mktemp("runs")
    base = config_of(corpus, replace(FINETUNE, epochs=3))
    cells = {"popularity": popularity(), "next": TunedCell(base=base, space=space)}
    done(
        tuning_of(corpus, cells=cells, sampler=RandomSearch(), pruner=ASHA(factor=4), trials=2),
        out,
    )
    return out


def trial_in(runs: Path, number: int) -> Path:
    return runs / "mine-trials" / "films" / f"next-{number}" / "0"


@pytest.mark.long
def test_a_complete_trial_gives_its_validation_figures_in_place_of_test_figures(
    runs: Path, capsys: Capture
) -> None:
    trial = trial_in(runs, 0)
    value = read_json(trial / "summary.json")["val"]["mrr"]  # type: ignore[index,call-overload]
    run = load(trial)
    for figures in (run.metrics, run.evaluate):
        with pytest.raises(InputError) as caught:
            figures()
        assert str(caught.value).startswith(f"{trial}: {NEVER}")
        assert f"On the validation part it has hr@5 {run.summary.val['hr@5']:.4f}" in str(
            caught.value
        )
    assert f"{trial}: {NEVER}" in command_error(capsys, "evaluate", trial)
    # What the messages advise.
    advised = run_command(capsys, "evaluate", trial, "--part", "validation")
    assert f"{value:.4f}" in advised.out
    frame = run.metrics("validation").set_index("metric")
    assert frame.loc["mrr", "mean"] == pytest.approx(value)


def test_a_pruned_trial_is_no_run_to_rank_with(runs: Path, capsys: Capture) -> None:
    trial = trial_in(runs, 1)
    for verb in (("evaluate",), ("recommend", "--users", "1"), ("audit",)):
        message = command_error(capsys, verb[0], trial, *verb[1:])
        assert f"{trial} holds a trial of a tuning that was ended early, after epoch 1" in message
        assert "Name another trial, or a run of the tuning's winner" in message
    out = ("--format", "hub", "--out", runs / "hub-pruned")
    assert "ended early" in command_error(capsys, "export", trial, *out)


def test_a_trial_on_the_hub_has_its_validation_figures_and_comes_back(
    runs: Path, capsys: Capture
) -> None:
    hub = runs / "hub"
    exported = run_command(capsys, "export", trial_in(runs, 0), "--format", "hub", "--out", hub)
    assert exported.code == 0
    card = (hub / "README.md").read_text()
    assert "## Metrics on the validation part" in card
    assert "The test part of this run is never ranked" in card
    value = read_json(hub / "summary.json")["val"]["mrr"]  # type: ignore[index,call-overload]
    assert f"| full | mrr | {value:.4f} |" in card
    imported = run_command(capsys, "import", hub, "--format", "hub", "--out", runs / "back")
    assert imported.code == 0
    assert f"mrr {value:.4f} (as published)" in imported.out
    assert not list((runs / "back").rglob("test-*.npz"))


def test_a_report_of_trials_names_the_tuning(runs: Path, capsys: Capture) -> None:
    for place in (runs / "mine-trials", trial_in(runs, 0), trial_in(runs, 1), "mine-trials"):
        message = command_error(capsys, "report", place, "--runs", runs)
        assert "belongs to the trials of the tuning mine" in message
        assert f"`report {runs / 'mine'}` tells of the trials" in message


def broken(trial: Trial) -> Changes:
    """A space with a misspelt key."""
    sizes = {"small": 4}
    trial.uniform("dropout", 0.1, 0.2)
    return {"encoder.width": sizes["smal"]}


def without_trial() -> Changes:
    """A space that takes no trial."""
    return {}


def test_an_error_within_a_space_names_cell_file_and_line(corpus: Corpus) -> None:
    base = config_of(corpus, FINETUNE)
    with pytest.raises(InputError) as caught:
        check_space("next", TunedCell(base=base, space=broken), 0)
    line = broken.__code__.co_firstlineno + 4
    assert str(caught.value).startswith("cell next, dropout=0.1")
    assert f"the space raises KeyError: 'smal' ({__file__}, line {line})" in str(caught.value)
    with pytest.raises(InputError) as caught:
        check_space("next", TunedCell(base=base, space=without_trial), 0)  # type: ignore[arg-type]
    assert "the space raises TypeError: without_trial() takes 0" in str(caught.value)
    line = without_trial.__code__.co_firstlineno
    assert f"({__file__}, line {line})" in str(caught.value)
