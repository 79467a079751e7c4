"""A trained run stands beside popularity, and says in plain words whether it is above it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.cli.show import show, verdict_of
from research.data.corpus import Corpus
from research.data.splits import AtTime, GlobalTemporal, TemporalCut
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.runs.audit import audit_run
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.popularity_floor import NO_DAYS
from research.storage.evaluation_records import FloorRecord
from research.training.config import ValidationConfig
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in
from tests.support.synthetic import markov_histories, write_histories

DAY = 86_400
MAY_2014 = 1_398_902_400


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


def two_weeks(folder: Path, *, first: int = MAY_2014) -> Corpus:
    """Fifteen users with an event a day, from one of the first four days of May 2014 on."""
    histories = markov_histories(num_users=15, num_items=10, length=12, seed=0)
    times = [
        [first + (user % 4 + place) * DAY for place in range(len(history))]
        for user, history in enumerate(histories)
    ]
    return write_histories(folder, histories, num_items=10, timestamps=times)


def test_at_points_in_time_a_run_tells_popularity_of_the_last_days_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = two_weeks(tmp_path / "corpus")
    split = TemporalCut(cut=AtTime(time="2014-05-09"))
    config = config_of(corpus, replace(FINETUNE, epochs=1), split=split)
    trained = execute(config, tmp_path / "run", options=QUIET)
    counting = replace(config, stages=(), ranker=PopularityConfig(newest_days=7.0))
    counted = execute(counting, tmp_path / "recent", options=QUIET)
    floor = trained.recent_popularity
    assert floor is not None
    assert (floor.test, floor.newest_days, floor.metric) == (counted.test, 7, "mrr")
    assert trained.floors == (trained.popularity, floor)
    assert counted.floors == ()
    capsys.readouterr()
    show(tmp_path / "run")
    out = capsys.readouterr().out
    assert "popularity of the last 7 days" in out.splitlines()[-1]
    findings = {each.check: each for each in audit_run(tmp_path / "run", "data")}
    assert "popularity of the last 7 days" in findings["popularity of the last 7 days"].sentence


def test_leave_one_out_has_one_floor_and_times_without_days_are_told(tmp_path: Path) -> None:
    corpus = two_weeks(tmp_path / "corpus")
    stage = replace(FINETUNE, epochs=1, validation=None)
    plain = execute(config_of(corpus, stage), tmp_path / "plain", options=QUIET)
    assert (len(plain.floors), plain.recent_popularity) == (1, None)
    early = two_weeks(tmp_path / "early", first=0)
    config = config_of(early, stage, split=GlobalTemporal())
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert (len(summary.floors), summary.recent_popularity) == (1, None)
    assert NO_DAYS in summary.notes


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
