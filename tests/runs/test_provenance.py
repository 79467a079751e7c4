"""By which code, on what and by which command a run was done: what is kept, and what never is."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import research
import research.runs.code_version as code_versions
from research.data.corpus import Corpus
from research.runs.code_version import code_version
from research.runs.execute import execute
from research.runs.provenance import (
    cpu_model,
    merge_provenance,
    provenance_of,
    versions,
)
from research.storage.records import Machine, Provenance, RunRecord, RunSummary, read_record
from research.storage.untrusted import without_keys
from tests.support.command_line import run_command
from tests.support.records import run_record, run_summary, write_as_json
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in

Patch = pytest.MonkeyPatch
CPU = torch.device("cpu")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", "-C", str(folder), *names, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A folder in which this code seems to stand; there is no git in it."""
    (tmp_path / "code" / "research").mkdir(parents=True)
    (tmp_path / "code" / "research" / "__init__.py").write_text("")
    monkeypatch.setattr(research, "__file__", str(tmp_path / "code" / "research" / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return tmp_path / "code"


def committed(folder: Path) -> str:
    """Everything in a folder becomes its first commit, whose name comes back."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


# The commit


@needs_git
def test_a_clean_checkout_is_told_with_its_commit(code: Path) -> None:
    commit = committed(code)
    assert len(commit) == 40
    assert code_version() == (commit, True)


@needs_git
@pytest.mark.parametrize(
    ("name", "clean"),
    [("research/__init__.py", False), ("mine.py", False), ("a/b.py", False), ("run/x.json", True)],
)
def test_changes_and_new_python_files_are_not_clean_and_other_new_files_are(
    code: Path, name: str, clean: bool
) -> None:
    commit = committed(code)
    (code / name).parent.mkdir(exist_ok=True)
    (code / name).write_text("x = 1\n")
    assert code_version() == (commit, clean)


@needs_git
def test_code_that_is_installed_below_somebodys_own_checkout_is_of_no_commit(code: Path) -> None:
    (code / ".gitignore").write_text("research/\n")
    committed(code)
    assert code_version() == (None, None)


@needs_git
def test_another_repository_that_the_environment_names_is_not_asked(
    code: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    commit = committed(code)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("")
    committed(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert code_version() == (commit, True)


def test_without_a_checkout_or_without_git_there_is_no_commit(
    code: Path, monkeypatch: Patch
) -> None:
    monkeypatch.delenv("GIT_CEILING_DIRECTORIES")
    assert code_version() == (None, None)
    code_version.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert code_version() == (None, None)


def test_a_git_that_hangs_is_not_waited_for(code: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport time; time.sleep(60)\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(code_versions, "_SECONDS_OF_GIT", 0.2)
    assert code_version() == (None, None)


def test_a_process_asks_once_and_stays_with_the_code_it_began_with(
    code: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    program, calls = tmp_path / "bin" / "git", tmp_path / "calls"
    program.parent.mkdir()
    # It has the same line for every question, which as a status is a changed file.
    program.write_text(f"#!/bin/sh\necho asked >> {calls}\necho {'c' * 40}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert code_version() == ("c" * 40, False)
    asked = calls.read_text()
    assert code_version() == ("c" * 40, False)
    assert calls.read_text() == asked
    program.unlink()
    assert code_version() == ("c" * 40, False)


# Machine, versions, command


def test_the_machine_is_told_without_its_name() -> None:
    machine = provenance_of(CPU, 2).machine
    assert machine is not None
    assert (machine.cores, machine.accelerator) == (os.cpu_count(), None)
    assert machine.platform.startswith(platform.system())
    assert machine.cpu == cpu_model() != ""
    for name in {platform.node(), socket.gethostname()} - {"", "localhost"}:
        assert name not in repr(machine)


def test_versions_are_those_of_python_and_of_the_packages_that_compute() -> None:
    known = versions()
    assert known["python"] == platform.python_version()
    assert known["torch"] == torch.__version__
    assert known["numpy"] == np.__version__
    assert known.keys() <= {"python", "torch", "numpy", "accelerate", "sixfold"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/opt/x/research/__main__.py", "run", "a", "b=c d"], "python -m research run a 'b=c d'"),
        (["/home/al/bin/sixfold", "study", "x"], "sixfold study x"),
        (["my/script.py"], "script.py"),
    ],
)
def test_the_command_is_told_without_the_folder_of_the_program(
    monkeypatch: Patch, words: list[str], told: str
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    assert provenance_of(CPU, 1).command == told


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--token=abc", "--token=***"),
        ("api_key=abc", "api_key=***"),
        ("WANDB_API_KEY=abc", "WANDB_API_KEY=***"),
        ("a.password=b c", "a.password=***"),
        ("hf_" + "a" * 20, "***"),
        ("sk-" + "a1" * 10, "***"),
        ("x=ghp_" + "b" * 36, "x=***"),
        ("0123456789abcdef" * 2, "***"),
        ("aB3" * 11, "***"),
        ("s3://ann:secret@host/x", "s3://***@host/x"),
        ("prefix-hunter22-suffix", "prefix-***-suffix"),
        ("stages.0.tokens=900", "stages.0.tokens=900"),
        ("tokens=1000000", "tokens=1000000"),
        ("--keep-checkpoints=3", "--keep-checkpoints=3"),
        ("monkey=1", "monkey=1"),
        ("out=runs/layers-3-width-128-of-1999-b", "out=runs/layers-3-width-128-of-1999-b"),
    ],
)  # fmt: skip
def test_what_looks_like_a_key_is_not_written(monkeypatch: Patch, word: str, told: str) -> None:
    monkeypatch.setenv("MY_PASSWORD", "hunter22")
    assert without_keys(["run", word]).replace("'", "") == f"run {told}"


def test_the_word_after_an_option_for_a_key_is_not_written() -> None:
    words = ["run", "--api-key", "abc", "--seeds", "3", "--token", "--quiet"]
    assert without_keys(words) == "run --api-key *** --seeds 3 --token --quiet"


# In the run folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("small") / "corpus")


def kept(folder: Path) -> tuple[Provenance, ...]:
    record = read_record(folder, RunRecord)
    assert record is not None
    return record.provenance


ONE = Provenance(begun="2026-01-01T00:00:00Z", commit="a", clean=True, processes=1)


def test_what_differs_in_time_alone_is_not_repeated() -> None:
    later, other = replace(ONE, begun="2026-01-02T00:00:00Z"), replace(ONE, commit="b")
    assert merge_provenance((), ONE) == (ONE,)
    assert merge_provenance((ONE,), later) == (ONE,)
    assert merge_provenance((ONE,), other) == (ONE, other)
    assert merge_provenance((ONE, other), later) == (ONE, other)


def test_a_run_keeps_how_it_was_begun_and_how_it_was_continued(
    corpus: Corpus, tmp_path: Path, monkeypatch: Patch
) -> None:
    config, path = config_of(corpus, FINETUNE), tmp_path / "run"
    summary = execute(config, path, options=QUIET)
    (first,) = kept(path)
    assert (first.processes, first.versions) == (1, summary.versions)
    execute(config, path, options=QUIET)
    assert kept(path) == (first,)
    (path / "summary.json").unlink()
    monkeypatch.setattr(sys, "argv", ["other.py"])
    execute(config, path, options=QUIET)
    assert [entry.command for entry in kept(path)] == [first.command, "other.py"]


def test_what_goes_on_with_a_run_of_an_earlier_version_does_not_stand_for_its_beginning(
    corpus: Corpus, tmp_path: Path
) -> None:
    config, path = config_of(corpus, FINETUNE), tmp_path / "run"
    execute(config, path, options=QUIET)
    (path / "summary.json").unlink()
    record = read_record(path, RunRecord)
    assert record is not None
    write_as_json(path, record, provenance=[])
    execute(config, path, options=QUIET)
    earlier, later = kept(path)
    assert earlier == Provenance()
    assert later.begun is not None


def test_show_tells_each_way_in_which_a_run_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(platform="Linux", cpu="A CPU", cores=4, accelerator="A GPU")
    second = Provenance(begun="2026-02-01T00:00:00Z", machine=machine, processes=2, command="x y")
    write_as_json(tmp_path, run_record(provenance=(replace(ONE, command="a b"), second)))
    write_as_json(tmp_path, run_summary(versions={"python": "3.11.7", "torch": "2"}))
    assert read_record(tmp_path, RunSummary) is not None
    out = run_command(capsys, "show", tmp_path).out
    assert out.endswith(
        "versions: python 3.11.7, torch 2\n"
        "1 of 2, begun: 2026-01-01T00:00:00Z\n"
        "1 of 2, commit: a (as committed)\n"
        "1 of 2, machine: unknown\n"
        "1 of 2, command: a b\n"
        "2 of 2, begun: 2026-02-01T00:00:00Z\n"
        "2 of 2, commit: none, the code stood in no git checkout\n"
        "2 of 2, machine: Linux, A CPU, 4 cores, A GPU, 2 processes\n"
        "2 of 2, command: x y\n"
    )
