"""Runs that report metrics of recommended lists: what they store, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.popularity import popularity
from research.config import hash_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.list_table import ListTable
from research.evaluation.metrics import metrics
from research.evaluation.tiles import SeenPolicy
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from research.runs.parts import RunParts
from research.runs.run_hash import run_hash
from research.studies.study import Study
from research.training.config import ValidationConfig
from tests.evaluation.reference_ranks import corpus_of
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in

NAMES = ("ndcg@3", "coverage@3", "novelty@2", "diversity@3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("lists") / "corpus")


def reporting(config: RunConfig, *names: str, seen: SeenPolicy = "excluded") -> RunConfig:
    return replace(config, evaluation=EvaluationConfig(metrics=names, seen=seen))


def test_a_run_stores_its_lists_and_their_metrics(corpus: Corpus, tmp_path: Path) -> None:
    config = reporting(config_of(corpus, FINETUNE), *NAMES)
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert list(summary.test["full"]) == ["ndcg@3"]
    assert list(summary.val) == ["ndcg@3"]
    assert list(summary.lists) == list(NAMES[1:])
    assert summary.popularity is not None
    assert summary.popularity.metric == "mrr"
    table = ListTable.load(tmp_path / "run" / "ranks" / "lists-test-excluded.npz")
    assert table.place.shape == (15, 3)
    assert metrics(table, NAMES[1:]) == dict(summary.lists)
    assert table.protocol["part"] == "test"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert not [line for line in lines if "val/coverage" in line]
    # A finished run ranks as it did.
    parts, ranker = load_run(tmp_path / "run", "")
    again = parts.list_table(ranker, "test")
    assert again is not None
    assert np.array_equal(again.place, table.place)
    validation = parts.list_table(ranker, "validation")
    assert validation is not None
    assert validation.protocol["part"] == "validation"


def test_a_run_without_such_metrics_stores_no_lists_and_keeps_its_hash(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(popularity(), corpus=str(corpus.folder))
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert summary.lists == {}
    assert not list((tmp_path / "run" / "ranks").glob("lists-*"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["hash"] == run_hash(
        config, corpus, None
    )
    assert hash_of(EvaluationConfig()) == hash_of(
        EvaluationConfig(metrics=config.evaluation.metrics)
    )


def test_repeats_are_those_of_an_evaluation_that_keeps_seen_items(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(popularity(), corpus=str(corpus.folder))
    names = ("ndcg@3", "repeat@4", "explore@4")
    summary = execute(reporting(config, *names, seen="kept"), tmp_path / "run", options=QUIET)
    assert summary.lists["repeat@4"] + summary.lists["explore@4"] == pytest.approx(1.0)
    assert 0.0 < summary.lists["repeat@4"] < 1.0
    assert (tmp_path / "run" / "ranks" / "lists-test-kept.npz").is_file()


@pytest.mark.parametrize(
    ("name", "seen", "message"),
    [
        ("repeat@4", "excluded", r"seen=excluded; set it to kept$"),
        ("explore@4", "zero", r"seen=zero; set it to kept$"),
        (
            "coverage@4",
            "zero",
            r"coverage@4, which cannot be computed with evaluation\.seen=zero; ",
        ),
        ("coverage", "kept", "evaluation.metrics: metric 'coverage' does not exist"),
    ],
)
def test_metrics_that_the_seen_policy_cannot_give_are_refused(
    name: str, seen: SeenPolicy, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationConfig(metrics=("ndcg@4", name), seen=seen)


def test_lists_decide_nothing(corpus: Corpus, tmp_path: Path) -> None:
    stage = replace(FINETUNE, validation=ValidationConfig(metric="coverage@3"))
    with pytest.raises(
        InputError, match=r"validation\.metric is coverage@3, a metric of recommended"
    ):
        config_of(corpus, stage)
    config = reporting(replace(popularity(), corpus=str(corpus.folder)), "coverage@3")
    with pytest.raises(InputError, match="only metrics of recommended lists, coverage@3; add one"):
        execute(config, tmp_path / "run", options=QUIET)
    cells = {"base": popularity()}
    with pytest.raises(InputError, match="study s: cells are compared by a metric of ranks"):
        Study(name="s", question="?", cells=cells, base="base", metrics=("gini@3",))
    with pytest.raises(InputError, match="and gini@3 is of recommended lists"):
        Study(
            name="s", question="?", cells=cells, base="base", metrics=("mrr", "gini@3"),
            compared="gini@3",
        )  # fmt: skip
    study = Study(name="s", question="?", cells=cells, base="base", metrics=("gini@3", "mrr"))
    assert study.deciding_metric == "mrr"


def test_diversity_needs_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = corpus_of([[0, 1, 2]] * 3, 4)
    monkeypatch.setattr("research.runs.parts.open_corpus", lambda *_: bare)
    monkeypatch.setattr(Corpus, "verify", lambda self: None)
    config = reporting(popularity(), "mrr", "diversity@2")
    with pytest.raises(
        InputError, match="has diversity@2, a metric of attributes, and corpus tiny"
    ):
        RunParts.of(config, "")
