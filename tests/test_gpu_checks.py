"""The checks of a GPU run through on a CPU, where they compare it with itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.gpu_checks import CHECKS, Outcome, Setting, main

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the real checks can run here")


def test_every_check_passes_on_a_generated_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "checks.json"
    assert main(["--device", "cpu", "--tiny", "--out", str(out)]) == 0
    stored = json.loads(out.read_text())
    found = {name: each["result"] for name, each in stored["checks"].items()}
    assert found == {
        "draws": "PASS",
        "one step": "PASS",
        "one step in low precision": "PASS",
        "launcher": "LEFT OUT",
        "evaluation": "FIGURE",
        "training": "FIGURE",
        "compilation": "PASS",
        "recomputation": "PASS",
        "fp16": "LEFT OUT",
        "bf16 against fp32": "PASS",
    }
    assert stored["checks"]["compilation"]["figures"]["bf16 graphs"] == 2
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)


def test_a_check_that_raises_fails_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(setting: Setting) -> Outcome:
        raise ValueError("no such kernel")

    monkeypatch.setitem(CHECKS, "draws", broken)
    assert main(["--device", "cpu", "--tiny", "--only", "draws", "evaluation"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "FAIL     draws: ValueError: no such kernel"
    assert second.startswith("FIGURE   evaluation: ")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "no GPU here; --device cpu --tiny tries the script itself" in capsys.readouterr().err
