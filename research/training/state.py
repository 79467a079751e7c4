"""Where a stage stands: all that a checkpoint holds beside tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StageState:
    """Where a stage stands: all that a checkpoint holds beside tensors."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Optimizer steps completed."""
    rows: int = 0
    """Rows of the stage's windows done, in all epochs, over all processes."""
    own_rows: Mapping[str, int] = field(default_factory=dict)
    """By objective with a window rule of its own, rows of that rule done."""
    seconds: float = 0.0
    """Wall time of training and validation so far, over all continuations."""
    items: int = 0
    """Items (tokens of clean windows, of every window rule) seen so far, over all processes."""
    warmup_rows: int = 0
    """Rows done when the learning rate's warm-up ended."""
    warmup_items: int = 0
    """Items seen when it ended."""
    best_value: float | None = None
    """Best validation value so far."""
    best_epoch: int | None = None
    """Epochs completed when it was reached."""
    best_step: int | None = None
    """Steps completed when it was reached; its weights lie under this number."""
    stale: int = 0
    """Validations since, without those before patience began."""
    finished: bool = False
    """Whether the stage has ended."""
    skipped: int = 0
    """Steps left out since a loss or a gradient was not finite; they count as steps."""
    scale: float | None = None
    """fp16: what the loss is multiplied by."""
    scale_steps: int = 0
    """fp16: steps since that last changed."""
    logged: int = 0
    """Lines that the stage has written to metrics.jsonl."""
    pending: Mapping[str, float] = field(default_factory=dict)
    """What the next line's means are made of so far, summed over all processes."""
    counted: Mapping[str, float] = field(default_factory=dict)
    """What objectives have counted over all processes, until that has been judged: by "count/KEY"
    things, by "rows/KEY" rows shown, by "counted/KEY" those of them in which something counts."""
    counts_judged: bool = False
    """Whether that has been judged."""
