"""A pretraining on the users who are fine-tuned on or on others, and figures of each half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sixfold as sf
from experiments import other_users
from experiments.other_users import FINE_TUNED, OTHERS, UserValues, contrasts, in_group
from tests.support.small_runs import ENCODER, corpus_in


def test_cells_differ_by_their_pretraining_and_its_users() -> None:
    cells = other_users.study().cells
    assert list(cells) == [
        "none", "cloze-same", "cloze-other", "mip-same", "mip-other", "s3-same", "s3-other"
    ]  # fmt: skip
    (none,) = cells["none"].stages
    assert (none.users, none.epochs) == (FINE_TUNED, 77)
    for name in ("cloze", "mip", "s3"):
        same, other = cells[f"{name}-same"], cells[f"{name}-other"]
        assert same.stages[1] == other.stages[1] == none
        assert (same.stages[0].users, same.stages[0].epochs) == (FINE_TUNED, 77)
        assert other.stages[0] == replace(same.stages[0], users=OTHERS)


def test_the_mean_in_a_group_is_that_of_its_users() -> None:
    draws = np.random.default_rng(0)
    runs = [UserValues(draws.random(9), np.arange(9) % 3 == seed) for seed in range(3)]
    for tuned in (True, False):
        means = in_group(runs, tuned=tuned).mean(1)
        expected = [run.values_U[run.tuned_U == tuned].mean() for run in runs]
        np.testing.assert_allclose(means, expected)


def test_the_same_users_are_compared_with_others_where_both_are_there() -> None:
    assert contrasts(["none", "cloze-same", "mip-same", "mip-other"]) == [
        ("cloze-same", "none"),
        ("mip-same", "none"),
        ("mip-other", "none"),
        ("mip-same", "mip-other"),
    ]


def test_tables_are_of_the_halves_of_each_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpus_in(tmp_path / "small")
    cells = {
        name: replace(config, encoder=ENCODER)
        for name, config in other_users.cells(rows=8, epochs=2).items()
        if name in ("none", "cloze-same", "cloze-other")
    }
    sf.study(cells, corpus, seeds=(0, 1), name="halves", out=tmp_path)
    folder = tmp_path / "halves" / "small"
    capsys.readouterr()

    other_users.main([str(folder)])

    output = capsys.readouterr().out
    assert "fine-tuned users" in output
    assert "other users" in output
    halves = []
    for seed in (0, 1):
        run = other_users.user_values_of(folder / "none" / str(seed), "ndcg@10")
        half = other_users.user_values_of(folder / "cloze-other" / str(seed), "ndcg@10")
        assert run.tuned_U.sum() in (7, 8)
        np.testing.assert_array_equal(run.tuned_U, half.tuned_U)
        halves.append(run)
    assert not np.array_equal(halves[0].tuned_U, halves[1].tuned_U)
    mean = np.mean([run.values_U[run.tuned_U].mean() for run in halves])
    assert f"{mean:.4f}" in output.split("other users")[0]


def test_a_study_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it has: none"):
        other_users.main([str(tmp_path)])
