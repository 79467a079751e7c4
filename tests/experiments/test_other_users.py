"""A pretraining on the users who are fine-tuned on or on others, and figures of each half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sixfold as sf
from experiments import other_users
from experiments.other_users import FINE_TUNED, OTHERS, UserValues, contrasts, in_group
from research.runs.config import RunConfig
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
    users = np.arange(9, dtype=np.int64)
    runs = {seed: UserValues(users, draws.random(9), users % 3 == seed) for seed in range(3)}
    for tuned in (True, False):
        means = in_group(runs, tuned=tuned).mean(1)
        expected = [run.values_U[run.tuned_U == tuned].mean() for run in runs.values()]
        np.testing.assert_allclose(means, expected)


def test_each_cell_is_compared_with_none_and_the_same_users_with_others() -> None:
    assert contrasts(["none", "cloze-same", "cloze-other"]) == [
        ("cloze-same", "none"),
        ("cloze-other", "none"),
        ("cloze-same", "cloze-other"),
    ]


@pytest.fixture
def some_cells(monkeypatch: pytest.MonkeyPatch) -> dict[str, RunConfig]:
    """Small cells with cloze alone, in place of all."""
    small = {
        name: replace(config, encoder=ENCODER)
        for name, config in other_users.cells(rows=8, epochs=2).items()
        if name in ("none", "cloze-same", "cloze-other")
    }
    monkeypatch.setattr(other_users, "cells", lambda rows, epochs: small)
    return small


def test_tables_are_of_the_halves_of_each_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], some_cells: dict[str, RunConfig]
) -> None:
    corpus = corpus_in(tmp_path / "small")
    sf.study(some_cells, corpus, seeds=(0, 1), name="halves", out=tmp_path)
    folder = tmp_path / "halves" / "small"
    capsys.readouterr()

    other_users.main([str(folder)])

    output = capsys.readouterr().out
    assert "fine-tuned users" in output
    assert "other users" in output
    halves = [other_users.user_values_of(folder / "none" / seed, "ndcg@10") for seed in "01"]
    assert [run.tuned_U.sum() for run in halves] == [8, 8]
    assert not np.array_equal(halves[0].tuned_U, halves[1].tuned_U)
    mean = np.mean([run.values_U[run.tuned_U].mean() for run in halves])
    assert f"{mean:.4f}" in output.split("other users")[0]

    (folder / "cloze-same" / "0" / "summary.json").unlink()
    with pytest.raises(SystemExit, match=r"cloze-same \[1\], cloze-other \[0, 1\]; finish"):
        other_users.main([str(folder)])
    sf.study(some_cells, corpus, seeds=(0, 1), name="halves", out=tmp_path)
    with pytest.raises(SystemExit, match="foo"):
        other_users.main([str(folder), "--metric", "foo"])


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none \[\], cloze-same \[\]"):
        other_users.main([str(tmp_path)])
