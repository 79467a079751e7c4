"""One, two and three processes do the same science: gradients, losses and rank tables.

tests/support/rank_worker.py does all cases in as many processes, once for all tests, in float64
(fp32 where said) and without dropout, whose draws are a process's own. Where two GPUs or more are
to be seen, a process runs on each of up to three of them, with NCCL, by the same command:

    python -m pytest tests/distributed/test_collectives.py
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from research.evaluation.rank_table import RankTable
from tests import ROOT
from tests.support.rank_worker import CUT, STAGES
from tests.support.same_runs import assert_same_losses, assert_same_tables, lines_of
from tests.support.synthetic import markov_histories, write_histories

pytestmark = pytest.mark.long

GPUS = torch.cuda.device_count()
# One process comes first: the run that is resumed then goes to three processes and on to two.
WORLDS = [1, 3, 2] if GPUS < 2 else [1, *range(2, min(GPUS, 3) + 1)]
STOPS = ["pretrain:10", "finetune:7", "never"][3 - len(WORLDS) :]
OTHERS = [world for world in WORLDS if world > 1]
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
LIMIT_SECONDS = 600.0
# Each line's loss is that of another objective.
TAKING_TURNS = ("one objective a step",)
CASES = [case for case in STAGES if case not in CUT]


def launch(folder: Path, parts: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run tests/support/rank_worker.py; whatever becomes of it, no process is left."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.rank_worker", str(folder), *parts],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said


def launch_all(folder: Path) -> None:
    """All cases in all worlds, on a corpus of everything that a share can lack."""
    histories = markov_histories(num_users=17, num_items=12, length=11, seed=4)
    # One training item each (the last two are held out), and none that has an attribute.
    histories += [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    histories += [[12, 13, 14, 12, 13, 14], [14, 13, 12, 13], [13, 12, 14, 13, 12]]
    attributes = [[item % 3, 3 + item % 2] for item in range(12)] + [[], [], []]
    write_histories(
        folder / "corpus", histories, num_items=15, attributes=attributes, num_attributes=5,
        vectors=np.random.default_rng(5).normal(size=(15, 3)),
    )  # fmt: skip
    write_histories(folder / "other", [*histories, [0, 1, 2, 3]], num_items=15)
    parts = [f"{world}={stop}" for world, stop in zip(WORLDS, STOPS, strict=True)]
    launch(folder, parts, {} if GPUS > 1 else NO_GPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders of all worlds; pytest's own workers share one set of launches."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    shared = base / "processes"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done").exists():
            # A launch that fails is not tried again.
            (shared / "done").touch()
            launch_all(shared)
    return shared


def assert_same_gradients(ours: Path, theirs: Path, tolerance: float) -> None:
    """Within `tolerance` of each tensor's largest entry."""
    first, second = (load_file(run / "gradients.safetensors") for run in (ours, theirs))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        # Those that are zero but for rounding have no scale of their own.
        allowed = tolerance * gradient.abs().max().item() + 1e-6 * tolerance
        assert (gradient - second[name]).abs().max().item() <= allowed, name


@pytest.mark.parametrize("world", OTHERS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_do_not_depend_on_the_number_of_processes(
    folder: Path, case: str, world: int
) -> None:
    assert_same_gradients(folder / str(world) / case, folder / "1" / case, 1e-10)


@pytest.mark.parametrize("world", OTHERS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_rank_tables_do_not_depend_on_the_number_of_processes(
    folder: Path, case: str, world: int
) -> None:
    assert_same_losses(folder / str(world) / case, folder / "1" / case)
    assert_same_tables(folder / str(world) / case, folder / "1" / case)


@pytest.mark.parametrize("world", sorted(WORLDS))
@pytest.mark.parametrize("case", CUT)
def test_a_share_cut_into_micro_batches_is_the_same_step(
    folder: Path, case: str, world: int
) -> None:
    cut, whole = folder / str(world) / case, folder / "1" / CUT[case]
    assert_same_gradients(cut, whole, 1e-10)
    assert_same_losses(cut, whole)
    assert_same_tables(cut, whole)


@pytest.mark.parametrize("world", OTHERS)
def test_in_single_precision_gradients_agree_to_its_rounding(folder: Path, world: int) -> None:
    found = load_file(folder / str(world) / "fp32" / "gradients.safetensors")
    assert {each.dtype for each in found.values()} == {torch.float32}
    assert_same_gradients(folder / str(world) / "fp32", folder / "1" / "fp32", 1e-5)


def test_single_precision_differs_from_double_by_no_more_than_rounding(folder: Path) -> None:
    single, double = (
        load_file(folder / "1" / name / "gradients.safetensors") for name in ("fp32", "all six")
    )
    for name, gradient in double.items():
        largest = gradient.abs().max().item()
        assert (single[name] - gradient).abs().max().item() <= 1e-5 * largest + 1e-8, name


def test_a_run_that_goes_on_in_more_and_in_fewer_processes_ends_the_same(folder: Path) -> None:
    resumed, whole = folder / "resumed", folder / "1" / "two stages"
    assert_same_losses(resumed, whole)
    assert_same_tables(resumed, whole)


@pytest.mark.parametrize("world", OTHERS)
def test_every_process_ranks_a_share_of_the_questions(folder: Path, world: int) -> None:
    for case in CASES:
        (whole,), shares = (
            json.loads((folder / str(each) / case / "num_ranked.json").read_text())["by rank"]
            for each in (1, world)
        )
        assert len(shares) == world
        assert sum(shares) == whole
        # Two rankings at the end, and at most four of validation.
        assert max(shares) - min(shares) <= 6


@pytest.mark.parametrize("world", OTHERS)
@pytest.mark.parametrize("name", ["seed", "corpus"])
def test_processes_with_another_config_or_corpus_say_so_all_alike(
    folder: Path, world: int, name: str
) -> None:
    said = json.loads((folder / str(world) / "mismatch_errors.json").read_text())[name]
    assert said == [said[0]] * world
    assert re.match(f"run of rank {world - 1} on .* is .*, of rank 0 on .*; give every ", said[0])
    assert not (folder / "refused").exists()


@pytest.mark.parametrize("world", OTHERS)
def test_processes_cannot_move_touched_rows_alone(folder: Path, world: int) -> None:
    said = json.loads((folder / str(world) / "mismatch_errors.json").read_text())["touched"]
    assert said == [said[0]] * world
    assert re.match(f"stage finetune: .*, which is for one process, but there are {world}", said[0])
    assert not (folder / "refused").exists()


@pytest.mark.skipif(GPUS == 0, reason="no GPU here")
def test_a_gpu_takes_the_steps_of_a_cpu(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").symlink_to(folder / "corpus")
    launch(tmp_path, ["1=never"], NO_GPU if GPUS > 1 else {})
    for case in CASES:
        assert_same_gradients(tmp_path / "1" / case, folder / "1" / case, 1e-10)
        assert_same_losses(tmp_path / "1" / case, folder / "1" / case)
        assert_same_tables(tmp_path / "1" / case, folder / "1" / case)


def test_losses_fall_and_tables_hold_every_question(folder: Path) -> None:
    """So that what is compared above is training, and not nothing."""
    for case in CASES:
        name = STAGES[case][-1].name
        lines = lines_of(folder / "1" / case)
        losses = [line[f"{name}/loss"] for line in lines if f"{name}/loss" in line]
        if name != "ranks" and case not in TAKING_TURNS:
            assert np.mean(losses[-5:]) < np.mean(losses[:5]), case
        assert len(RankTable.load(folder / "1" / case / "ranks" / "test-full.npz")) == 23
