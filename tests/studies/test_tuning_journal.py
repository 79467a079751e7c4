"""A tuning whose journal is lost or damaged, or whose winners were tested: what may still be done.

No trial is trained on a corpus whose test has been seen, and whatever a message advises is not
refused afterwards.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.storage.tuning_records import TuningRecord
from research.studies.changes import Changes
from research.studies.optuna_studies import JOURNAL
from research.studies.search import ASHA, RandomSearch
from research.studies.space import Trial, TunedCell
from tests.support.command_line import snapshot_of
from tests.support.marks import long_case
from tests.support.small_runs import FINETUNE, config_of, corpus_in
from tests.support.tunings import done, journal_states, refusal, space, trials_in, tuning_of

pytest.importorskip("optuna")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("journal") / "films")


@pytest.fixture(scope="module")
def tested_once(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a tuning whose winners have been tested."""
    out = tmp_path_factory.mktemp("tested")
    done(tuning_of(corpus), out)
    return out


@pytest.fixture
def tested(tested_once: Path, tmp_path: Path) -> Path:
    """A copy of those runs."""
    return shutil.copytree(tested_once, tmp_path / "runs")


def runs_in(out: Path) -> list[dict[str, tuple[int, bytes]]]:
    """All files of trials and of winners' runs on the corpus, with their times and contents."""
    return [snapshot_of(out / name / "films") for name in ("mine-trials", "mine")]


def journal_of(out: Path) -> Path:
    return out / "mine-trials" / JOURNAL


@pytest.mark.long
def test_the_remedy_for_a_damaged_journal_works_after_the_test_too(
    corpus: Corpus, tested: Path
) -> None:
    trials, journal = trials_in(tested), journal_of(tested)
    journal.write_bytes(b"{}\n" + journal.read_bytes())
    for plan_only in (True, False):
        message = refusal(tuning_of(corpus), tested, plan_only=plan_only)
        assert message.startswith(f"{journal} is damaged (KeyError")
        assert "remove it, and the same command draws the same trials again" in message
    journal.unlink()
    before = runs_in(tested)
    done(tuning_of(corpus), tested)
    assert runs_in(tested) == before
    assert trials_in(tested) == trials
    assert journal_states(tested) == ["COMPLETE"] * 3


@pytest.mark.long
def test_pruned_and_failed_trials_are_recorded_again_too(corpus: Corpus, tmp_path: Path) -> None:
    def some_diverge(trial: Trial) -> Changes:
        diverges = trial.choice("diverges", ("no", "no, too", "yes")) == "yes"
        rate = trial.log_uniform("lr", 1e-4, 1e-1)
        return {"stages.0.optimizer.lr": 1e30 if diverges else rate}

    base = config_of(corpus, replace(FINETUNE, epochs=3))
    cells = {"popularity": popularity(), "next": TunedCell(base=base, space=some_diverge)}
    tuning = tuning_of(corpus, cells=cells, sampler=RandomSearch(), pruner=ASHA(factor=4), trials=7)
    done(tuning, tmp_path)
    states = journal_states(tmp_path)
    assert set(states) == {"COMPLETE", "PRUNED", "FAIL"}
    trials = trials_in(tmp_path)
    journal_of(tmp_path).unlink()
    before = runs_in(tmp_path)
    done(tuning, tmp_path)
    assert runs_in(tmp_path) == before
    assert (journal_states(tmp_path), trials_in(tmp_path)) == (states, trials)


def test_a_trial_that_is_lost_with_its_journal_is_not_trained_after_the_test(
    corpus: Corpus, tested: Path
) -> None:
    journal_of(tested).unlink()
    lost = tested / "mine-trials" / "films" / "next-1" / "0"
    shutil.rmtree(lost)
    before = snapshot_of(tested / "mine-trials" / "films")
    for plan_only in (True, False):
        message = refusal(tuning_of(corpus), tested, plan_only=plan_only)
        assert message.startswith("the winners of tuning mine on films have been tested (")
        assert "trial 1 of cell next has not been done there" in message
        assert f"neither the journal nor {lost} has how it ended" in message
        assert message.endswith("give the tuning another name")
    assert snapshot_of(tested / "mine-trials" / "films") == before


def test_a_changed_space_does_not_enter_a_journal_that_is_rebuilt(
    corpus: Corpus, tested: Path
) -> None:
    tuning = tuning_of(corpus)
    base = tuning.tuned_cells["next"].base

    def moved(trial: Trial) -> Changes:
        return {**space(trial), "encoder.dropout": trial.uniform("dropout", 0.1, 0.2)}

    changed = replace(tuning, cells={**tuning.cells, "next": TunedCell(base=base, space=moved)})
    journal_of(tested).unlink()
    for plan_only in (True, False):
        message = refusal(changed, tested, plan_only=plan_only)
        assert "next-0/0 holds another run (encoder.dropout" in message
        assert "undo the change, or give the tuning another name or --runs" in message
        assert "remove" not in message
    # What the message advises works.
    trials = trials_in(tested)
    done(tuning, tested)
    assert trials_in(tested) == trials


def test_no_trial_and_no_cell_is_added_once_the_winners_were_tested(
    corpus: Corpus, tested: Path
) -> None:
    before = runs_in(tested)
    for plan_only in (True, False):
        message = refusal(tuning_of(corpus, trials=4), tested, plan_only=plan_only)
        assert "more trials would choose with their test in sight; set trials to 3 again" in message
        assert "has 3 trials of cell next on films, and trials is 2" in refusal(
            tuning_of(corpus, trials=2), tested, plan_only=plan_only
        )
        tuning = tuning_of(corpus)
        cells = {**tuning.cells, "other": tuning.cells["next"]}
        message = refusal(replace(tuning, cells=cells), tested, plan_only=plan_only)
        assert "trial 0 of cell other has not been done there" in message
        assert "leave that cell out, or give the tuning another name" in message
    assert runs_in(tested) == before
    done(tuning_of(corpus), tested)


@pytest.mark.long
def test_another_corpus_is_another_search_and_may_be_added(
    corpus: Corpus, tested: Path, tmp_path: Path
) -> None:
    other = corpus_in(tmp_path / "others", seed=3)
    corpora = (str(corpus.folder), str(other.folder))
    before = runs_in(tested)
    (first,) = trials_in(tested)
    assert "set trials to 3 again" in refusal(tuning_of(corpus, corpora=corpora, trials=4), tested)
    done(tuning_of(corpus, corpora=corpora), tested)
    assert runs_in(tested) == before
    cells = trials_in(tested)
    assert cells[0] == first
    counts = [(cell["corpus"], len(cell["trials"])) for cell in cells]
    assert counts == [("films", 3), ("others", 3)]
    summaries = sorted(tested.glob("mine/others/*/*/summary.json"))
    assert [path.parent.parent.name for path in summaries] == ["next", "next", "popularity"]
    assert "set trials to 3 again" in refusal(
        tuning_of(corpus, corpora=corpora[1:], trials=4), tested
    )


# A journal of JSON that is not Optuna's


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("values", []),
        long_case("values", [0.1, 0.2]),
        long_case("values", [None]),
        long_case("values", ["0.5"]),
        long_case("values", [float("nan")]),
        long_case("values", None),
        ("state", 9),
        long_case("trial_id", [0]),
        ("op_code", 77),
    ],
)
def test_a_trial_whose_end_was_changed_is_refused_by_name(
    corpus: Corpus, tested: Path, field: str, value: object
) -> None:
    journal = journal_of(tested)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    end = next(line for line in lines if line["op_code"] == 6)
    end[field] = value
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for plan_only in (True, False):
        message = refusal(tuning_of(corpus), tested, plan_only=plan_only)
        assert message.startswith(f"{journal} is damaged (")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("params", {"lr": 1e9, "loss": 0}),
        ("params", {}),
        long_case("params", {"lr": "fast", "loss": 0}),
        ("distributions", {}),
        long_case("distributions", {"lr": "{}"}),
        long_case("intermediate_values", {"9": "high"}),
        long_case("study_id", {"a": 1}),
    ],
)
def test_a_trial_whose_draws_were_changed_is_refused_by_name(
    corpus: Corpus, tested: Path, field: str, value: object
) -> None:
    journal = journal_of(tested)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    begin = next(line for line in lines if line["op_code"] == 4)
    begin[field] = value
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert refusal(tuning_of(corpus), tested).startswith(f"{journal} is damaged (")


def test_a_journal_that_is_a_folder_or_a_pipe_is_refused(corpus: Corpus, tested: Path) -> None:
    journal = journal_of(tested)
    journal.unlink()
    journal.mkdir()
    assert "it is no file" in refusal(tuning_of(corpus), tested)


# The plan


def test_a_plan_writes_nothing_and_says_what_is_left(
    corpus: Corpus, tested: Path, tmp_path: Path, capsys: Capture
) -> None:
    done(tuning_of(corpus), tmp_path / "new", plan_only=True)
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().out.split("\n")[-2].split() == [
        "films",
        "next",
        "3",
        "0",
        "0",
        "0",
        "3",
    ]
    journal_of(tested).write_bytes(journal_of(tested).read_bytes() + b'{"op_code": 6, "worker')
    before = snapshot_of(tested)
    done(tuning_of(corpus), tested, plan_only=True)
    assert snapshot_of(tested) == before
    said = capsys.readouterr().out
    assert "films   next       3         3       0       0      0" in said
    # Then the runs of the winners are planned.
    assert "films   popularity     1         1       0      0" in said
    (tested / "mine" / TuningRecord.FILE).unlink()
    journal_of(tested).unlink()
    done(tuning_of(corpus), tested, plan_only=True)
    assert "films   next       3         3       0       0      0" in capsys.readouterr().out
    assert not journal_of(tested).exists()


def test_a_plan_refuses_what_the_tuning_would_refuse(corpus: Corpus, tested: Path) -> None:
    assert "sampler was TPE(startup_trials=2) and is RandomSearch()" in refusal(
        tuning_of(corpus, sampler=RandomSearch()), tested, plan_only=True
    )
    # A winner whose run was another one's.
    config = tested / "mine" / "films" / "next" / "1" / "config.json"
    config.write_text(config.read_text().replace('"hash": "', '"hash": "0'))
    assert "holds another run" in refusal(tuning_of(corpus), tested, plan_only=True)
