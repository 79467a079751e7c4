"""How alike states and items are, beside loops over pairs and whole sorts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sixfold as sf
from baselines.popularity import popularity
from experiments import anisotropy
from experiments.anisotropy import anisotropy_of
from tests.support.small_runs import ENCODER, FINETUNE, corpus_in


def test_it_is_what_loops_over_pairs_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of all pairs one by one, and the ten best by sorting whole rows."""
    monkeypatch.setattr(anisotropy, "USERS_AT_ONCE", 3)
    draws = np.random.default_rng(0)
    states = draws.normal(0.5, 1.0, (7, 4)).astype(np.float32)
    items = draws.normal(0.2, 1.0, (40, 4)).astype(np.float32)
    biases = draws.normal(0.0, 3.0, 40).astype(np.float32)
    cosines = [
        float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        for place, one in enumerate(states)
        for other in states[place + 1 :]
    ]
    best = {item for state in states for item in np.argsort(-(items @ state + biases))[:10]}
    lengths = [float(np.linalg.norm(item)) for item in items]

    measured = anisotropy_of(states, items, biases)

    assert measured.cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert measured.mean_item == pytest.approx(np.linalg.norm(items.mean(0)) / np.mean(lengths))
    assert measured.recommended == len(best)


def test_equal_states_and_items_are_all_alike() -> None:
    states, items = np.ones((5, 3), np.float32), np.full((4, 3), 2.0, np.float32)

    measured = anisotropy_of(states, items, np.zeros(4, np.float32))

    assert measured.cosine == pytest.approx(1.0)
    assert measured.mean_item == pytest.approx(1.0)
    assert measured.recommended == 4


def test_the_table_has_a_row_for_each_trained_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpus_in(tmp_path / "small")
    trained = sf.RunConfig(encoder=ENCODER, stages=(FINETUNE,))
    cells = {"sasrec": trained, "popularity": popularity()}
    sf.study(cells, corpus, seeds=(0, 1), name="both", out=tmp_path)
    capsys.readouterr()

    anisotropy.main([str(tmp_path / "both" / "small")])

    output = capsys.readouterr().out
    assert "│ sasrec │ 2 " in output
    assert output.startswith("left out: ")
    assert "popularity" in output.splitlines()[0]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no trained run as CELL/SEED"):
        anisotropy.main([str(tmp_path)])
