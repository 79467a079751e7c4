"""The times of losses alone: a small catalogue gives a full table."""

from __future__ import annotations

import pytest

from experiments import loss_speed


@pytest.mark.long
def test_the_table_has_a_row_for_each_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_speed, "ROWS", 3)
    monkeypatch.setattr(loss_speed, "ROUNDS", 1)
    names = ["softmax", "softmax-cosine", "mixed-256"]
    loss_speed.main(["--items", "300", "--losses", *names])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| ms, MB | 300 items |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in names]
