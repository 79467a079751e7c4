"""The experiment on large catalogues, with small ones."""

from __future__ import annotations

import pytest

from experiments import large_catalogues

Capture = pytest.CaptureFixture[str]


@pytest.mark.long
def test_steps_and_draws_are_measured_for_each_catalogue(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(large_catalogues, "USERS", 700)
    large_catalogues.main(["--items", "300", "600"])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| | 300 items | 600 items |"
    assert len(rows) == 6
    for row in rows:
        assert all(float(value) > 0 for value in row.split("|")[2:4])
