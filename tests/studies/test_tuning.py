"""Tunings: equal trials for every cell, chosen by validation alone, continued as if unbroken."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.popularity import popularity
from research.cli.listing import of_runs
from research.data.corpus import Corpus
from research.data.splits import LeaveOneOut, UserHoldout
from research.errors import InputError
from research.overrides import replace_fields
from research.report.tuning import tuning_of as tuning_part
from research.runs.config import RunConfig
from research.runs.execute import RunOptions
from research.runs.parts import RunParts
from research.storage.records import RunSummary, StudyRecord, read_record
from research.storage.run_folder import FolderLocked, lock_folder
from research.studies import job as job_module
from research.studies import optuna_studies
from research.studies import tune as tune_module
from research.studies.cells import Changes
from research.studies.optuna_studies import (
    JOURNAL,
)
from research.studies.search import (
    ASHA,
    TPE,
    MedianPruner,
    PrunerConfig,
    RandomSearch,
    SamplerConfig,
)
from research.studies.space import Trial, TunedCell
from research.studies.tuning import Tuning, shortened
from tests.support.command_line import command_error, files_of, run_command, snapshot_of
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of, corpus_in
from tests.support.tunings import done, journal_states, refusal, space, trials_in, tuning_of

pytest.importorskip("optuna")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("tuning") / "films")


# What a tuning does


@pytest.mark.long
def test_every_cell_has_as_many_trials_and_only_the_winners_are_tested(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[tuple[str, int]] = []
    real = RunParts.tables

    def tables(self: RunParts, ranker: object, part: str, sets: object = None) -> object:
        ranked.append((part, self.config.seed))
        return real(self, ranker, part, sets)  # type: ignore[arg-type]

    monkeypatch.setattr(RunParts, "tables", tables)
    tuning = tuning_of(corpus, trials=2)
    cells = {**tuning.cells, "other": tuning.cells["next"]}
    outcome = done(replace(tuning, cells=cells), tmp_path)
    trials_of_cells = {cell.cell: len(cell.trials) for cell in outcome.record.cells}
    assert trials_of_cells == {"next": 2, "other": 2}
    # Popularity is ranked with seed 1 alone.
    assert {seed for part, seed in ranked if part == "test"} == {1, 2}
    trials = tmp_path / "mine-trials" / "films"
    assert sorted(str(path.relative_to(trials)) for path in trials.glob("*/*")) == [
        f"{cell}-{number}/0" for cell in ("next", "other") for number in range(2)
    ]
    assert not list(trials.rglob("test-*.npz"))
    assert sorted(
        str(path.relative_to(tmp_path / "mine" / "films"))
        for path in (tmp_path / "mine" / "films").glob("*/*")
    ) == ["next/1", "next/2", "other/1", "other/2", "popularity/1"]
    assert all(read_record(path, RunSummary).test for path in (tmp_path / "mine").glob("*/*/*"))  # type: ignore[union-attr]


@pytest.mark.long
def test_the_winner_is_the_best_on_validation_and_its_values_are_run(
    corpus: Corpus, tmp_path: Path
) -> None:
    outcome = done(tuning_of(corpus, trials=4), tmp_path)
    folders = [tmp_path / "mine-trials" / "films" / f"next-{number}" / "0" for number in range(4)]
    values = [json.loads((folder / "summary.json").read_text())["val"]["mrr"] for folder in folders]
    (cell,) = trials_in(tmp_path)
    assert [trial["value"] for trial in cell["trials"]] == values
    best = values.index(max(values))
    winner = outcome.record.cells[0].winner
    assert winner is not None
    assert winner.number == best
    trial = json.loads((folders[best] / "config.json").read_text())["config"]
    for seed in ("1", "2"):
        run = json.loads((tmp_path / "mine" / "films" / "next" / seed / "config.json").read_text())
        assert run["config"]["stages"] == trial["stages"]
        assert (run["config"]["seed"], trial["seed"]) == (int(seed), 0)
    assert trial["stages"][0]["optimizer"]["lr"] == winner.parameters["lr"]


@pytest.mark.long
def test_every_corpus_has_winners_of_its_own(corpus: Corpus, tmp_path: Path) -> None:
    other = corpus_in(tmp_path / "others", seed=3)
    corpora = (str(corpus.folder), str(other.folder))
    outcome = done(tuning_of(corpus, corpora=corpora, sampler=RandomSearch(), trials=5), tmp_path)
    rates = {}
    for cell in outcome.record.cells:
        assert cell.winner is not None
        run = tmp_path / "mine" / cell.corpus / "next" / "1" / "config.json"
        rates[cell.corpus] = json.loads(run.read_text())["config"]["stages"][0]["optimizer"]["lr"]
        assert rates[cell.corpus] == cell.winner.parameters["lr"]
    assert list(rates) == ["films", "others"]
    first, second = (
        [trial.parameters["lr"] for trial in cell.trials] for cell in outcome.record.cells
    )
    assert first == second


@pytest.mark.long
def test_a_corpus_that_is_added_leaves_the_one_before_in_all_records(
    corpus: Corpus, tmp_path: Path
) -> None:
    other = corpus_in(tmp_path / "others", seed=3)
    tuning = tuning_of(corpus, sampler=RandomSearch(), trials=5)
    done(tuning, tmp_path)
    record = read_record(tmp_path / "mine", StudyRecord)
    assert record is not None
    added = replace(tuning, corpora=(str(other.folder),))
    refused = refusal(replace(added, seed=6), tmp_path)
    assert "seed was 0 on films and is 6; set it to 0 again" in refused
    done(added, tmp_path)
    assert [cell["corpus"] for cell in trials_in(tmp_path)] == ["films", "others"]
    both = read_record(tmp_path / "mine", StudyRecord)
    assert both is not None
    assert both.runs["films"] == record.runs["films"]
    assert list(both.runs["others"]) == ["popularity", "next"]
    assert both.changes["next"]["stages.0.optimizer.lr"][1] == "tuned"
    # The other corpus's winner has other values, and its tests are known still.
    assert both.corpus_marks["films"] != both.corpus_marks["others"]
    assert "more trials would choose" in refusal(replace(tuning, trials=6), tmp_path)


@pytest.mark.long
def test_a_second_call_repeats_nothing(corpus: Corpus, tmp_path: Path) -> None:
    tuning = tuning_of(corpus)
    done(tuning, tmp_path)
    before = snapshot_of(tmp_path)
    done(tuning, tmp_path)
    assert snapshot_of(tmp_path) == before


@pytest.mark.long
def test_a_counting_ranker_can_be_tuned(corpus: Corpus, tmp_path: Path) -> None:
    base = replace(popularity(), corpus=str(corpus.folder))
    cell = TunedCell(
        base=base,
        space=lambda trial: {"ranker.newest_share": trial.uniform("share", 0.1, 1.0)},
    )
    outcome = done(tuning_of(corpus, cells={"popularity": cell}), tmp_path)
    assert [trial.state for trial in outcome.record.cells[0].trials] == ["complete"] * 3


@pytest.mark.long
def test_trials_share_a_pretraining_that_their_values_do_not_change(
    corpus: Corpus, tmp_path: Path
) -> None:
    base = config_of(corpus, PRETRAIN, FINETUNE)
    cell = TunedCell(
        base=base,
        space=lambda trial: {"stages.1.optimizer.lr": trial.log_uniform("lr", 1e-3, 1e-1)},
    )
    done(tuning_of(corpus, cells={"popularity": popularity(), "next": cell}), tmp_path)
    for number in (1, 2):
        folder = tmp_path / "mine-trials" / "films" / f"next-{number}" / "0"
        assert json.loads((folder / "summary.json").read_text())["shared"] == {
            "pretrain": "../../next-0/0"
        }


def test_a_trial_has_its_share_of_every_limit() -> None:
    stage = replace(FINETUNE, epochs=7, steps=100, tokens=1, seconds=9.0)
    short = shortened(stage, 1 / 3)
    assert (short.epochs, short.steps, short.tokens, short.seconds) == (2, 33, 1, 3.0)
    assert replace(short, epochs=7, steps=100, tokens=1, seconds=9.0) == stage
    unlimited = replace(FINETUNE, epochs=None, steps=1)
    assert shortened(unlimited, 0.1) == unlimited


@pytest.mark.long
def test_trials_may_be_shorter_than_winners_and_begin_with_given_values(
    corpus: Corpus, tmp_path: Path
) -> None:
    cells = tuning_of(corpus).cells
    tuned = cells["next"]
    assert isinstance(tuned, TunedCell)
    base = replace_fields(tuned.base, {"stages.0.epochs": 4})
    tuned = replace(tuned, base=base, first=({"lr": 0.0123}, {"lr": 0.0045}))
    tuning = tuning_of(corpus, cells={**cells, "next": tuned}, trial_length=0.5)
    done(tuning, tmp_path)
    (cell,) = trials_in(tmp_path)
    rates = [trial["parameters"]["lr"] for trial in cell["trials"]]
    assert rates[:2] == [0.0123, 0.0045]
    assert len(set(rates)) == len(rates)
    trial = tmp_path / "mine-trials" / "films" / "next-0" / "0" / "config.json"
    winner = tmp_path / "mine" / "films" / "next" / "1" / "config.json"
    assert [
        json.loads(path.read_text())["config"]["stages"][0]["epochs"] for path in (trial, winner)
    ] == [2, 4]
    part = tuning_part(tmp_path / "mine", tuple(tuning.cells))
    assert part is not None
    assert "had 3 trials on each corpus, each 50 % as long as a winner, drawn by" in part.sentence
    changed = replace(tuning, cells={**cells, "next": replace(tuned, first={"lr": 0.02})})
    assert "first was [{lr=0.0123}, {lr=0.0045}] and is {lr=0.02}" in refusal(changed, tmp_path)


@pytest.mark.long
def test_a_pruned_trial_is_shown_as_one(corpus: Corpus, tmp_path: Path, capsys: Capture) -> None:
    # With so high a factor a trial goes on only while it is the best so far.
    cell = TunedCell(
        base=config_of(corpus, replace(FINETUNE, epochs=3)),
        space=lambda trial: {"stages.0.optimizer.lr": trial.log_uniform("lr", 1e-4, 1e-1)},
    )
    tuning = tuning_of(
        corpus,
        cells={"popularity": popularity(), "next": cell},
        sampler=RandomSearch(),
        pruner=ASHA(factor=4),
        trials=5,
    )
    outcome = done(tuning, tmp_path, RunOptions())
    trials = outcome.record.cells[0].trials
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    number, value = pruned[0].number, pruned[0].value
    assert (
        f"trial {number}: mrr {value:.4f}, pruned after epoch 1; best " in capsys.readouterr().out
    )
    folder = tmp_path / "mine-trials" / "films" / f"next-{number}" / "0"
    assert not (folder / "summary.json").exists()
    (facts,) = of_runs(folder)
    assert (facts["state"], facts["problem"]) == ("pruned", "after epoch 1")
    shown = run_command(capsys, "show", folder)
    assert "a trial that was ended early, after epoch 1 of its last stage" in shown.out
    assert outcome.record.cells[0].winner not in pruned


# Interruptions


class Interrupter:
    """Raises `KeyboardInterrupt` in place of the n-th validation of trials, counted over calls."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *given: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupted(
    tuning: Tuning, out: Path, at: int, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> None:
    """Begin or continue a tuning, which ends before its `at`-th validation from now."""
    tick, real = Interrupter(at), RunParts.tables

    def tables(self: RunParts, *given: object, **named: object) -> object:
        tick()
        return real(self, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(RunParts, "tables", tables)
        with pytest.raises(KeyboardInterrupt):
            done(tuning, out, **changes)


@pytest.mark.parametrize("sampler", [TPE(startup_trials=2), RandomSearch()], ids=["tpe", "random"])
@pytest.mark.parametrize(
    "pruner",
    [None, MedianPruner(startup_trials=1), ASHA(factor=2)],
    ids=["unpruned", "median", "asha"],
)
@pytest.mark.long
def test_a_tuning_that_is_interrupted_twice_has_the_trials_of_one_that_is_not(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: SamplerConfig,
    pruner: PrunerConfig | None,
) -> None:
    tuning = tuning_of(corpus, sampler=sampler, pruner=pruner, trials=6)
    done(tuning, tmp_path / "whole")
    interrupted(tuning, tmp_path / "broken", 3, monkeypatch)
    assert journal_states(tmp_path / "broken")[-1] == "RUNNING"
    interrupted(tuning, tmp_path / "broken", 5, monkeypatch)
    done(tuning, tmp_path / "broken")
    assert trials_in(tmp_path / "broken") == trials_in(tmp_path / "whole")
    figures = [
        {
            name: json.loads(content)["test"]
            for name, content in files_of(tmp_path / which / "mine").items()
            if name.endswith("summary.json")
        }
        for which in ("whole", "broken")
    ]
    assert figures[0] == figures[1]


@pytest.mark.long
def test_a_trial_that_was_running_is_continued_with_its_values(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    tuning = tuning_of(corpus, sampler=RandomSearch())
    # Trial 0 validates three times and is ranked once more, so this is in the middle of trial 1.
    interrupted(tuning, tmp_path, 6, monkeypatch)
    config = tmp_path / "mine-trials" / "films" / "next-1" / "0" / "config.json"
    before = json.loads(config.read_text())["config"]
    assert journal_states(tmp_path) == ["COMPLETE", "RUNNING"]
    capsys.readouterr()
    done(tuning, tmp_path, RunOptions())
    said = capsys.readouterr().out
    assert "— films / next / trial 1  (1 of 2" in said
    assert "finetune: continues at step" in said
    assert json.loads(config.read_text())["config"] == before
    assert journal_states(tmp_path) == ["COMPLETE"] * 3


@pytest.mark.long
def test_a_trial_that_ended_unrecorded_is_recorded_and_not_done_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = tuning_of(corpus)
    with monkeypatch.context() as patched:

        def end(*given: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(optuna_studies.StoredTrials, "end", end)
        with pytest.raises(KeyboardInterrupt):
            done(tuning, tmp_path)
    assert journal_states(tmp_path) == ["RUNNING"]
    before = snapshot_of(tmp_path / "mine-trials" / "films" / "next-0" / "0")
    done(tuning, tmp_path)
    assert snapshot_of(tmp_path / "mine-trials" / "films" / "next-0" / "0") == before
    assert journal_states(tmp_path) == ["COMPLETE"] * 3


@pytest.mark.long
@pytest.mark.parametrize("at_once", [1, 2])
def test_the_number_of_workers_changes_no_trial(
    corpus: Corpus, tmp_path: Path, at_once: int
) -> None:
    tuning = tuning_of(
        corpus, at_once=at_once, trials=6, pruner=MedianPruner(startup_trials=1, startup_epochs=0)
    )
    for workers in (1, 3):
        done(tuning, tmp_path / str(workers), workers=workers, threads=1)
    assert trials_in(tmp_path / "1") == trials_in(tmp_path / "3")


@pytest.mark.long
def test_a_cut_line_and_a_lock_that_a_kill_left_behind_are_no_obstacle(
    corpus: Corpus, tmp_path: Path
) -> None:
    tuning = tuning_of(corpus, trials=2)
    done(tuning, tmp_path)
    trials = trials_in(tmp_path)
    journal = tmp_path / "mine-trials" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 6, "worker')
    journal.with_name(f"{JOURNAL}.lock").symlink_to(journal)
    done(tuning, tmp_path)
    assert trials_in(tmp_path) == trials
    assert journal.read_bytes() == whole


@pytest.mark.long
def test_without_its_journal_a_tuning_draws_the_same_again_and_repeats_no_run(
    corpus: Corpus, tmp_path: Path
) -> None:
    tuning = tuning_of(corpus)
    done(tuning, tmp_path)
    trials = trials_in(tmp_path)
    journal = tmp_path / "mine-trials" / JOURNAL
    journal.write_bytes(b"{}\n" + journal.read_bytes())
    message = refusal(tuning, tmp_path)
    assert message.startswith(f"{journal} is damaged (KeyError")
    assert "remove it, and the same command draws the same trials again" in message
    for run in (tmp_path / "mine" / "films").iterdir():
        run.rename(tmp_path / f"kept-{run.name}")
    journal.unlink()
    before = snapshot_of(tmp_path / "mine-trials" / "films")
    done(tuning, tmp_path)
    assert snapshot_of(tmp_path / "mine-trials" / "films") == before
    assert trials_in(tmp_path) == trials


def test_a_tuning_that_another_process_is_doing_is_left_alone(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_module, "lock_folder", lambda folder: lock_folder(folder, 0.1))
    (tmp_path / "mine-trials").mkdir()
    lock = lock_folder(tmp_path / "mine-trials")
    with pytest.raises(FolderLocked):
        done(tuning_of(corpus), tmp_path)
    assert lock is not None


# Failures


def wild(trial: Trial) -> Changes:
    """A rate of which some diverge."""
    high = trial.choice("high", ("no", "yes")) == "yes"
    return {"stages.0.optimizer.lr": 1e30 if high else 0.01}


@pytest.mark.long
def test_a_trial_that_diverges_is_recorded_and_the_rest_goes_on(
    corpus: Corpus, tmp_path: Path, capsys: Capture
) -> None:
    cell = TunedCell(base=config_of(corpus, FINETUNE), space=wild)
    tuning = tuning_of(
        corpus, cells={"popularity": popularity(), "next": cell}, sampler=RandomSearch(), trials=4
    )
    outcome = done(tuning, tmp_path, RunOptions())
    trials = outcome.record.cells[0].trials
    assert {trial.parameters["high"]: trial.state for trial in trials} == {
        "no": "complete", "yes": "failed"
    }  # fmt: skip
    failed = next(trial for trial in trials if trial.state == "failed")
    assert failed.value is None
    assert failed.error is not None
    assert failed.error.startswith("FloatingPointError: ")
    assert f"films / next / trial {failed.number}: failed: FloatingPoi" in capsys.readouterr().out
    assert journal_states(tmp_path).count("FAIL") == outcome.record.cells[0].count("failed")


@pytest.mark.long
def test_a_cell_without_a_complete_trial_has_no_winner(corpus: Corpus, tmp_path: Path) -> None:
    cell = TunedCell(
        base=config_of(corpus, FINETUNE),
        space=lambda trial: {"stages.0.optimizer.lr": trial.uniform("lr", 1e30, 2e30)},
    )
    tuning = tuning_of(corpus, cells={"popularity": popularity(), "next": cell}, trials=2)
    assert refusal(tuning, tmp_path).startswith(
        "none of the 2 trials of cell next on films is complete (2 failed, the first with: Floating"
    )
    assert not list((tmp_path / "mine").glob("*/*/*"))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "tuning mine: trials is 0; it must be at least 1"),
        ({"at_once": 0}, "tuning mine: at_once is 0; it must be at least 1"),
        ({"trial_length": 0.0}, "tuning mine: trial_length is 0.0; it must be above 0 and at most"),
        ({"trial_length": 1.5}, "tuning mine: trial_length is 1.5"),
        ({"metric": "auc"}, "tuning mine: metric"),
        ({"seed": 2}, "fresh_seeds has 2, the seed of the trials"),
        ({"base": "none"}, "study mine: base is 'none'; cells: popularity, next"),
        ({"cells": {"popularity": popularity()}}, "no cell has a space"),
        ({"corpora": ()}, "corpora, seeds and metrics need at least one entry each"),
        ({"fresh_seeds": ()}, "corpora, seeds and metrics need at least one entry each"),
        ({"sampler": "tpe"}, "Tuning.sampler is 'tpe'; allowed: RandomSearch | TPE"),
        ({"pruner": "asha"}, "Tuning.pruner is 'asha'"),
    ],
)
def test_a_tuning_that_is_none_is_refused(
    corpus: Corpus, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        tuning_of(corpus, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TPE(startup_trials=0), "TPE.startup_trials is 0; it must be at least 1"),
        (lambda: MedianPruner(startup_trials=0), "MedianPruner.startup_trials is 0"),
        (lambda: ASHA(first_epoch=0), "ASHA.first_epoch is 0"),
        (lambda: ASHA(factor=1), "ASHA.factor is 1; it must be at least 2"),
    ],
)
def test_a_way_of_searching_that_is_none_is_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert message in str(caught.value)


def cell_of(corpus: Corpus, **changes: Any) -> Mapping[str, RunConfig | TunedCell]:
    base = replace(config_of(corpus, FINETUNE), **changes)
    return {"popularity": popularity(), "next": TunedCell(base=base, space=space)}


def test_trials_that_validation_cannot_tell_apart_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    unvalidated = (replace(FINETUNE, validation=None),)
    split: object = UserHoldout(validation_share=0.0, test_share=0.4)
    cells = cell_of(corpus, stages=unvalidated, split=split)
    assert "its split holds nothing out for validation" in refusal(
        tuning_of(corpus, cells=cells), tmp_path
    )
    cells = cell_of(corpus, stages=unvalidated, split=LeaveOneOut(validation_in_training=True))
    assert "puts the validation items into the training rows" in refusal(
        tuning_of(corpus, cells=cells), tmp_path
    )
    cells = cell_of(corpus, stages=unvalidated)
    assert "the last stage, finetune, has no validation, by whose curve" in refusal(
        tuning_of(corpus, cells=cells, pruner=ASHA()), tmp_path
    )
    assert not list(tmp_path.iterdir())


def test_a_space_is_checked_before_anything_is_written(corpus: Corpus, tmp_path: Path) -> None:
    cell = TunedCell(
        base=config_of(corpus, FINETUNE),
        space=lambda trial: {"encoder.layer": trial.integer("layers", 1, 2)},
    )
    tuning = tuning_of(corpus, cells={"popularity": popularity(), "next": cell})
    assert "cell next, layers=" in refusal(tuning, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": RandomSearch()}, "sampler was TPE(startup_trials=2) and is RandomSearch()"),
        ({"pruner": ASHA()}, "pruner was none and is ASHA()"),
        ({"metric": "hr@3"}, "metric was mrr and is hr@3"),
        ({"at_once": 2}, "at_once was 1 and is 2"),
        ({"seed": 7}, "seed was 0 and is 7"),
    ],
)
def test_trials_of_another_tuning_in_the_folder_are_refused(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    message: str,
) -> None:
    interrupted(tuning_of(corpus), tmp_path, 2, monkeypatch)
    said = refusal(tuning_of(corpus, **changes), tmp_path)
    assert f"has the trials of another tuning of films/next: {message}" in said


def test_another_base_and_another_space_are_refused(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tuning_of(corpus), tmp_path, 2, monkeypatch)
    cells = cell_of(corpus, stages=(replace(FINETUNE, epochs=5),))
    assert "another tuning of films/next: base was" in refusal(
        tuning_of(corpus, cells=cells), tmp_path
    )

    def wider(trial: Trial) -> Changes:
        changes = dict(space(trial))
        return {**changes, "encoder.dropout": trial.uniform("dropout", 0.0, 0.5)}

    tuning = tuning_of(corpus)
    base = tuning.tuned_cells["next"].base
    cells = {**tuning.cells, "next": TunedCell(base=base, space=wider)}
    said = refusal(replace(tuning, cells=cells), tmp_path)
    assert "the space asks for 'dropout'" in said
    assert "undo its change, or give the tuning another name" in said


@pytest.mark.long
def test_no_trial_is_added_once_the_winners_were_tested(corpus: Corpus, tmp_path: Path) -> None:
    done(tuning_of(corpus), tmp_path)
    before = snapshot_of(tmp_path)
    assert "more trials would choose with their test in sight" in refusal(
        tuning_of(corpus, trials=4), tmp_path
    )
    assert "has 3 trials of cell next on films, and trials is 2" in refusal(
        tuning_of(corpus, trials=2), tmp_path
    )
    assert snapshot_of(tmp_path) == before


@pytest.mark.long
def test_more_trials_may_be_added_before(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tuning_of(corpus), tmp_path / "longer", 6, monkeypatch)
    done(tuning_of(corpus, trials=4), tmp_path / "longer")
    done(tuning_of(corpus, trials=4), tmp_path / "four")
    assert trials_in(tmp_path / "longer") == trials_in(tmp_path / "four")


def test_a_launcher_and_too_few_workers_are_refused(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(tuning_of(corpus), tmp_path, workers=0).startswith("--workers is 0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "leave the launcher out" in refusal(tuning_of(corpus), tmp_path)


# The command line


MINE = """
from dataclasses import replace
from pathlib import Path
from baselines.popularity import popularity
from research.runs.config import RunConfig
from research.studies.search import RandomSearch
from research.studies.space import Trial, TunedCell
from research.studies.tuning import Tuning, shortened
from tests.support.small_runs import ENCODER, FINETUNE

CORPUS = {corpus!r}

def space(trial):
    return {{"stages.0.optimizer.lr": trial.log_uniform("lr", 1e-4, 1e-1)}}

def tuning() -> Tuning:
    base = RunConfig(corpus=CORPUS, encoder=ENCODER, stages=(FINETUNE,))
    return Tuning(
        name="rates", question="Which rate?", base="popularity", corpora=(CORPUS,), trials=5,
        cells={{"popularity": popularity(), "next": TunedCell(base=base, space=space)}},
        metric="mrr", fresh_seeds=(1, 2), sampler=RandomSearch(),
        next_commands=("show {{runs}}/rates",),
    )
"""


@pytest.fixture
def mine(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a tuning, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_rates.py").write_text(MINE.format(corpus=str(corpus.folder)))
    monkeypatch.delitem(sys.modules, "own_rates", raising=False)
    return "own_rates"


@pytest.mark.long
def test_the_command_does_a_tuning_and_tells_it(mine: str, tmp_path: Path, capsys: Capture) -> None:
    planned = run_command(capsys, "tune", mine, "--plan")
    assert planned.code == 0
    assert "next" in planned.out
    assert not (tmp_path / "runs").exists()
    answer = run_command(capsys, "tune", mine, "--no-probe")
    assert (answer.code, answer.err) == (0, "")
    assert "5 trials of each cell, drawn at random; pruned: none" in answer.out
    assert "Each tuned cell had 5 trials on each corpus" in answer.out
    assert "best value: 0." in answer.out
    assert "importance: lr 100 %" in answer.out
    assert "to try next:" in answer.out
    report = run_command(capsys, "report", "rates")
    assert report.code == 0
    page = (tmp_path / "runs" / "rates" / "report.html").read_text()
    assert "How the cells were tuned" in page
    assert "Best validation MRR after n trials" in page
    assert run_command(capsys, "tune", mine, "--plan").code == 0


def test_the_command_names_what_it_was_meant_for(mine: str, capsys: Capture) -> None:
    assert "type `sixfold tune own_rates`" in command_error(capsys, "study", mine)
    assert "type `sixfold study experiments.quickstart`" in command_error(
        capsys, "tune", "experiments.quickstart"
    )
    assert "it must be at least 1" in command_error(capsys, "tune", mine, "--trials", 0)
    assert "no verb 'optuna'; type `sixfold tune`" in run_command(capsys, "optuna").err


@pytest.mark.long
def test_a_failed_trial_is_told_and_changes_no_exit_code(
    mine: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job_module.execute

    def execute(config: RunConfig, folder: Path, **named: object) -> object:
        if folder.parts[-3:] == ("films", "next-2", "0") and "rates-trials" in folder.parts:
            raise FloatingPointError("the loss is nan")
        return real(config, folder, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(job_module, "execute", execute)
    answer = run_command(capsys, "tune", mine, "--no-probe", "--quiet")
    assert answer.code == 0
    assert answer.err == ("failed: films / next / trial 2: FloatingPointError: the loss is nan\n")
