"""Weights that are split over processes learn what copied ones do, and are kept in the same files.

All cases are done once for all tests, with copied weights in one process, then with split ones in
three and in two, in float64 (but for bf16) and without dropout; on the CPU, by gloo:

    python -m tests.training.test_fsdp FOLDER

does them on the corpus FOLDER/corpus into FOLDER/<world>/<case>.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from research.data.loader import BatchConfig
from research.distributed.accelerator import accelerator_for
from research.distributed.collectives import Processes
from research.errors import InputError
from research.model.compute import ComputeConfig
from research.model.gru import GRUConfig
from research.model.item_table import ItemTableConfig
from research.objectives.base import LossSum
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.map import MAPConfig
from research.objectives.masked_vector import MaskedVectorConfig
from research.objectives.next_item import NextItemConfig
from research.runs.checks import check_sharding
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute, open_parts
from research.runs.finish import evaluate_run
from research.runs.parts import stage_parts, validation_of
from research.runs.run_hash import record_of
from research.runs.stages import TrainingResult, transfer_from_stages
from research.storage.records import CostRecord
from research.storage.run_folder import RunFolder
from research.training.averaging import CheckpointAverage
from research.training.config import StageConfig
from research.training.loop import train
from research.training.multi_objective import MultiObjectiveModel, StepInputs
from research.training.optimizer import OptimizerConfig
from research.training.stage_run import CheckpointPlan, StageRun
from tests.support.launching import free_port, launched
from tests.support.rank_worker import ALL_SIX, EMA, SIX, SIZES, TWO_STAGES, VALIDATED, stage
from tests.support.same_runs import assert_same_losses, assert_same_tables, lines_of
from tests.support.synthetic import markov_histories, write_histories

pytestmark = pytest.mark.long

LIMIT_SECONDS = 120.0
# Five rows a step: some pieces of a process's share are empty.
CUT = BatchConfig(sequences_per_batch=5, micro_batches=2)
# A row that is not trained, which competes; and a table and biases of a head's own.
SPECIAL = NextItemConfig(head=HeadConfig(transform="nonlinear", special_classes=True))
OWN = ClozeConfig(head=HeadConfig(table="own", bias=True))
RECURRENT = GRUConfig(length=5, width=4, hidden_width=6, layers=2, embedding_dropout=0.0)
HEADS = {"next": SPECIAL, "cloze": OWN, "map": MAPConfig(), "vectors": MaskedVectorConfig()}
STAGES: dict[str, tuple[StageConfig, ...]] = {
    "all six": (replace(ALL_SIX, batches=CUT),),
    "heads": (stage("train", HEADS, steps=8, max_skipped=1, averaging=EMA),),
    "bf16": (stage("train", SIX, steps=2),),
    "another backbone": (
        stage(
            "train", {"next": NextItemConfig()}, steps=None, epochs=3, validation=VALIDATED,
            averaging=CheckpointAverage(last=2),
        ),
    ),
    "two stages": tuple(replace(each, gradients_every=None) for each in TWO_STAGES),
}  # fmt: skip
# What is done in how many processes; the run that is resumed goes from one to three, then to two.
CASES = {
    1: ["all six", "heads", "two stages", "another backbone"],
    3: ["all six"],
    2: ["all six", "heads", "bf16", "another backbone"],
}
OTHERS = [(world, case) for world in (2, 3) for case in CASES[world] if case != "bf16"]
# In this step of "heads" the last process's loss is not finite, so it is left out.
BAD_STEP = 4


def run_of(corpus: Path, case: str, *, split: bool) -> RunConfig:
    """A case with copied or split weights."""
    compute = ComputeConfig(
        precision="bf16" if case == "bf16" else "fp32",
        recompute=case == "all six" and split,
        shard_weights=split,
    )
    return RunConfig(
        corpus=str(corpus),
        encoder=RECURRENT if case == "another backbone" else SIZES,
        items=ItemTableConfig(attributes=case == "heads"),
        stages=STAGES[case],
        evaluation=EvaluationConfig(candidates=("full", "uniform-3", "popularity-3")),
        compute=compute,
    )


class Stopped(Exception):
    """The run is left here, as a killed process leaves it."""


@contextmanager
def stopping_before(step: int) -> Iterator[None]:
    """`Stopped` before the optimizer's step with this number, counted from 0 in this process."""
    taken = 0

    def count(*rest: object) -> None:
        nonlocal taken
        if taken == step:
            raise Stopped
        taken += 1

    hook = register_optimizer_step_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def bad_step(number: int, last: bool) -> Iterator[None]:
    """In the last process the losses of one step are as they are, but their gradients infinite."""
    forward, seen_steps = MultiObjectiveModel.forward, 0

    def spoiled(
        self: MultiObjectiveModel, seen: StepInputs, *, measured: bool = False
    ) -> dict[str, LossSum]:
        nonlocal seen_steps
        losses = forward(self, seen, measured=measured)
        seen_steps += 1
        if not last or seen_steps != number:
            return losses
        return {
            key: replace(loss, total=loss.total + (loss.total - loss.total.detach()).sqrt())
            for key, loss in losses.items()
        }

    MultiObjectiveModel.forward = spoiled  # type: ignore[method-assign]
    try:
        yield
    finally:
        MultiObjectiveModel.forward = forward  # type: ignore[method-assign]


def do(config: RunConfig, path: Path, accelerator: Accelerator) -> None:
    """A run's stages and its rank tables."""
    run_parts = open_parts(config, "none", Processes(accelerator))
    stages = stage_parts(run_parts, accelerator)
    folder = RunFolder(path, writes=accelerator.is_main_process)
    with folder if folder.writes else nullcontext():
        for place, each in enumerate(stages):
            transfer_from_stages(stages[:place], each, None)
            run = StageRun(
                accelerator=accelerator,
                folder=folder,
                seed=config.seed,
                shard_weights=config.compute.shard_weights,
                validate=validation_of(run_parts, each),
                quiet=True,
            )
            train(each.model, each.loader, each.config, run)
        assert stages[-1].ranker is not None
        cost = CostRecord(parameters=0, seconds=0.0)
        trained = TrainingResult(ranker=stages[-1].ranker, cost=cost)
        sets = run_parts.candidate_sets(run_parts.split.test, "test")
        evaluate_run(
            run_parts,
            trained,
            sets,
            record_of(config, run_parts.corpus),
            folder,
            torch.device("cpu"),
        )
    accelerator.free_memory()


def resume(folder: Path, accelerator: Accelerator, stop_at: int, *, split: bool) -> None:
    """A part of the run FOLDER/resumed, which is left before a step of its own."""
    config = run_of(folder / "corpus", "two stages", split=split)
    options = RunOptions(quiet=True, checkpoints=CheckpointPlan(steps=3))
    with stopping_before(stop_at), suppress(Stopped):
        execute(config, folder / "resumed", options=options, accelerator=accelerator)
    accelerator.free_memory()


def work(folder: Path) -> None:
    """The cases of so many processes, and a part of the run that is resumed."""
    accelerator = accelerator_for(None, ComputeConfig())
    world, last = accelerator.num_processes, accelerator.is_last_process
    corpus, own = folder / "corpus", folder / str(accelerator.num_processes)
    torch.set_default_dtype(torch.float64)
    for case in CASES[world]:
        if case == "bf16":
            continue
        with bad_step(BAD_STEP, last) if case == "heads" else nullcontext():
            do(run_of(corpus, case, split=world > 1), own / case, accelerator)
    # Copied in one, split in three, copied in two, split in two.
    resume(folder, accelerator, {1: 4, 3: 12, 2: 7}[world], split=world == 3)
    if world == 2:
        resume(folder, accelerator, -1, split=True)
        torch.set_default_dtype(torch.float32)
        accelerator = accelerator_for(None, ComputeConfig(precision="bf16"))
        for name, split in (("bf16", True), ("bf16, copied", False)):
            do(run_of(corpus, "bf16", split=split), own / name, accelerator)
    accelerator.end_training()


def forked(environment: dict[str, str], folder: Path) -> int:
    """The id of a new process that does the work and ends with 0, or prints why not."""
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(environment)
        work(folder)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def main(folder: Path) -> None:
    """One world after another; the first process that fails ends all."""
    # An optimizer imports a good part of torch.
    torch.optim.Adam([torch.zeros(1)])
    gc.freeze()
    for world in (1, 3, 2):
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        running = {
            forked(
                {**shared, "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                if world > 1
                else {},
                folder,
            )
            for rank in range(world)
        }
        while running:
            ended, status = os.wait()
            running.remove(ended)
            if status:
                for each in running:
                    os.kill(each, signal.SIGKILL)
                sys.exit(f"a process of {world} failed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders of all numbers of processes; pytest's own workers share one launch."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sharded"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done").exists():
            # A launch that fails is not tried again.
            (shared / "done").touch()
            launch(shared)
    return shared


def launch(folder: Path) -> None:
    histories = markov_histories(num_users=17, num_items=12, length=11, seed=4)
    # One training item each (the last two are held out), and none that has an attribute.
    histories += [[0, 1, 2], [3, 4, 5], [6, 7, 8], [12, 13, 14, 12, 13, 14], [14, 13, 12, 13]]
    attributes = [[item % 3, 3 + item % 2] for item in range(12)] + [[], [], []]
    vectors = np.random.default_rng(0).normal(size=(15, 3))
    write_histories(
        folder / "corpus", histories, num_items=15, attributes=attributes, num_attributes=5,
        vectors=vectors,
    )  # fmt: skip
    command = [sys.executable, "-W", "error", "-m", "tests.training.test_fsdp", str(folder)]
    with launched([command], [{"CUDA_VISIBLE_DEVICES": ""}], folder / "said") as ranks:
        codes, _ = ranks.wait_for_exit(timeout=LIMIT_SECONDS)
        assert codes == [0], ranks.text


def assert_same_files(ours: Path, theirs: Path, tolerance: float) -> None:
    """Each stage's last checkpoint holds tensors of the same names, shapes and types, whole."""
    for last in (max(each.glob("step_*")) for each in sorted((theirs / "stages").iterdir())):
        for name in sorted(path.name for path in last.glob("*.safetensors")):
            first = load_file(ours / last.relative_to(theirs) / name)
            second = load_file(last / name)
            assert first.keys() == second.keys()
            for key, tensor in first.items():
                torch.testing.assert_close(tensor, second[key], rtol=0.0, atol=tolerance)


@pytest.mark.parametrize(("world", "case"), OTHERS)
def test_split_weights_learn_what_copied_ones_do(folder: Path, world: int, case: str) -> None:
    ours, theirs = folder / str(world) / case, folder / "1" / case
    assert_same_losses(ours, theirs)
    assert_same_tables(ours, theirs)
    # Where a gradient is zero but for rounding, Adam makes more of it.
    assert_same_files(ours, theirs, 1e-7)


def test_a_run_goes_on_with_split_weights_and_with_copied_ones(folder: Path) -> None:
    resumed, whole = folder / "resumed", folder / "1" / "two stages"
    assert_same_losses(resumed, whole)
    assert_same_tables(resumed, whole)
    assert_same_files(resumed, whole, 1e-7)


def test_in_bf16_split_weights_learn_what_copied_ones_do(folder: Path) -> None:
    # Gradients are summed in fp32, in another order; by the same processes, as a batch that is cut
    # otherwise rounds otherwise.
    ours, theirs = folder / "2" / "bf16", folder / "2" / "bf16, copied"
    for one, other in zip(lines_of(ours), lines_of(theirs), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-4)
    assert_same_files(ours, theirs, 1e-4)


@pytest.mark.parametrize("world", [1, 2])
def test_a_gradient_that_is_not_finite_is_left_out(folder: Path, world: int) -> None:
    (state,) = (folder / str(world) / "heads").rglob("state.json")
    stored = json.loads(state.read_text())
    assert (stored["step"], stored["skipped"]) == (8, 1)


def test_what_does_not_go_with_split_weights_is_refused(tmp_path: Path) -> None:
    given = run_of(tmp_path, "two stages", split=True)
    check_sharding(given)
    measured = replace(given, stages=TWO_STAGES)
    with pytest.raises(InputError, match="stage finetune: gradients_every is 5, but with compute"):
        check_sharding(measured)
    check_sharding(replace(measured, compute=ComputeConfig()))
    momentum = stage("plain", {"next": NextItemConfig()}, optimizer=OptimizerConfig(method="sgd"))
    with pytest.raises(InputError, match=r"stage plain: optimizer\.method is sgd, which torch"):
        check_sharding(replace(given, stages=(momentum,)))
    with pytest.raises(InputError, match="shard_weights does not go with precision fp16"):
        ComputeConfig(precision="fp16", shard_weights=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
