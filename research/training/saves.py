"""When a stage is saved, and where it goes on: its checkpoints as the loop sees them.

The main process alone reads and writes them; the others are sent what they hold.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_type_hints

import torch
from torch import Tensor

from research.config import fits
from research.errors import InputError
from research.processes import Processes
from research.training import checkpoint
from research.training.pretrainer import MultiObjectiveModel
from research.training.stage import StageState

if TYPE_CHECKING:
    from research.training.sharded import Shards


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
    """When checkpoints are written beside those of new bests and of a stage's end, and kept."""

    steps: int | None = None
    """Steps between two; None: steps do not decide."""
    seconds: float = 300.0
    """Wall time between two."""
    keep: int = 2
    """How many are kept, the newest; the best one is kept beside them."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(
                f"--checkpoint-steps is {self.steps}; it must be at least 1 (or left out)"
            )
        if not self.seconds > 0.0:
            raise InputError(
                f"--checkpoint-seconds is {self.seconds}; it must be above 0 (left out: 300)"
            )
        if self.keep < 1:
            raise InputError(f"--keep-checkpoints is {self.keep}; it must be at least 1")


class Saves:
    """The checkpoints of one stage."""

    def __init__(
        self,
        stage: Path,
        fingerprint: str,
        plan: CheckpointPlan,
        processes: Processes,
        shards: Shards | None = None,
    ) -> None:
        """`shards` are given where what is saved and filled is split."""
        self.stage = stage
        self.fingerprint = fingerprint
        self.plan = plan
        self.processes = processes
        self.shards = shards
        self._like = checkpoint.like if shards is None else shards.like
        self._saved = time.monotonic()
        self._wished = False

    def wishes(self) -> bool:
        """Whether so much time has passed that one should be written; said once until it is."""
        late = time.monotonic() - self._saved >= self.plan.seconds
        if not late or self._wished or not self.processes.main:
            return False
        # With one process a wish is granted at once.
        self._wished = self.processes.world > 1
        return True

    def is_due(self, step: int) -> bool:
        """Whether steps ask for one."""
        return self.plan.steps is not None and step % self.plan.steps == 0

    def save(
        self, pretrainer: MultiObjectiveModel, optimizer: torch.optim.Optimizer, state: StageState
    ) -> None:
        """Write where the stage stands, and remove what is no longer kept."""
        self._saved, self._wished = time.monotonic(), False
        self._write(checkpoint.STEP, pretrainer, optimizer, state)
        if self.processes.main:
            checkpoint.prune(self.stage, state.step, self.plan.keep)

    def save_best(self, pretrainer: MultiObjectiveModel, state: StageState) -> None:
        """Write the weights of a new best, which `state` names; the state itself comes after."""
        assert state.best_step == state.step
        self._write(checkpoint.BEST, pretrainer, None, state)

    def _write(
        self,
        kind: str,
        pretrainer: MultiObjectiveModel,
        optimizer: torch.optim.Optimizer | None,
        state: StageState,
    ) -> None:
        target = checkpoint.folder_of(self.stage, kind, state.step)
        record = self._record(state)
        if self.shards is None:
            if self.processes.main:
                checkpoint.save(target, pretrainer, optimizer, record)
            return
        if self.processes.main:
            checkpoint.save(target, pretrainer, optimizer, record, on_host=self.shards.on_host)
            return
        # Here every process's part goes to the main one, in the order in which that one asks.
        checkpoint.weights_of(pretrainer, self.shards.on_host)
        if optimizer is not None:
            checkpoint.moments_of(optimizer, self.shards.on_host)

    def _record(self, state: StageState) -> dict[str, object]:
        return {"fingerprint": self.fingerprint, **asdict(state)}

    def load(self, pretrainer: MultiObjectiveModel, optimizer: torch.optim.Optimizer) -> StageState:
        """The state of the newest checkpoint that is whole, tensors filled in; fresh without."""
        weights, moments = dict[str, Tensor](), dict[str, Tensor]()

        def read() -> object:
            if not checkpoint.numbered(self.stage) and not (self.stage / "last").exists():
                return None
            found, stored = checkpoint.newest_state(self.stage, self.fingerprint)
            weights.update(checkpoint.read_weights(found))
            moments.update(checkpoint.read_optimizer(found))
            return [str(found), stored]

        answer = self.processes.from_main(read)
        if answer is None:
            return StageState()
        path, stored = cast(tuple[str, Mapping[str, object]], answer)
        state = state_of(stored, path)
        given = self.processes.tensors_of_main(weights)
        checkpoint.fill_weights(given, pretrainer, f"{path}/model.safetensors", like=self._like)
        given = self.processes.tensors_of_main(moments)
        checkpoint.fill_optimizer(
            given, optimizer, f"{path}/optimizer.safetensors", like=self._like
        )
        if self.processes.main:
            checkpoint.prune(self.stage, state.step, self.plan.keep)
        return state

    def load_result(self, pretrainer: MultiObjectiveModel) -> None:
        """Fill in the best weights, if the stage has validated."""
        weights: dict[str, Tensor] = {}

        def read() -> None:
            weights.update(checkpoint.read_weights(checkpoint.result(self.stage, self.fingerprint)))

        self.processes.from_main(read)
        given = self.processes.tensors_of_main(weights)
        checkpoint.fill_weights(given, pretrainer, str(self.stage))


def state_of(stored: Mapping[str, object], path: str) -> StageState:
    """A stage's state from a checkpoint's JSON; `InputError` names the field that is wrong."""
    fields = {}
    for name, hint in get_type_hints(StageState).items():
        if not fits(stored.get(name, ...), hint):
            raise InputError(
                f"{Path(path) / 'state.json'}: {name} is {stored.get(name, 'missing')!r:.100}; "
                f"allowed: {hint}; use another checkpoint"
            )
        fields[name] = stored[name]
    return StageState(**fields)  # type: ignore[arg-type]
