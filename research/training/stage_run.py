"""Where a stage trains, and what besides its config decides how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelerate import Accelerator

from research.errors import InputError
from research.storage.run_folder import RunFolder
from research.storage.untrusted import printable

Validate = Callable[[], Mapping[str, float]]
# Called after a validation with the stage, its completed epochs, and figures by names `val/...`.
Watch = Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
    """When checkpoints are written besides those at a new best and at a stage's end."""

    steps: int | None = None
    """Optimizer steps between two checkpoints; None: steps do not decide."""
    seconds: float = 300.0
    """Wall time between two checkpoints, in seconds."""
    keep: int = 2
    """How many of the newest checkpoints are kept; the best weights that they name are kept as
    well."""

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
    """What a stage is given besides its model, data and config."""

    accelerator: Accelerator
    """The processes of the job, and this one's device."""
    folder: RunFolder
    """The run folder, for log lines and checkpoints."""
    seed: int
    """The run's seed, which keys dropout and the draws of a combination here; loader and model were
    built from it before."""
    plan: CheckpointPlan = CheckpointPlan()
    """When checkpoints are written."""
    shard_weights: bool = False
    """Whether several processes split the weights (FSDP2) while the stage trains."""
    validate: Validate | None = None
    """Returns the figures of a validation, by names `val/...`; None: the stage cannot rank."""
    watch: Watch | None = None
    """Called after each logged validation but the last; what it raises ends the stage."""
    quiet: bool = False
    """Whether nothing is printed."""
    prefix: str = ""
    """Begins every line that is printed; with one there is no bar, as other runs share the
    terminal."""
    extended_after: int | None = None
    """Optimizer steps after which the stage ended before it was given a later limit; None: it was
    not."""
    checks_targets: bool = True
    """Whether it is an error when an objective has had no targets in an epoch, or in the stage."""

    def say(self, text: str) -> None:
        """Print a line for a person, after the prefix, unless the run is quiet."""
        if not self.quiet:
            print(printable(f"{self.prefix}{text}"), flush=True)
