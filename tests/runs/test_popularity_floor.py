"""A trained run stands beside popularity, and says in plain words whether it is above it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.cli.show import show, verdict_of
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.storage.records import FloorRecord
from research.training.config import ValidationConfig
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in


def test_a_run_tells_popularity_on_its_own_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = config_of(corpus, replace(FINETUNE, validation=ValidationConfig(metric="mrr")))
    config = replace(config, evaluation=replace(config.evaluation, candidates=("full",)))
    trained = execute(config, tmp_path / "run", options=QUIET)
    counting = RunConfig(
        corpus=config.corpus, ranker=PopularityConfig(), evaluation=config.evaluation
    )
    counted = execute(counting, tmp_path / "popularity", options=QUIET)
    assert counted.popularity is None
    floor = trained.popularity
    assert floor is not None
    assert floor.test == counted.test
    assert (floor.metric, floor.candidates) == ("mrr", "full")
    difference = trained.test["full"]["mrr"] - counted.test["full"]["mrr"]
    assert floor.difference == pytest.approx(difference)
    assert floor.low <= floor.difference <= floor.high
    capsys.readouterr()
    show(tmp_path / "run")
    out = capsys.readouterr().out
    assert "popularity, full" in out
    assert "popularity" in out.splitlines()[-1]


def test_special_classes_compete_in_the_runs_ranking_alone(tmp_path: Path) -> None:
    objective = NextItemConfig(head=HeadConfig(special_classes=True))
    stage = replace(FINETUNE, objectives={"next": objective}, validation=None)
    summary = execute(
        config_of(corpus_in(tmp_path / "corpus"), stage), tmp_path / "run", options=QUIET
    )
    assert summary.protocol["special_candidates"] == 2
    assert summary.popularity is not None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "above popularity by +0.0200 (95 % of resamples: +0.0100 to +0.0300) in mrr"),
        (-0.01, 0.05, "not above popularity: +0.0200 (95 % of resamples: -0.0100 to +0.0500)"),
        (-0.03, -0.01, "below popularity: -0.0200 "),
    ],
)
def test_the_verdict_is_by_the_interval(low: float, high: float, said: str) -> None:
    floor = FloorRecord(
        test={}, candidates="full", metric="mrr", difference=(low + high) / 2, low=low, high=high
    )
    assert verdict_of(floor).startswith(said)
    assert ("not learned more" in verdict_of(floor)) is (low <= 0.0)
