"""The verb `doctor`: what each check finds, and packages of the working folder that hide ours."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement

import research.cli.doctor as doctor
from research.data.findings import Finding
from research.errors import InputError
from research.runs.config import RunConfig
from research.studies.shadowing import hidden_packages
from research.studies.target import load_target
from tests import ROOT
from tests.support.command_line import command_error, run_command, shop_corpus

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """An empty working folder, and an environment that no launcher has touched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in list(os.environ):
        if name.startswith("ACCELERATE_") or name in doctor.RANK_VARIABLES:
            monkeypatch.delenv(name)
    config = "accelerate.commands.config.config_args.default_config_file"
    monkeypatch.setattr(config, str(tmp_path / "none.yaml"))
    return tmp_path


def package(folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_every_check_is_printed_and_nothing_is_wrong_here(
    capsys: Capture, wandb_client: Patch
) -> None:
    answer = run_command(capsys, "doctor")
    assert (answer.code, answer.err) == (0, "")
    first, *lines = answer.out.splitlines()
    assert first.startswith("sixfold ")
    told = answer.out
    for check in ("python", "torch", "processor", "GPU", "threads", "launchers", "W&B", "disk of"):
        assert f"  {check}" in told
    assert "no key is configured (`wandb login`); --wandb: offline" in told
    assert lines[-1].startswith("problem: 0, ")


def test_a_script_gets_one_json_object(capsys: Capture, wandb_client: Patch) -> None:
    wandb_client.setenv("WORLD_SIZE", "4")
    answer = run_command(capsys, "doctor", "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["problems"]) == (1, 1)
    assert set(told) == {"version", "folder", "problems", "warnings", "findings"}
    wrong = [each for each in told["findings"] if each["level"] == "problem"]
    assert [each["check"] for each in wrong] == ["launcher variables"]
    assert wrong[0]["sentence"].startswith("WORLD_SIZE=4, without a launcher: ")


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("torch>=2", "fine", f"{torch.__version__} (allowed: >=2)"),
        ("torch<2", "problem", 'allowed: <2; pip install "torch<2"'),
        ("no-such-package>=1", "problem", 'is not installed; pip install "no-such-package>=1"'),
    ],
)
def test_a_package_is_held_against_what_is_allowed(text: str, level: str, words: str) -> None:
    finding = doctor.of_requirement(Requirement(text))
    assert finding.level == level
    assert words in finding.sentence


def test_what_the_metadata_require_is_checked_and_extras_are_listed(monkeypatch: Patch) -> None:
    needed = ["torch", 'no-such-package; extra == "onnx"', 'numpy; extra == "hub"']
    known = {"Requires-Dist": needed, "Provides-Extra": ["onnx", "hub", "report"]}
    metadata = SimpleNamespace(get_all=lambda name, default: known.get(name, default))
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: metadata)
    findings = list(doctor.of_versions())
    assert [each.check for each in findings] == ["python", "torch", "extras"]
    assert findings[-1].sentence == "installed: hub; not installed: onnx"


@pytest.mark.parametrize(
    ("threads", "cores", "given", "level"),
    [(2, 2.0, None, "fine"), (4, 1.5, None, "warning"), (1, 8.0, "1", "warning")],
)
def test_threads_are_held_against_cores(
    monkeypatch: Patch, threads: int, cores: float, given: str | None, level: str
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(doctor, "usable_cores", lambda: cores)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    finding = only(list(doctor.of_threads()))
    assert finding.level == level
    assert finding.numbers == {"cores": cores, "threads": threads}
    assert f"torch takes {threads} of {cores:g} cores" in finding.sentence


def test_a_driver_without_a_build_of_torch_for_it_is_said(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "has_nvidia_driver", lambda: True)
    _, gpu = doctor.of_devices()
    assert gpu.level == "warning"
    assert "was built for the CPU alone" in gpu.sentence


def test_what_launchers_read_and_leave_behind_is_said(here: Path, monkeypatch: Patch) -> None:
    assert only(list(doctor.of_launchers())).level == "fine"
    (here / "none.yaml").touch()
    assert only(list(doctor.of_launchers())).check == "accelerate config"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    _, refused = doctor.of_launchers()
    assert refused.level == "problem"
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    *_, alone = doctor.of_launchers()
    assert (alone.check, alone.level) == ("launcher variables", "warning")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    *_, launched = doctor.of_launchers()
    assert launched.level == "fine"
    assert launched.sentence.endswith("of torchrun")


@pytest.mark.parametrize(("free", "level"), [(100e9, "fine"), (1e9, "warning"), (1e6, "problem")])
def test_the_room_on_a_disk_is_that_of_the_nearest_folder(
    here: Path, monkeypatch: Patch, free: float, level: str
) -> None:
    asked = []
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    finding = only(list(doctor.of_disk("runs", Path("not", "there"))))
    assert (finding.level, asked) == (level, [here])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert only(list(doctor.of_disk("runs", Path("not")))).level == "problem"


def test_a_package_of_the_working_folder_is_told_from_a_plain_folder(here: Path) -> None:
    (here / "experiments").mkdir()
    assert hidden_packages() == {}
    assert only(list(doctor.of_packages())).level == "fine"
    (here / "experiments" / "__init__.py").touch()
    (here / "baselines.py").touch()
    found = {"baselines": here / "baselines.py", "experiments": here / "experiments"}
    assert hidden_packages() == found
    levels = [each.level for each in doctor.of_packages()]
    assert levels == ["problem", "warning"]


def test_a_run_says_which_package_hides_ours(here: Path, capsys: Capture) -> None:
    shop_corpus(here)
    package(here / "experiments")
    words = ["run", "baselines.popularity.popularity", "--corpus", "shop", "--out", "run"]
    answer = run_command(capsys, *words)
    assert answer.code == 0
    assert answer.err.startswith(f"warning: {here / 'experiments'} hides Sixfold's own package")
    with pytest.raises(InputError, match=r"no module .*experiments hides Sixfold's own package"):
        load_target("experiments.none.there", RunConfig)


def test_what_lacks_a_module_of_ours_says_why(here: Path, capsys: Capture) -> None:
    package(here / "baselines")
    (here / "lacking.py").write_text("from baselines.not_there import full_softmax\n")
    for target in ("baselines.not_there.full_softmax", "lacking:full_softmax"):
        error = command_error(capsys, "run", target)
        assert "baselines.not_there" in error
        assert f"{here / 'baselines'} hides Sixfold's own package `baselines` ({ROOT}" in error
