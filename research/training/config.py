"""The configs of a stage of training and of its validation.

A run's config (`research/runs/config.py`) lists its stages; `train` in `research/training/loop.py`
trains one. What can be checked by the config alone is checked here; `stage_checks.py` checks a
stage against encoder and corpus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from research.config import check_types
from research.data.loader import BatchConfig
from research.data.user_range import UserRange
from research.data.windows import LastItems, WindowsConfig
from research.errors import InputError
from research.objectives.base import ObjectiveConfig
from research.training.averaging import AveragingConfig
from research.training.combination import CombinationConfig, WeightedSum
from research.training.optimizer import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """When a stage validates, which state it keeps as the best one, and when it stops early."""

    metric: str = "ndcg@10"
    """The metric to maximise, under full ranking."""
    every_epochs: int = 1
    """Epochs between validations."""
    patience: int | None = 10
    """Validations without improvement after which the stage stops; None: it never stops early."""
    patience_steps: int = 0
    """Optimizer steps without improvement that must have passed as well: an epoch of a small corpus
    is few steps, and a cloze objective stays at the level of popularity for its first thousands of
    steps."""
    min_epochs: int = 0
    """Validations up to this epoch do not count towards patience."""
    min_steps: int = 0
    """Validations up to this optimizer step do not count towards patience."""
    min_delta: float = 0.0
    """A validation is an improvement when it exceeds the best value so far by more than this."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.every_epochs < 1 or (self.patience is not None and self.patience < 1):
            raise InputError(
                f"validation: every_epochs is {self.every_epochs} and patience {self.patience}; "
                "both must be at least 1 (patience may be None)"
            )
        for name in ("patience_steps", "min_epochs", "min_steps"):
            if vars(self)[name] < 0:
                raise InputError(f"validation.{name} is {vars(self)[name]}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: any objectives, on one kind of rows."""

    name: str = "train"
    """Names the stage's folder and its metrics."""
    objectives: Mapping[str, ObjectiveConfig]
    """Objectives by key (cloze, next, aap, mip, map, sp, or the name of your own)."""
    windows: WindowsConfig = LastItems()
    """The rule that cuts histories into windows, the rows of training; epochs are counted over
    them."""
    own_windows: Mapping[str, WindowsConfig] = field(default_factory=dict)
    """Other window rules for some objectives, by key (S3-Rec's heads on every prefix beside the
    next item on whole histories). Their batches have the same size and follow an order and epochs
    of their own."""
    users: UserRange = UserRange()
    """Which of the run's training users it is trained on, by shares of a random order, which the
    run's seed draws and all stages have in common (to pretrain on other users than those that are
    fine-tuned on). What the run tells of its training, such as items that it has not seen, is of
    the users of any stage."""
    batches: BatchConfig = BatchConfig()
    """How rows become batches."""
    epochs: int | None = 200
    """Epochs after which the stage ends; None: no limit in epochs."""
    steps: int | None = None
    """Optimizer steps after which the stage ends; None: no limit in steps."""
    tokens: int | None = None
    """Tokens of clean windows, over all window rules and processes, after which the stage ends;
    None: no limit in tokens."""
    seconds: float | None = None
    """Wall time in seconds, of training and validation, after which the stage takes one more step,
    validates a last time and ends; None: no limit in time."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer, gradient clipping and learning-rate schedule."""
    combination: CombinationConfig = WeightedSum()
    """How the objectives' losses become one update."""
    averaging: AveragingConfig | None = None
    """Which average of the weights is validated, kept, ranked with and handed to the next stage,
    while training goes on from the weights themselves; None: none, these weights are used."""
    normalize: Literal["terms", "sequences"] = "terms"
    """What each objective's sum of losses is divided by: "terms" is its own count; "sequences" is
    the number of rows that it was shown (so that weights are weights of sums, as S3-Rec's are)."""
    rank_by: str | None = None
    """Key of the objective that ranks; None: the only one that can."""
    validation: ValidationConfig | None = ValidationConfig()
    """How the best state is found; None: the stage does not validate, and the last state is
    kept."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl, fewer where a limit in steps would leave under 20; the
    end of an epoch is logged as well. A line's losses are means since the line before; its
    accuracies are those of its last step."""
    max_skipped: int = 0
    """Most steps that may be left out because a loss or a gradient is not finite (they count as
    steps); one more stops the run."""
    gradients_every: int | None = None
    """Steps between measurements of each objective's gradient on the shared encoder (norms and
    cosines), each of which costs one more backward pass an objective; None: never."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in (self.name, *self.objectives):
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise InputError(
                    f"stage {self.name!r}: {name!r} names a stage or an objective; allowed: "
                    "letters, digits, - and _"
                )
        if not self.objectives:
            raise InputError(f"stage {self.name}: objectives is empty; give at least one")
        for key in self.objectives:
            if hasattr(nn.ModuleDict, key) or hasattr(nn.ParameterDict, key):
                raise InputError(
                    f"stage {self.name}: torch keeps the name {key!r} for itself, so that no "
                    "objective can have it; choose another"
                )
        unknown = [key for key in self.own_windows if key not in self.objectives]
        if unknown:
            raise InputError(
                f"stage {self.name}: own_windows names {unknown[0]!r}; objectives: "
                f"{', '.join(self.objectives)}"
            )
        for key, rule in self.own_windows.items():
            if rule == self.windows:
                raise InputError(
                    f"stage {self.name}: own_windows.{key} is the stage's own rule; leave it out, "
                    "so that the objective sees the stage's rows"
                )
        for key, objective in self.objectives.items():
            if objective.weight < 0.0:
                raise InputError(
                    f"stage {self.name}: objectives.{key}.weight is {objective.weight}; it must "
                    "be 0 or more"
                )
        if self.max_skipped < 0:
            raise InputError(
                f"stage {self.name}: max_skipped is {self.max_skipped}; it must be 0 or more"
            )
        self._check_limits()
        never = self.averaging and self.averaging.reason_never_due(self.epochs, self.steps)
        if never:
            raise InputError(f"stage {self.name}: {never}, so that nothing would be averaged")

    def _check_limits(self) -> None:
        limits = {name: getattr(self, name) for name in ("epochs", "steps", "tokens", "seconds")}
        counts = {**limits, "log_every": self.log_every, "gradients_every": self.gradients_every}
        wrong = [
            f"{name} is {count}"
            for name, count in counts.items()
            if count is not None and count <= 0
        ]
        if wrong:
            raise InputError(
                f"stage {self.name}: {', '.join(wrong)}; each must be above 0, or None where it "
                "may be absent"
            )
        if all(limit is None for limit in limits.values()):
            raise InputError(
                f"stage {self.name}: epochs, steps, tokens and seconds are all None; set at least "
                "one, or the stage never ends"
            )
        counted = (self.epochs, self.steps, self.tokens)
        shape = self.optimizer.schedule.shape
        if shape in ("linear", "cosine") and all(limit is None for limit in counted):
            raise InputError(
                f"stage {self.name}: a {shape} schedule needs a limit in epochs, steps or tokens, "
                "but only seconds is set; set one of them, or a constant schedule"
            )
