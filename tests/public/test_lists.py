"""Metrics of recommended lists from Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import sixfold as sf
from research.evaluation.list_table import ListTable
from research.evaluation.statistics import estimate


def test_lists_are_evaluated_beside_ranks(small_run: sf.Run) -> None:
    frame = small_run.evaluate(metrics=["coverage@3", "mrr", "diversity@2"])
    assert frame[["candidates", "metric"]].to_numpy().tolist() == [
        ["full", "mrr"], ["lists", "coverage@3"], ["lists", "diversity@2"],
    ]  # fmt: skip
    assert frame["mean"].between(0.0, 1.0).all()
    # Where all users have one value, the ends differ from it by rounding.
    assert (frame["low"] <= frame["mean"] + 1e-12).all()
    kept = small_run.evaluate("validation", metrics=["repeat@4"], seen="kept")
    assert kept["candidates"].tolist() == ["lists"]
    with pytest.raises(sf.InputError, match="set it to kept"):
        small_run.evaluate(metrics=["repeat@4"])


def test_the_lists_are_those_that_the_run_recommends(small_run: sf.Run) -> None:
    recommended = small_run.recommend(history="test", k=3)
    covered = recommended["item"].nunique() / small_run.corpus.num_items
    frame = small_run.evaluate(metrics=["coverage@3"])
    assert frame["mean"].iloc[0] == pytest.approx(covered, rel=1e-12)


def test_a_run_that_asks_for_lists_has_their_figures(
    small_config: sf.RunConfig, small_corpus: sf.Corpus, tmp_path: Path
) -> None:
    evaluation = replace(small_config.evaluation, metrics=("ndcg@3", "gini@3"))
    run = sf.train(replace(small_config, evaluation=evaluation), small_corpus, out=tmp_path / "run")
    frame = run.metrics().set_index("metric")
    table = ListTable.load(tmp_path / "run" / "ranks" / "lists-test-excluded.npz")
    found = estimate([table], "gini@3")
    assert frame.loc["gini@3", ["mean", "low", "high"]].tolist() == [
        found.mean, found.low, found.high,
    ]  # fmt: skip
    assert run.summary.lists == {"gini@3": found.mean}
    pd.testing.assert_frame_equal(run.evaluate(), run.metrics())
    assert run.metrics("validation")["metric"].tolist() == ["ndcg@3"]
