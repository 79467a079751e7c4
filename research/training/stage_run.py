"""Where a stage trains, and what beside its config decides how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelerate import Accelerator

from research.errors import InputError
from research.storage.run_folder import RunFolder

Validate = Callable[[], Mapping[str, float]]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class StageRun:
    """The surroundings of a stage."""

    accelerator: Accelerator
    """The processes of the job, and this one's device."""
    folder: RunFolder
    """Where lines and checkpoints are written."""
    seed: int
    """The run's: of dropout here, all else has been drawn by it already."""
    plan: CheckpointPlan = CheckpointPlan()
    """When checkpoints are written."""
    split_weights: bool = False
    """Whether several processes split the weights while the stage trains."""
    validate: Validate | None = None
    """Gives figures of the validation part, `val/...` by name; None: the stage cannot rank."""
    quiet: bool = False
    """Print nothing."""
    extended_after: int | None = None
    """Steps after which the stage had ended, but now has a later limit; None: it has not."""
    judges_counts: bool = True
    """Whether an objective that has counted nothing in an epoch, or in the stage, is an error."""
