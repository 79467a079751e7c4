"""The audit of a run finds every planted fault of its config and results, and checks its corpus."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.config import to_json
from research.data.corpus import Corpus
from research.data.findings import Finding
from research.data.splits import GlobalTemporal, LeaveOneOut
from research.errors import InputError
from research.evaluation import candidates as candidate_sets
from research.model.transformer_config import TransformerConfig
from research.objectives.next_item import NextItemConfig
from research.runs.audit import audit_run, candidate_file
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.run_hash import record_of
from research.storage.evaluation_records import FloorRecord
from research.storage.records import (
    ExtensionRecord,
    ImportRecord,
    RunRecord,
    RunSummary,
    read_record,
    write_record,
)
from research.training.config import StageConfig, ValidationConfig
from tests.support.synthetic import write_histories

USERS, LENGTH = 12, 5
HISTORIES = [[(user + place) % USERS for place in range(LENGTH)] for user in range(USERS)]
TIMES = [[1000 + 100 * place + user for place in range(LENGTH)] for user in range(USERS)]
ENCODER = TransformerConfig(length=5, width=4, layers=1, heads=2, feed_forward=8)
STAGE = StageConfig(
    objectives={"next": NextItemConfig()}, epochs=1, validation=ValidationConfig(metric="mrr")
)
ABOVE = FloorRecord(test={}, candidates="full", metric="mrr", difference=0.2, low=0.1, high=0.3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("audit") / "corpus"
    return write_histories(folder, HISTORIES, num_items=USERS, timestamps=TIMES)


@pytest.fixture(scope="module")
def finished(corpus: Corpus) -> Path:
    """A finished run that is above popularity, which one epoch on twelve users does not give."""
    folder = corpus.folder.parent / "run"
    config = RunConfig(corpus=str(corpus.folder), encoder=ENCODER, stages=(STAGE,))
    summary = execute(config, folder, options=RunOptions(quiet=True))
    write_record(folder, replace(summary, popularity=ABOVE))
    return folder


def audited(folder: Path) -> dict[str, Finding]:
    return {found.check: found for found in audit_run(folder, "data")}


def faults(folder: Path) -> dict[str, str]:
    """The levels of all findings that are not fine."""
    found = audited(folder)
    return {check: each.level for check, each in found.items() if each.level != "fine"}


def config_in(folder: Path) -> RunConfig:
    record = read_record(folder, RunRecord)
    assert record is not None
    return RunConfig(corpus=str(record.outline.corpus), encoder=ENCODER, stages=(STAGE,))


def altered(finished: Path, corpus: Corpus, folder: Path, config: RunConfig) -> Path:
    """The finished run as if it had been done by another config."""
    shutil.copytree(finished, folder)
    write_record(folder, record_of(config, corpus))
    return folder


def with_summary(finished: Path, folder: Path, **changes: object) -> Path:
    """The finished run with another summary."""
    shutil.copytree(finished, folder)
    summary = read_record(folder, RunSummary)
    assert summary is not None
    write_record(folder, replace(summary, **changes))  # type: ignore[arg-type]
    return folder


def test_a_clean_run_is_quiet(finished: Path) -> None:
    found = audited(finished)
    assert faults(finished) == {}
    assert {"corpus", "selection", "popularity", "candidates", "ties in test"} <= set(found)
    assert "by mrr of the validation part; no stage reads the test part" in (
        found["selection"].sentence
    )


def test_a_run_of_another_corpus_is_a_problem_and_nothing_else_is_asked(
    finished: Path, tmp_path: Path
) -> None:
    other = write_histories(tmp_path / "other", HISTORIES[::-1], num_items=USERS, timestamps=TIMES)
    shutil.copytree(finished, tmp_path / "run")
    record = read_record(finished, RunRecord)
    assert record is not None
    config = to_json(replace(config_in(finished), corpus=str(other.folder)))
    write_record(tmp_path / "run", replace(record, config=config))
    assert faults(tmp_path / "run") == {"corpus": "problem"}
    assert "ties in test" not in audited(tmp_path / "run")


def test_a_run_is_checked_under_its_own_split_and_policy(
    finished: Path, corpus: Corpus, tmp_path: Path
) -> None:
    config = config_in(finished)
    config = replace(config, split=GlobalTemporal(validation_share=0.2, test_share=0.2))
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert "ties in test" not in audited(folder)
    assert faults(folder) == {}


# Selection


def test_weights_that_were_imported_were_selected_by_who_knows_what(
    finished: Path, tmp_path: Path
) -> None:
    imported = ImportRecord(file="LastFM.pt", sha256="0" * 64, keys=(), remarks=())
    folder = with_summary(finished, tmp_path / "run", imported=imported)
    assert faults(folder) == {"selection": "warning"}
    assert "by which figures they were selected is unknown" in audited(folder)["selection"].sentence


def test_a_last_stage_without_validation_keeps_its_last_weights(
    finished: Path, corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(config_in(finished), stages=(replace(STAGE, validation=None),))
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert faults(folder) == {"selection": "warning"}
    assert "keeps its last weights" in audited(folder)["selection"].sentence


def test_validation_items_in_training_are_told(
    finished: Path, corpus: Corpus, tmp_path: Path
) -> None:
    split = LeaveOneOut(validation_in_training=True)
    stages = (replace(STAGE, validation=None),)
    config = replace(config_in(finished), split=split, stages=stages)
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert faults(folder) == {"selection": "warning", "validation in training": "warning"}


@pytest.mark.parametrize(("tested", "warned"), [(True, True), (False, False)])
def test_training_that_went_on_after_the_test_is_told(
    finished: Path, tmp_path: Path, tested: bool, warned: bool
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    record = read_record(finished, RunRecord)
    assert record is not None
    extension = ExtensionRecord(
        hash="0" * 64, stage="train", epoch=1, step=1, ended=True, tested=tested, limits={}
    )
    write_record(tmp_path / "run", replace(record, extensions=(extension,)))
    assert faults(tmp_path / "run") == ({"extensions": "warning"} if warned else {})


def test_a_run_that_begins_with_other_weights_is_told(
    finished: Path, corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(config_in(finished), start_from="runs/earlier")
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert faults(folder) == {"start": "warning"}
    assert "the weights of runs/earlier" in audited(folder)["start"].sentence


# Popularity


@pytest.mark.parametrize(
    ("low", "high", "level"),
    [(0.01, 0.3, "fine"), (-0.01, 0.3, "problem"), (-0.3, -0.1, "problem")],
)
def test_a_run_that_is_not_above_popularity_is_a_problem(
    finished: Path, tmp_path: Path, low: float, high: float, level: str
) -> None:
    floor = replace(ABOVE, difference=(low + high) / 2, low=low, high=high)
    folder = with_summary(finished, tmp_path / "run", popularity=floor)
    found = audited(folder)["popularity"]
    assert found.level == level
    assert (found.numbers["low"], found.numbers["high"]) == (low, high)


def test_a_run_beside_which_popularity_was_not_ranked_is_told(
    finished: Path, tmp_path: Path
) -> None:
    folder = with_summary(finished, tmp_path / "run", popularity=None)
    assert faults(folder) == {"popularity": "warning"}


def test_a_run_that_only_counts_selects_nothing(corpus: Corpus, tmp_path: Path) -> None:
    config = RunConfig(corpus=str(corpus.folder), ranker=PopularityConfig())
    execute(config, tmp_path / "run", options=RunOptions(quiet=True))
    assert faults(tmp_path / "run") == {}
    assert "popularity" not in audited(tmp_path / "run")


# Candidates


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [(("uniform-3",), "problem"), (("full", "popularity-3"), "warning"), (("full",), "fine")],
)
def test_sampled_candidates_are_not_full_ranking(
    finished: Path, corpus: Corpus, tmp_path: Path, candidates: tuple[str, ...], expected: str
) -> None:
    evaluation = EvaluationConfig(candidates=candidates)
    config = replace(config_in(finished), evaluation=evaluation)
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert audited(folder)["candidates"].level == expected


def negatives(folder: Path, changes: dict[int, list[int]]) -> Path:
    """A file of two negatives a user, outside the history unless `changes` has others."""
    lines = []
    for user in range(USERS):
        items = changes.get(user, [(user + LENGTH) % USERS, (user + LENGTH + 1) % USERS])
        lines.append(" ".join([f"u{user}", *(f"i{item}" for item in items)]))
    path = folder / "negatives.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_negatives_from_the_history_are_told(
    finished: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_sets, "HISTORIES", 5)
    # Users 4 and 9 have their first item among the negatives; user 4 both.
    path = negatives(tmp_path, {4: [4, 5], 9: [9, 3]})
    evaluation = EvaluationConfig(negatives_file=str(path))
    config = replace(config_in(finished), evaluation=evaluation)
    folder = altered(finished, corpus, tmp_path / "run", config)
    assert faults(folder) == {"candidates": "warning", "candidate file": "problem"}
    found = audited(folder)["candidate file"]
    assert found.numbers == {"questions": 12, "touched": 2, "share": 2 / 12}
    negatives(tmp_path, {})
    assert audited(folder)["candidate file"].level == "fine"


def test_a_candidate_file_that_has_gone_is_a_problem(corpus: Corpus, tmp_path: Path) -> None:
    found = candidate_file(str(tmp_path / "gone.txt"), corpus, LeaveOneOut().split(corpus).test)
    assert found.level == "problem"
    assert "does not exist" in found.sentence


# Folders that hold no finished run


def test_a_folder_without_a_finished_run_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        audit_run(tmp_path, "data")
    shutil.copy(finished / "config.json", tmp_path)
    with pytest.raises(InputError, match="holds a run that has not finished"):
        audit_run(tmp_path, "data")
