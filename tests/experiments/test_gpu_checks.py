"""The checks of a GPU run through on a CPU, where they compare it with itself."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments import gpu_checks
from experiments.gpu_checks import correctness, main
from experiments.gpu_parts import Outcome, Part, machine, run_all
from experiments.gpu_setting import PartSkipped, Setting, write_large
from experiments.gpu_speed import (
    SYNC_WARNING,
    Measured,
    Operations,
    Phase,
    Phases,
    count_waits,
    counting,
    parts,
)
from research.data.corpus import Corpus

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the real checks can run here"),
]
Capture = pytest.CaptureFixture[str]


def checked(command: str, folder: Path, *more: str) -> tuple[int, dict[str, dict[str, object]]]:
    """The exit code of a command, tiny and on the CPU, and its parts as the file has them."""
    out = folder / "checks.json"
    code = main([command, "--out", str(out), "--device", "cpu", "--tiny", *more])
    stored = json.loads(out.read_text())
    assert stored["command"][:4] == ["python", "-m", "experiments.gpu_checks", command]
    assert stored["machine"]["torch"] == torch.__version__
    assert all(len(mark) == 64 for mark in stored["corpora"].values())
    return code, stored["parts"]


def test_every_check_passes_on_a_generated_corpus(tmp_path: Path, capsys: Capture) -> None:
    code, found = checked("correctness", tmp_path)
    assert code == 0
    assert {name: each["result"] for name, each in found.items()} == {
        "draws": "PASS",
        "one step": "PASS",
        "one step in low precision": "PASS",
        "twenty steps": "PASS",
        "ranks": "PASS",
        "determinism": "PASS",
        "recomputation": "PASS",
        "fp16": "LEFT OUT",
        "launcher": "LEFT OUT",
        "compilation": "PASS",
        "low precision against fp32": "PASS",
    }
    assert len(capsys.readouterr().out.splitlines()) == len(correctness())
    # Every view, pick, target, row and count of six objectives and four more.
    assert figures(found["draws"])["compared"] > 50
    assert figures(found["compilation"])["bf16 graphs"] == 2


def figures(part: dict[str, object]) -> dict[str, float]:
    found = part["figures"]
    assert isinstance(found, dict)
    return found


def test_every_work_is_measured_and_every_way_to_measure_it(tmp_path: Path) -> None:
    only = ["W1", "W2 bf16", "W3 fp32", "W4 tf32", "W5 fp32", "W6", "corpus", "ML-20M bf16"]
    code, found = checked("speed", tmp_path, "--only", *only)
    assert code == 0
    assert {each["result"] for each in found.values()} == {"FIGURE"}
    assert {"W1 fp32", "W1 fp32 compiled", "W1 kernels", "W6", "ML-20M bf16"} <= found.keys()
    plain, built = figures(found["W2 bf16"]), figures(found["W2 bf16 compiled"])
    # 60 users, whose prefixes but the last two items are rows, 16 of them a step.
    assert (plain["steps an epoch"], plain["steps"]) == (22, 3)
    assert plain["epoch seconds"] == pytest.approx(22 * plain["ms"] / 1e3)
    assert plain["operations"] > 500
    assert (plain["graphs"], built["graphs"]) == (0, 2)
    assert figures(found["W1 kernels"])["kernels"] > 100
    assert figures(found["W6"])["questions"] == 60


def test_time_is_shared_out_so_that_a_command_ends_within_six_minutes() -> None:
    for command in (correctness(), parts()):
        # The common limit is 5.5 minutes, and the last part ends with it.
        assert max(part.seconds for part in command.values()) <= 150.0
    plain = [part.seconds for name, part in parts().items() if "W" in name and "comp" not in name]
    assert sum(plain) <= 450.0
    works = ("W1", "W2", "W3", "W4", "W5", "ML-20M")
    for precision in ("fp32", "tf32", "bf16"):
        for work in works:
            assert {f"{work} {precision}", f"{work} {precision} compiled"} <= parts().keys()


def test_a_part_that_raises_fails_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(setting: Setting) -> Outcome:
        raise ValueError("no such kernel")

    chosen = {"broken": Part(broken, 9.0), "ranks": correctness()["ranks"]}
    monkeypatch.setitem(gpu_checks.COMMANDS, "correctness", lambda: chosen)  # type: ignore[arg-type]
    code, found = checked("correctness", tmp_path)
    assert code == 1
    assert [each["result"] for each in found.values()] == ["FAIL", "PASS"]
    assert 'raise ValueError("no such kernel")' in str(found["broken"]["details"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "FAIL     broken: ValueError: no such kernel"
    assert second.startswith("PASS     ranks: 100.00% of 60 ranks are the same")


def setting(folder: Path) -> Setting:
    return Setting(device=torch.device("cpu"), tiny=False, data_root="none", scratch=folder)


def test_a_part_that_is_late_is_ended_and_the_rest_has_no_time(tmp_path: Path) -> None:
    def endless(here: Setting) -> Outcome:
        time.sleep(60.0)
        raise AssertionError

    def absent(here: Setting) -> Outcome:
        here.corpus("Beauty")
        raise AssertionError

    def infinite(here: Setting) -> Outcome:
        return Outcome(passed=True, line="", figures={"distance": float("inf")})

    asked = {
        "absent": Part(absent, 9.0),
        "infinite": Part(infinite, 9.0),
        "late": Part(endless, 0.05),
        "last": Part(endless, 9.0),
        "never": Part(infinite, 9.0),
    }
    began = time.monotonic()
    assert not run_all(asked, setting(tmp_path), tmp_path / "out.json", 0.5 / 60, ["command"])
    assert time.monotonic() - began < 10.0
    found = json.loads((tmp_path / "out.json").read_text())["parts"]
    assert {name: (each["result"], each["line"]) for name, each in found.items()} == {
        "absent": ("LEFT OUT", "none/corpora/Beauty is absent"),
        "infinite": ("PASS", ""),
        "late": ("FAIL", "OutOfTime: not done within 0.05 s"),
        "last": ("FAIL", found["last"]["line"]),
        "never": ("NO TIME", "the time for all parts is over"),
    }
    assert found["infinite"]["figures"] == {"distance": "inf"}
    assert run_all({"absent": asked["absent"]}, setting(tmp_path), tmp_path / "o.json", 1.0, [])


def test_phases_follow_one_another_after_so_many_steps() -> None:
    told: list[str] = []

    @contextmanager
    def noting(name: str) -> Iterator[None]:
        told.append(f"{name} begins")
        yield
        told.append(f"{name} ends")

    phases = Phases([Phase(2, lambda: noting("a")), Phase(1, lambda: noting("b"))])
    assert phases.total == 3
    for step in range(3):
        told.append(f"step {step}")
        phases("optimizer", (), {})
    assert told == [
        "a begins", "step 0", "step 1", "a ends", "b begins", "step 2", "b ends",
    ]  # fmt: skip


def test_operations_of_a_device_are_counted_without_views() -> None:
    x = torch.ones(2, 3)
    with Operations("cpu") as ours, Operations("cuda") as theirs:
        y = x.T[:1].reshape(-1) + 1.0
        y.mul_(2.0)
        torch.mm(x, x.T, out=torch.empty(2, 2))
    assert (ours.count, theirs.count) == (3, 0)


def test_the_lines_that_wait_for_a_gpu_are_told_by_their_package() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = "called a synchronizing CUDA operation (Triggered internally at x.cpp:80.)"
        for file, message in (
            ("/a/b/research/data/negatives.py", said),
            ("/a/b/research/data/negatives.py", said),
            ("/lib/python3.12/site-packages/torch/optim/adam.py", said),
            ("/a/b/research/packed.py", "another warning"),
        ):
            warnings.warn_explicit(message, UserWarning, file, 95)
    assert count_waits(caught) == {"research/data/negatives.py:95": 2, "torch/optim/adam.py:95": 1}


def test_what_only_a_gpu_tells_is_read_from_what_torch_would_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    known = SimpleNamespace(name="NVIDIA H100", total_memory=85_000, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    pretended = replace(setting(tmp_path), device=torch.device("cuda"))
    found = Measured({}, {})
    with counting(pretended, 2, found, compiled=False):
        for _ in range(6):
            warnings.warn_explicit(SYNC_WARNING, UserWarning, "/a/research/training/step.py", 7)
    assert modes == ["warn", "default"]
    assert found.figures == {"operations": 0.0, "waits": 3.0}
    assert found.details == {"waits": {"research/training/step.py:7": 3.0}}
    assert machine(pretended).items() >= {
        "device": "NVIDIA H100", "memory": 85_000, "capability": "9.0"
    }.items()  # fmt: skip


def test_the_large_corpus_has_the_shape_that_it_says(tmp_path: Path) -> None:
    write_large(tmp_path / "large", users=5_000, items=900, events=722_000)
    corpus = Corpus.open(tmp_path / "large")
    corpus.verify()
    lengths = np.diff(corpus.offsets)
    assert (len(lengths), corpus.num_items, corpus.num_interactions) == (5_000, 900, 722_000)
    assert lengths.min() >= 20
    # MovieLens-20M: 68 in the median, 144 in the mean.
    assert 60 <= np.median(lengths) <= 76
    assert lengths.max() > 2_000


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_a_gpu_it_says_so(device: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["speed", "--out", str(tmp_path / "out.json"), "--device", device]) == 2
    said = capsys.readouterr().err
    assert f"--device is {device}, but torch sees no GPU here" in said
    assert "--device cpu --tiny tries the script itself" in said


def test_a_part_of_no_name_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert main(["speed", "--out", str(tmp_path / "out.json"), "--only", "W9", "W0"]) == 2
    assert "no part begins with W9 or W0" in capsys.readouterr().err


def test_a_corpus_that_is_absent_leaves_its_parts_out(tmp_path: Path) -> None:
    with pytest.raises(PartSkipped, match="none/corpora/ml-1m-sas is absent"):
        setting(tmp_path).corpus("ml-1m-sas")
