"""Decides when a stage is saved, and fills model and optimizer from its newest checkpoint.

The loop (`research/training/loop.py`) has one `Checkpointer` a stage. The main process alone reads
and writes the files (`research/checkpoint/files.py`), and sends the others what they hold.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import get_type_hints

import torch
from torch import Tensor

from research.annotations import convert_value
from research.checkpoint import files as checkpoint
from research.checkpoint.tensors import fill_optimizer, fill_weights, moments_of, weights_of
from research.distributed.activity import ACTIVITY
from research.distributed.collectives import Processes
from research.errors import InputError
from research.training.stage_run import StageRun
from research.training.state import StageState
from research.training.weights import Weights


class Checkpointer:
    """The checkpoints of one stage, from which a killed run continues."""

    def __init__(
        self,
        stage: str,
        fingerprint: str,
        run: StageRun,
        weights: Weights,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """`stage` is a name, `fingerprint` the corpus's; `optimizer` steps `weights.trained`."""
        self.stage = run.folder.stage(stage)
        self.fingerprint = fingerprint
        self.plan = run.plan
        self.accelerator = run.accelerator
        self.processes = Processes(run.accelerator)
        self.weights = weights
        self.optimizer = optimizer
        self._saved_at = time.monotonic()
        self._asked = False

    def is_save_due_by_time(self) -> bool:
        """Whether a checkpoint is due by wall time, which only the main process decides.

        With several processes it says so once until the next save.
        """
        late = time.monotonic() - self._saved_at >= self.plan.seconds
        if not late or self._asked or not self.processes.main:
            return False
        # Several processes save a step later, when all know of it; one process saves at once.
        self._asked = self.processes.world > 1
        return True

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps, by the plan's number of steps."""
        return self.plan.steps is not None and step % self.plan.steps == 0

    def save(self, state: StageState, *, best: bool = False) -> None:
        """Write a checkpoint of the stage, and delete those that are no longer kept.

        With `best` the weights are first written as the best ones, under the step that
        `state.best_step` names. All processes call it together.
        """
        with self.weights.averaged.in_module():
            if best:
                assert state.best_step == state.step
                self._write(checkpoint.BEST, None, {}, state)
            self._saved_at, self._asked = time.monotonic(), False
            self._write(checkpoint.STEP, self.optimizer, self.weights.averaged.tensors(), state)
        if self.processes.main:
            checkpoint.prune(self.stage, state.step, self.plan.keep)
        ACTIVITY.progress()

    def _write(
        self,
        kind: str,
        optimizer: torch.optim.Optimizer | None,
        averaging: Mapping[str, Tensor],
        state: StageState,
    ) -> None:
        target = checkpoint.folder_of(self.stage, kind, state.step)
        record = {"fingerprint": self.fingerprint, **asdict(state)}
        trained, on_host = self.weights.trained, self.weights.on_host
        if self.processes.main:
            checkpoint.save(
                target, trained, optimizer, record, averaging=averaging, on_host=on_host
            )
        elif self.weights.sharded:
            # Every process sends its parts to the main process, in the order in which that one
            # receives them.
            weights_of(trained, on_host)
            if optimizer is not None:
                moments_of(optimizer, on_host)
            for tensor in averaging.values():
                on_host(tensor)

    def load(self) -> StageState:
        """Fill everything from the newest undamaged checkpoint, and return the stage's state in it.

        That is weights, averages and optimizer. Without a checkpoint nothing is filled and the
        state is that of a new stage. `InputError` when all checkpoints are damaged, or when one
        belongs to another corpus, version or configuration. All processes call it together.
        """
        weights, moments, averaging = (dict[str, Tensor]() for _ in range(3))

        def read() -> tuple[str, Mapping[str, object]] | None:
            if (
                not checkpoint.checkpoints_by_step(self.stage)
                and not (self.stage / "last").exists()
            ):
                return None
            folder, stored = checkpoint.newest_state(self.stage, self.fingerprint)
            weights.update(checkpoint.read_weights(folder))
            moments.update(checkpoint.read_optimizer(folder))
            averaging.update(checkpoint.read_averaging(folder))
            return str(folder), stored

        newest = self.processes.from_main(read)
        if newest is None:
            return StageState()
        path, stored = newest
        state = state_of(stored, path)
        local_part = self.weights.local_part
        with self.weights.averaged.in_module():
            tensors = self.processes.tensors_of_main(weights)
            source = f"{path}/{checkpoint.MODEL}"
            fill_weights(tensors, self.weights.trained, source, local_part=local_part)
            tensors = self.processes.tensors_of_main(averaging)
            self.weights.averaged.fill(tensors, f"{path}/{checkpoint.AVERAGING}", local_part)
        tensors = self.processes.tensors_of_main(moments)
        source = f"{path}/{checkpoint.OPTIMIZER}"
        fill_optimizer(tensors, self.optimizer, source, local_part=local_part)
        if self.processes.main:
            checkpoint.prune(self.stage, state.step, self.plan.keep)
        return state

    def load_result(self, state: StageState) -> None:
        """Fill the model with a finished stage's result: its best weights, or else the last ones.

        Both are averaged, where the stage averages. All processes call it together.
        """
        self.accelerator.wait_for_everyone()
        self.weights.averaged.put_into_module()
        self.weights.gather_into_model()
        if state.best_step is None:
            return
        tensors: dict[str, Tensor] = {}

        def read() -> None:
            tensors.update(
                checkpoint.read_weights(checkpoint.result_folder(self.stage, self.fingerprint))
            )

        self.processes.from_main(read)
        gathered = self.processes.tensors_of_main(tensors)
        fill_weights(gathered, self.weights.model, str(self.stage))


# Fields that checkpoints of earlier versions lack, where None says that they are not known.
_LATER_FIELDS = ("validation_seconds", "checkpoint_seconds", "peak_bytes")


def state_of(stored: Mapping[str, object], path: str) -> StageState:
    """Return a stage's state from the JSON of the checkpoint in the folder `path`.

    `InputError` names the field that is missing, of a wrong type or out of range.
    """
    fields = {}
    for name, hint in get_type_hints(StageState).items():
        try:
            absent = None if name in _LATER_FIELDS else "missing"
            fields[name] = convert_value(stored.get(name, absent), hint, name)
        except InputError as error:
            raise InputError(
                f"{Path(path) / 'state.json'}: {error}; use another checkpoint"
            ) from error
    state = StageState(**fields)
    counts = {name: vars(state)[name] for name in ("epoch", "step", "rows", "items", "stale")}
    counts |= {f"own_rows.{key}": rows for key, rows in state.own_rows.items()}
    for name, count in counts.items():
        if not 0 <= count < 1 << 62:
            raise InputError(
                f"{Path(path) / 'state.json'}: {name} is {count}; it must be 0 or more; use "
                "another checkpoint"
            )
    return state
