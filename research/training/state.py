"""The state of a stage: everything that a checkpoint holds besides tensors.

The loop (`research/training/loop.py`) passes it from step to step, and a checkpoint's `state.json`
stores it. What it lacks a continued stage would forget (docs/pitfalls.md, "resume forgets state").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StageState:
    """The progress of a stage, and what it keeps so that it can continue."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Optimizer steps completed."""
    rows: int = 0
    """Rows of the stage's windows done, in all epochs, over all processes."""
    own_rows: Mapping[str, int] = field(default_factory=dict)
    """By key of an objective with its own window rule, the rows of that rule done."""
    seconds: float = 0.0
    """Wall time of training and validation so far in seconds, over all continuations."""
    validation_seconds: float | None = 0.0
    """The part of `seconds` that validations took; None: an earlier version did not measure it."""
    checkpoint_seconds: float | None = 0.0
    """The part of `seconds` that writing checkpoints took, in a checkpoint without itself; None: an
    earlier version did not measure it."""
    peak_bytes: int | None = 0
    """Most memory that the main process held in the stage, on its accelerator or else resident;
    None: the system did not tell, or an earlier version did not measure it."""
    items: int = 0
    """Items (tokens of clean windows, over all window rules) seen so far, over all processes."""
    warmup_rows: int = 0
    """Rows done when the learning rate's warm-up ended."""
    warmup_items: int = 0
    """Items seen when the learning rate's warm-up ended."""
    best_value: float | None = None
    """Best validation value so far; None: there is none yet."""
    best_epoch: int | None = None
    """Epochs completed when the best value was reached; None: there is none yet."""
    best_step: int | None = None
    """Optimizer steps completed when it was reached, which name the folder of its weights; None:
    there is none yet."""
    stale: int = 0
    """Validations since the best one that count towards patience."""
    finished: bool = False
    """Whether the stage has ended."""
    skipped: int = 0
    """Steps left out because a loss or a gradient was not finite; they count as steps."""
    scale: float | None = None
    """The loss scale under fp16; None: another precision, or not known yet."""
    scale_steps: int = 0
    """Under fp16, steps without overflow since the loss scale last changed."""
    logged: int = 0
    """Lines that the stage has written to metrics.jsonl."""
    pending: Mapping[str, float] = field(default_factory=dict)
    """Sums for the means of the next log line, over all processes (`LossMeter.pending`)."""
    counted: Mapping[str, float] = field(default_factory=dict)
    """What objectives have counted so far, over all processes, until it is checked: targets by
    "count/KEY", rows shown by "rows/KEY", and rows that have a target by "counted/KEY"."""
    counts_judged: bool = False
    """Whether the counts have been checked (`TargetCheck`)."""
