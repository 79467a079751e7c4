"""Without Optuna a tuning is refused with what to install, and all else goes on."""

from __future__ import annotations

import sys

import pytest

from research.studies.search import TPE, MedianPruner
from tests.support.command_line import command_error, run_command

Capture = pytest.CaptureFixture[str]


def test_a_tuning_says_what_to_install(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert command_error(capsys, "tune", "experiments.tuned") == (
        "sixfold tune: tuning needs optuna, which is not installed; install the extra tune: pip "
        "install '.[tune]' in the checkout, or the wheel that was installed, once more, as "
        "'FILE.whl[tune]'\n"
    )


def test_what_does_not_tune_goes_without_it(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert str(TPE()) == "by TPE after 10 at random"
    assert "complete trials" in str(MedianPruner())
    assert "experiments.tuned" in run_command(capsys, "list", "experiments").out
