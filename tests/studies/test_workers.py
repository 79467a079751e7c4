"""Jobs of a study: a failure does not stop the rest, processes share work, kills lose nothing."""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.popularity import popularity
from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.data.splits import Split
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker, RankerConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions
from research.storage import run_folder as run_folder_module
from research.storage.records import FailureRecord
from research.storage.run_folder import FolderLocked, RunFolder, lock_folder
from research.studies import job as job_module
from research.studies.job import Job, JobCost, record_failure, run_job
from research.studies.plan import estimate_jobs
from research.studies.study import Study, StudyOptions, run_study
from research.studies.workers import (
    DISK_ERROR,
    Progress,
    Worker,
    duration_text,
    must_wait,
    outcome_of,
    visible_devices,
)
from tests import ROOT
from tests.support.command_line import files_of
from tests.support.launching import free_port, launched
from tests.support.records import run_record
from tests.support.small_runs import FINETUNE, PRETRAIN, OneOfTwo, config_of, corpus_in

Capture = pytest.CaptureFixture[str]
QUIET = RunOptions(quiet=True)
# Half a minute on an idle machine with 20: SIXFOLD_KILLS=20 python -m pytest
# tests/studies/test_workers.py
KILLS = int(os.environ.get("SIXFOLD_KILLS", "2"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("workers") / "films")


def study_of(corpus: Corpus, cells: Mapping[str, RunConfig], **changes: object) -> Study:
    fields: dict[str, object] = {
        "name": "mine", "question": "Which is best?", "cells": cells, "base": next(iter(cells)),
        "corpora": (str(corpus.folder),), "metrics": ("hr@3", "mrr"),
    }  # fmt: skip
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


def run_jobs(
    study: Study, out: Path, options: RunOptions = QUIET, **study_options: object
) -> list[Job]:
    chosen = StudyOptions(probe=False, **study_options)  # type: ignore[arg-type]
    return run_study(
        study, out, options=options, accelerator=make_accelerator(), study_options=chosen
    )


def diverging(corpus: Corpus) -> RunConfig:
    """A run that fails while it trains."""
    wild = replace(FINETUNE.optimizer, lr=1e30)
    return config_of(corpus, replace(FINETUNE, optimizer=wild))


def impossible(corpus: Corpus) -> RunConfig:
    """A run that is refused before it trains."""
    return config_of(corpus, replace(FINETUNE, rank_by="cloze"))


def small(corpus: Corpus) -> RunConfig:
    return config_of(corpus, replace(FINETUNE, epochs=1))


RAISED: dict[str, Exception] = {
    "memory": MemoryError("too much"),
    "input": InputError("wrong for all"),
    "not finite": FloatingPointError("nan"),
}


@dataclass(frozen=True, kw_only=True)
class RaisingConfig(RankerConfig):
    """A counting ranker that raises one of `RAISED` when it is built."""

    error: str

    def build(self, corpus: Corpus, split: Split) -> Ranker:
        raise RAISED[self.error]


def raising(corpus: Corpus, error: str) -> RunConfig:
    """A run that fails with an error of `RAISED`."""
    return RunConfig(corpus=str(corpus.folder), ranker=RaisingConfig(error=error))


# Failures


@pytest.mark.long
def test_a_failing_cell_does_not_stop_the_rest(
    corpus: Corpus, tmp_path: Path, capsys: Capture
) -> None:
    cells = {
        "wrong": impossible(corpus),
        "small": small(corpus),
        "wild": diverging(corpus),
        "popularity": popularity(),
    }
    jobs = run_jobs(study_of(corpus, cells, base="small"), tmp_path, RunOptions())
    states = {job.cell: job.state() for job in jobs}
    assert states == {
        "wrong": "failed", "small": "finished", "wild": "failed", "popularity": "finished"
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "films / wrong / seed 0: failed: InputError: stage finetune: rank_by is 'cloze'" in said
    assert "films / wild / seed 0: failed: FloatingPointError: " in said


def test_a_failure_is_recorded_with_its_traceback(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(ROOT))
    (job,) = run_jobs(study_of(corpus, {"wild": diverging(corpus)}), tmp_path)
    record = json.loads((job.folder / "failed.json").read_text())
    assert record["hash"] == job.record.hash
    assert record["error"].startswith("FloatingPointError: ")
    assert record["error"].startswith(job.failure() or "nothing")
    assert "Traceback (most recent call last):" in record["traceback"]
    assert "train" in record["traceback"]
    # A folder that is shared does not tell where its owner lives.
    assert '"~/research/' in record["traceback"]
    assert str(ROOT) not in record["traceback"]


def test_a_failed_run_is_done_again_on_request_alone(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(corpus, {"small": small(corpus)})

    def save(*given: object, **named: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        (job,) = run_jobs(study, tmp_path)
    assert (job.state(), job.failure()) == ("failed", "ValueError: a bug")
    before = files_of(tmp_path)
    run_jobs(study, tmp_path)
    assert files_of(tmp_path) == before
    run_jobs(study, tmp_path, retry=True)
    assert job.state() == "finished"
    assert not (job.folder / FailureRecord.FILE).exists()


def test_a_full_disk_fails_no_run_and_the_same_command_continues(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(corpus, {"small": small(corpus), "popularity": popularity()})

    def save(*given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(OSError, match="No space left on device"):
            run_jobs(study, tmp_path)
    assert not list(tmp_path.rglob(FailureRecord.FILE))
    assert [job.state() for job in run_jobs(study, tmp_path)] == ["finished", "finished"]


def test_a_run_that_another_study_is_doing_is_left_alone(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(corpus, {"small": small(corpus)})
    folder = tmp_path / "mine" / "films" / "small" / "0"
    folder.mkdir(parents=True)
    other = lock_folder(folder)
    assert other is not None
    with monkeypatch.context() as patched:
        # It waits five seconds otherwise.
        at_once = functools.partial(lock_folder, timeout=0.0)
        patched.setattr(run_folder_module, "lock_folder", at_once)
        with pytest.raises(FolderLocked, match="another process is doing the run in"):
            run_jobs(study, tmp_path)
    assert files_of(folder) == {}
    os.close(other)
    (job,) = run_jobs(study, tmp_path)
    assert job.state() == "finished"


def test_memory_that_ran_out_is_a_failure_of_a_run_in_one_process(
    corpus: Corpus, tmp_path: Path
) -> None:
    (job,) = run_jobs(study_of(corpus, {"large": raising(corpus, "memory")}), tmp_path)
    assert (job.state(), job.failure()) == ("failed", "MemoryError: too much")


def test_a_cell_that_was_changed_after_its_failure_is_done(corpus: Corpus, tmp_path: Path) -> None:
    run_jobs(study_of(corpus, {"cell": impossible(corpus)}), tmp_path)
    (job,) = run_jobs(study_of(corpus, {"cell": small(corpus)}), tmp_path)
    assert job.state() == "finished"
    assert not (job.folder / FailureRecord.FILE).exists()


def test_a_folder_that_holds_another_run_is_refused_before_anything_runs(
    corpus: Corpus, tmp_path: Path
) -> None:
    run_jobs(study_of(corpus, {"b": small(corpus)}), tmp_path)
    before = files_of(tmp_path)
    changed = replace(small(corpus), evaluation=EvaluationConfig(seen="kept"))
    with pytest.raises(InputError, match=r"mine/films/b/0 holds another run .* the cell has"):
        run_jobs(study_of(corpus, {"a": small(corpus), "b": changed}), tmp_path)
    assert files_of(tmp_path) == before


def test_a_start_that_does_not_exist_is_refused_with_the_cells_name(
    corpus: Corpus, tmp_path: Path
) -> None:
    lost = replace(small(corpus), start_from=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="cell lost: start_from"):
        run_jobs(study_of(corpus, {"lost": lost}), tmp_path)


# Shared stages


def pretrained(corpus: Corpus, epochs: int) -> RunConfig:
    return config_of(corpus, PRETRAIN, replace(FINETUNE, epochs=epochs))


@pytest.mark.long
def test_one_pretraining_serves_the_cells_that_have_it_in_common(
    corpus: Corpus, tmp_path: Path
) -> None:
    cells = {"one": pretrained(corpus, 1), "two": pretrained(corpus, 2), "none": small(corpus)}
    jobs = run_jobs(study_of(corpus, cells, base="none"), tmp_path)
    shared = {job.cell: job.summary().shared for job in jobs}
    assert shared == {"one": {}, "two": {"pretrain": "../../one/0"}, "none": {}}
    (alone,) = run_jobs(study_of(corpus, {"two": cells["two"]}), tmp_path / "alone")
    ours = next(job for job in jobs if job.cell == "two").summary()
    for part in ("val", "test"):
        assert vars(ours)[part] == vars(alone.summary())[part]


def test_seeds_share_nothing(corpus: Corpus, tmp_path: Path) -> None:
    jobs = run_jobs(study_of(corpus, {"one": pretrained(corpus, 1)}, seeds=(0, 1)), tmp_path)
    assert [job.summary().shared for job in jobs] == [{}, {}]


# Processes


@pytest.mark.long
def test_processes_do_what_one_process_does(corpus: Corpus, tmp_path: Path, capfd: Capture) -> None:
    cells = {
        "one": pretrained(corpus, 1), "two": pretrained(corpus, 2),
        "wild": diverging(corpus), "popularity": popularity(),
    }  # fmt: skip
    study = study_of(corpus, cells, base="one")
    alone = run_jobs(study, tmp_path / "one")
    together = run_jobs(study, tmp_path / "two", RunOptions(), workers=2, threads=1)
    for a, b in zip(alone, together, strict=True):
        assert (a.name, a.state()) == (b.name, b.state())
        if a.state() == "failed":
            assert (a.cell, a.failure()) == ("wild", b.failure())
            continue
        for part in ("test", "val", "shared"):
            assert vars(a.summary())[part] == vars(b.summary())[part]
    said = capfd.readouterr().out
    assert "films / wild / seed 0: failed: FloatingPointError: " in said
    assert "films / two / seed 0: done in " in said
    # Their lines mix, so each says whose it is.
    assert re.search(r"^  films / two / seed 0: \w+: epoch 1  val/", said, re.MULTILINE)
    assert "\nfinetune: " not in said
    assert "(4 of 4)" in said


def test_processes_under_a_launcher_are_refused(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--workers cannot be used with a launcher"):
        run_jobs(study_of(corpus, {"small": small(corpus)}), tmp_path, workers=2)


SLOW = '''
from dataclasses import replace
from research.studies.study import Study
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of
from research.data.corpus import Corpus
from pathlib import Path

corpus = Corpus.open(Path("CORPUS"))


def study() -> Study:
    """Two cells that share a pretraining, and one of its own; about a second each."""
    long = replace(PRETRAIN, epochs=6)
    cells = {
        "a": config_of(corpus, long, replace(FINETUNE, epochs=12)),
        "b": config_of(corpus, long, replace(FINETUNE, epochs=14)),
        "c": config_of(corpus, replace(FINETUNE, epochs=30)),
    }
    return Study(name="slow", question="?", cells=cells, base="a", corpora=("CORPUS",))
'''


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The study in a process group of its own."""
    root = str(ROOT)
    return subprocess.Popen(
        [sys.executable, "-m", "research", "study", "slow_study", "--no-probe", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def at_work(corpus: Corpus, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A study whose one worker trains, for longer than any test takes; and its run's folder."""
    text = SLOW.replace("CORPUS", str(corpus.folder)).replace("epochs=30", "epochs=100_000")
    (folder / "slow_study.py").write_text(text)
    process = started(folder, "--cells", "c", "--workers", "2", "--threads", "1")
    run = folder / "runs" / "slow" / "films" / "c" / "0"
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, run


def outcome(out: Path) -> dict[str, object]:
    """All that a study's tables are made from."""
    found: dict[str, object] = {}
    for path in sorted((out / "slow" / "films").glob("*/*/summary.json")):
        summary = json.loads(path.read_text())
        table = RankTable.load(path.parent / "ranks" / "test-full.npz")
        cell = path.parent.parent.name
        found[cell] = (summary["val"], summary["test"], summary["best"], table.rank.tolist())
        lines = RunFolder(path.parent, writes=False).metrics()
        found[f"{cell} lines"] = [(line["stage"], line["step"], line["epoch"]) for line in lines]
    return found


@pytest.mark.long
def test_a_study_that_is_killed_again_and_again_ends_as_if_undisturbed(
    corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "slow_study.py").write_text(SLOW.replace("CORPUS", str(corpus.folder)))
    undisturbed = started(tmp_path, "--runs", "whole", "--threads", "1")
    begun = time.monotonic()
    said, _ = undisturbed.communicate(timeout=120)
    whole = time.monotonic() - begun
    assert undisturbed.returncode == 0, said
    draws = random.Random(KILLS)
    for kill in range(KILLS):
        # Both ways of working are killed at any moment of what an undisturbed study takes.
        process = started(tmp_path, "--threads", "1", "--workers", str(1 + kill % 2))
        time.sleep(draws.uniform(0.3, 1.0) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    last = started(tmp_path, "--threads", "1")
    said, _ = last.communicate(timeout=120)
    assert last.returncode == 0, said
    expected = outcome(tmp_path / "whole")
    assert set(expected) == {"a", "b", "c", "a lines", "b lines", "c lines"}
    assert outcome(tmp_path / "runs") == expected


@pytest.mark.long
def test_a_worker_does_not_outlive_the_process_that_began_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    process, folder = at_work(corpus, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    # A line that is being written may still come; then there are no more.
    time.sleep(1.0)
    size = (folder / "metrics.jsonl").stat().st_size
    time.sleep(1.0)
    assert (folder / "metrics.jsonl").stat().st_size == size


@pytest.mark.long
def test_ctrl_c_stops_a_study_cleanly(corpus: Corpus, tmp_path: Path) -> None:
    process, folder = at_work(corpus, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped by SIGINT; the same command continues" in said
    assert "Traceback" not in said
    assert not (folder / FailureRecord.FILE).exists()


def children_of(process: int) -> list[int]:
    """The process IDs of a process's children (Linux)."""
    return [
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def fork_server_of(process: subprocess.Popen[str]) -> int:
    """The process ID of the server that makes a study's workers."""
    (server,) = [
        each
        for each in children_of(process.pid)
        if b"forkserver" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    return server


@pytest.mark.long
def test_a_worker_that_is_stopped_leaves_its_run_to_be_continued(
    corpus: Corpus, tmp_path: Path
) -> None:
    process, folder = at_work(corpus, tmp_path)
    (worker,) = children_of(fork_server_of(process))
    os.kill(worker, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "  films / c / seed 0: stopped  (1 of 1)\n" in said
    assert "stopped: films / c / seed 0; the same command continues it\n" in said
    assert "Traceback" not in said
    assert not (folder / FailureRecord.FILE).exists()
    assert checkpoint.checkpoints_by_step(folder / "stages" / "finetune", "step")


@pytest.mark.long
def test_a_fork_server_that_is_stopped_leaves_runs_to_be_continued(
    corpus: Corpus, tmp_path: Path
) -> None:
    process, folder = at_work(corpus, tmp_path)
    os.kill(fork_server_of(process), signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped: films / c / seed 0; the same command continues it\n" in said
    assert not (folder / FailureRecord.FILE).exists()


@pytest.mark.parametrize(
    ("code", "outcome", "failure"),
    [
        (0, "done", None),
        (255, "stopped", None),
        (75, "stopped", None),
        (DISK_ERROR, "stopped", None),
        (-signal.SIGTERM, "stopped", None),
        (-signal.SIGKILL, "failed", "the process ended with SIGKILL"),
        (1, "failed", "the process ended with exit code 1"),
    ],
)
def test_how_a_worker_ended_says_what_came_of_its_job(
    tmp_path: Path, code: int, outcome: str, failure: str | None
) -> None:
    job = replace(job_named("a"), folder=tmp_path)
    assert (outcome_of(job, code), job.failure()) == (outcome, failure)


@pytest.mark.parametrize(
    ("given", "number", "asked", "names"),
    [
        (None, 2, None, ["0", "1"]), ("2,3", 2, "cuda", ["2", "3"]), ("MIG-a", 1, None, ["MIG-a"]),
        ("", 0, None, []), ("2,3", 2, "cpu", []), ("2,3", 2, "cuda:1", ["3"]),
        (None, 2, "cuda:0", ["0"]),
    ],
)  # fmt: skip
def test_workers_take_the_gpus_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    number: int,
    asked: str | None,
    names: list[str],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    assert visible_devices(asked) == names


def test_a_job_waits_only_for_a_stage_that_is_still_being_trained(
    corpus: Corpus, tmp_path: Path
) -> None:
    cells = {"one": pretrained(corpus, 1), "two": pretrained(corpus, 2), "none": small(corpus)}
    study = study_of(corpus, cells, base="none")
    one, two, none = run_study(
        study, tmp_path, options=QUIET, accelerator=make_accelerator(),
        study_options=StudyOptions(plan_only=True, probe=False),
    )  # fmt: skip
    running = [Worker(multiprocessing.Process(), one, 0, 0.0)]
    assert must_wait(two, running)
    assert not must_wait(none, running)
    assert not must_wait(two, [])
    # The first job's pretraining has ended, and it goes on with its fine-tuning.
    run_job(one, QUIET, make_accelerator())
    assert not must_wait(two, running)


@pytest.mark.long
def test_an_error_that_one_of_several_processes_meets_ends_them_all(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = run_study(
        study_of(corpus, {"small": small(corpus)}), tmp_path,
        options=QUIET, accelerator=make_accelerator(),
        study_options=StudyOptions(plan_only=True, probe=False),
    )  # fmt: skip
    accelerator = OneOfTwo(cpu=True)
    # What all of them meet alike is recorded, and the study goes on.
    alike = [InputError("wrong"), FloatingPointError("nan")]
    passing = [
        OSError(errno.ENOSPC, "No space left on device"), FolderLocked("held"), MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Connection reset by peer"),
    ]  # fmt: skip
    bugs = [ValueError("a bug")]
    raised, recorded = [], []
    for error in (*alike, *passing, *bugs):

        def fail(*given: object, error: Exception = error, **named: object) -> None:
            raise error

        # A run of two processes exchanges values before anything of its config is called.
        monkeypatch.setattr(job_module, "execute", fail)
        try:
            assert not run_job(jobs[0], QUIET, accelerator)
        except type(error) as met:
            raised.append(met)
        if jobs[0].state() == "failed":
            recorded.append(error)
    assert raised == [*passing, *bugs]
    assert recorded == [*alike, *bugs]


# What is said


def job_named(cell: str) -> Job:
    config = popularity()
    return Job("c", cell, 0, config, Path("nowhere"), run_record(config))


def test_the_name_of_a_cell_is_no_command_to_a_terminal(tmp_path: Path, capsys: Capture) -> None:
    job = replace(job_named("\x1b[2Ja"), folder=tmp_path)
    assert job.name == "c / \ufffd[2Ja / seed 0"
    record_failure(job, RunFolder(tmp_path), "\x1b[2Jgone\nmore", "")
    progress = Progress(1, {job: 1.0}, 1, False)
    progress.begin(job)
    progress.end(job, 1.0, "failed")
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .startswith("  c / \ufffd[2Ja / seed 0: failed: \ufffd[2Jgone  (")
    )


def test_the_time_that_is_left_is_corrected_by_the_time_that_was_taken(capsys: Capture) -> None:
    jobs = [job_named(cell) for cell in "abc"]
    progress = Progress(3, dict.fromkeys(jobs, 100.0), 1, False)
    progress.begin(jobs[0])
    assert capsys.readouterr().out == "— c / a / seed 0  (1 of 3, about 5 min left)\n"
    progress.end(jobs[0], 210.0, "done")
    progress.begin(jobs[1])
    # Twice as slow as foreseen: 200 s become 400 s.
    assert capsys.readouterr().out == "— c / b / seed 0  (2 of 3, about 7 min left)\n"
    # What was stopped tells nothing of how long runs take.
    progress.end(jobs[1], 1.0, "stopped")
    said = "  c / b / seed 0: stopped  (2 of 3, about 3 min left)\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (89.4, "89 s"), (91, "2 min"), (5399, "90 min"), (5401, "1.5 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration_text(seconds) == said


@pytest.mark.long
def test_a_plan_runs_nothing(capsys: Capture, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "slow_study.py").write_text(SLOW.replace("CORPUS", str(corpus.folder)))
    study = study_of(corpus, {"one": pretrained(corpus, 1), "two": pretrained(corpus, 2)})
    study_options = StudyOptions(plan_only=True)
    jobs = run_study(
        study, tmp_path, options=QUIET, accelerator=make_accelerator(), study_options=study_options
    )
    assert [job.state() for job in jobs] == ["new", "new"]
    assert not (tmp_path / "mine").exists()
    said = capsys.readouterr().out
    assert "no common budget: each cell has its own limits" in said
    assert "2 runs, about " in said


@pytest.mark.long
def test_what_is_shared_is_foreseen_once(corpus: Corpus, tmp_path: Path) -> None:
    long = replace(PRETRAIN, epochs=4000)
    cells = {
        "one": config_of(corpus, long, replace(FINETUNE, epochs=1)),
        "two": config_of(corpus, long, replace(FINETUNE, epochs=2)),
    }
    jobs = run_study(
        study_of(corpus, cells), tmp_path, options=QUIET, accelerator=make_accelerator(),
        study_options=StudyOptions(plan_only=True, probe=False),
    )  # fmt: skip
    first, second = estimate_jobs(jobs, {}, "data", make_accelerator(), True)
    assert first.seconds > 5.0
    assert second.seconds < 2.0


def test_numbers_of_another_seed_are_what_a_run_takes(corpus: Corpus, tmp_path: Path) -> None:
    run_jobs(study_of(corpus, {"small": small(corpus)}), tmp_path)
    both = study_of(corpus, {"small": small(corpus)}, seeds=(0, 1))
    jobs = run_study(
        both, tmp_path, options=QUIET, accelerator=make_accelerator(),
        study_options=StudyOptions(plan_only=True, probe=False),
    )  # fmt: skip
    took = {jobs[0]: jobs[0].cost()}
    (estimate,) = estimate_jobs(jobs[1:], took, "data", make_accelerator(), True)
    cost = jobs[0].summary().cost
    assert cost.evaluation_seconds is not None
    assert estimate.seconds == pytest.approx(cost.seconds + cost.evaluation_seconds)
    assert np.isfinite(estimate.seconds)
    assert estimate.peak_bytes is not None
    assert estimate.peak_bytes > 1 << 20


def test_what_finished_runs_took_is_not_read_by_a_process_that_may_not_see_them() -> None:
    jobs = [job_named("a"), replace(job_named("a"), seed=1)]
    cost = JobCost(12.5, 1000)
    assert estimate_jobs(jobs[1:], {jobs[0]: cost}, "data", make_accelerator(), True) == [cost]


@pytest.mark.parametrize(
    ("processes", "error", "swallowed"),
    [
        (1, "memory", True),
        (2, "memory", False),
        (2, "input", True),
        (2, "not finite", True),
    ],
)
def test_a_trial_that_fails_in_one_of_several_processes_is_not_passed_over(
    corpus: Corpus, processes: int, error: str, swallowed: bool
) -> None:
    accelerator = make_accelerator() if processes == 1 else OneOfTwo(cpu=True)
    job = replace(job_named("a"), config=raising(corpus, error))
    if swallowed:
        assert estimate_jobs([job], {}, "data", accelerator, True) == [JobCost(0.0)]
        return
    with pytest.raises(type(RAISED[error]), match=str(RAISED[error])):
        estimate_jobs([job], {}, "data", accelerator, True)


@pytest.mark.long
def test_a_study_goes_on_where_one_process_alone_sees_the_runs(
    corpus: Corpus, tmp_path: Path
) -> None:
    text = SLOW.replace("CORPUS", str(corpus.folder)).replace("epochs=30", "epochs=1")
    (tmp_path / "slow_study.py").write_text(text)
    command = ["-m", "research", "study", "slow_study", "--cells", "c", "--quiet", "--runs"]
    cells = {"c": config_of(corpus, replace(FINETUNE, epochs=1))}
    run_jobs(
        study_of(corpus, cells, name="slow", metrics=("hr@10", "ndcg@10", "mrr")), tmp_path / "0"
    )
    port = str(free_port())
    environments = [
        {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        }
        for rank in range(2)
    ]  # fmt: skip
    commands = [
        [sys.executable, *command, str(tmp_path / str(rank)), "--seeds", "2"] for rank in range(2)
    ]
    with launched(commands, environments, tmp_path / "said") as ranks:
        assert ranks.wait_for_exit()[0] == [0, 0], ranks.text
    assert sorted(each.name for each in (tmp_path / "0/slow/films/c").iterdir()) == ["0", "1"]
    assert not (tmp_path / "1").exists()
