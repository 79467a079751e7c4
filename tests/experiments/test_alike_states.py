"""How alike states and items are, beside loops over pairs and whole sorts."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import alike_states
from experiments.alike_states import likeness_of


def test_likeness_is_what_loops_over_pairs_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of all pairs one by one, and the ten best by sorting whole rows."""
    monkeypatch.setattr(alike_states, "USERS_AT_ONCE", 3)
    draws = np.random.default_rng(0)
    states = draws.normal(0.5, 1.0, (7, 4)).astype(np.float32)
    items = draws.normal(0.2, 1.0, (40, 4)).astype(np.float32)
    cosines = [
        float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        for place, one in enumerate(states)
        for other in states[place + 1 :]
    ]
    best = {int(item) for state in states for item in np.argsort(-(items @ state))[:10]}
    lengths = [float(np.linalg.norm(item)) for item in items]

    found = likeness_of(states, items)

    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.common == pytest.approx(np.linalg.norm(items.mean(0)) / np.mean(lengths))
    assert found.items == len(best)


def test_equal_states_are_all_alike() -> None:
    """One state for all users and one vector for all items: everything is common."""
    states, items = np.ones((5, 3), np.float32), np.full((12, 3), 2.0, np.float32)

    found = likeness_of(states, items)

    assert found.cosine == pytest.approx(1.0)
    assert found.common == pytest.approx(1.0)
    assert found.items == 10


def test_a_folder_without_runs_is_named(tmp_path: object) -> None:
    """The message says what to name."""
    with pytest.raises(SystemExit, match="no finished run as CELL/SEED"):
        alike_states.main([str(tmp_path)])
