"""Watches a stage for values that are not finite, loss spikes and late compilations.

An update that is not finite is never taken (`research/training/step.py`), so the weights and the
last checkpoint stay good. On an accelerator that flag is read one step later, so that the
host does not wait for the device.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from research.data.batch import Batch
from research.distributed.collectives import Processes
from research.model.compute import graphs_compiled
from research.storage.nonfinite_record import NonFiniteRecord, NonFiniteShare
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig
from research.training.state import StageState

# A log line is a loss spike when its loss is above this many times the median of earlier lines,
SPIKE_FACTOR = 1.5
# and exceeds that median by more than this many times their median absolute deviation from it.
SPIKE_DISTANCES = 8.0
# Losses of earlier lines that are remembered, and how many are needed before a spike is reported.
NUM_REMEMBERED, MIN_LOSSES = 20, 5
# Everything that a stage needs should be compiled after this many steps. The number of compiled
# graphs is read at each multiple of it.
WARM_STEPS = 50
# Most rows that an error message names; nonfinite.json has all of them.
MAX_SHOWN_ROWS = 8


@dataclass(frozen=True, eq=False)
class Attempt:
    """A step whose update is taken only if everything in it is finite."""

    step: int
    """Number of the step in the stage, counted from 1."""
    epoch: int
    """Epochs that the stage had completed before the step."""
    batch: Batch
    """This process's share of the step's batch, on the host."""
    good: Tensor
    """bool scalar, the same in every process: whether everything was finite (under fp16 the losses
    alone, as the loss scaler watches the gradients)."""
    losses: dict[str, Tensor]
    """By objective, scalar: the sum of its losses over this process's share."""
    bad_parameters: Callable[[], list[str]]
    """Returns the names of the parameters whose gradients are not finite; none once the gradients
    are gone, as they are on an accelerator, where the check comes a step later."""


class FiniteCheck:
    """Counts the steps left out because something was not finite; stops the run at one too many.

    `FloatingPointError` is raised once more than `max_skipped` steps of the stage were not finite;
    nonfinite.json then names the rows of the last of them. All processes call each method together.
    """

    def __init__(
        self,
        config: StageConfig,
        state: StageState,
        processes: Processes,
        folder: RunFolder,
        say: Callable[[str], None],
    ) -> None:
        """`folder` keeps the rows of a step that stops the run; `say` prints a line."""
        self.config = config
        self.processes = processes
        self.skipped = state.skipped
        self.folder = folder
        self.say = say
        self._pending: tuple[Attempt, Tensor, torch.Event] | None = None

    def check(self, attempt: Attempt) -> None:
        """Check this step on a CPU; on an accelerator check the one before and keep this one."""
        if attempt.good.device.type == "cpu":
            self._check(attempt, bool(attempt.good))
            return
        self.check_pending()
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(attempt.good, non_blocking=True)
        event = torch.Event(attempt.good.device)
        event.record()
        self._pending = attempt, flag, event

    def check_pending(self) -> None:
        """Check the step that has not been checked yet, if there is one."""
        if self._pending is None:
            return
        attempt, flag, event = self._pending
        self._pending = None
        event.synchronize()
        self._check(attempt, bool(flag))

    def _check(self, attempt: Attempt, finite: bool) -> None:
        if finite:
            return
        where = f"stage {self.config.name}, step {attempt.step}, epoch {attempt.epoch}"
        bad = [f"the loss of {key}" for key, loss in attempt.losses.items() if not loss.isfinite()]
        shares = self.processes.gathered(
            NonFiniteShare(
                rank=self.processes.rank,
                not_finite=tuple(bad),
                rows=tuple(attempt.batch.rows_S.tolist()),
                users=tuple(attempt.batch.users_S.tolist()),
            )
        )
        losses = dict.fromkeys(name for share in shares for name in share.not_finite)
        culprits = ", ".join(losses)
        if not losses:
            names = attempt.bad_parameters()
            culprits = f"the gradient of {', '.join(names[:3]) or 'the loss'}"
            culprits += f" and {len(names) - 3} more" if len(names) > 3 else ""
            shares[0] = replace(shares[0], gradients=tuple(names))
        # The rows of the processes whose losses are not finite, or of all processes where only a
        # gradient is not finite.
        affected = [share for share in shares if share.not_finite] or shares
        row_names = [str(row) for share in affected for row in share.rows]
        row_list = ", ".join(row_names[:MAX_SHOWN_ROWS]) + (
            f" and {len(row_names) - MAX_SHOWN_ROWS} more" * (len(row_names) > MAX_SHOWN_ROWS)
        )
        message = f"{where}: {culprits} is not finite, for rows {row_list} of its windows"
        if self.skipped < self.config.max_skipped:
            self.skipped += 1
            self.say(f"{message}; skipped ({self.skipped} of at most {self.config.max_skipped})")
            return
        self.folder.write(
            NonFiniteRecord(
                stage=self.config.name,
                step=attempt.step,
                epoch=attempt.epoch,
                shares=tuple(shares),
            )
        )
        raise FloatingPointError(
            f"{message} (all are in nonfinite.json); lower the learning rate or clip the gradient, "
            "or let such steps be skipped by max_skipped; the saved checkpoints are good"
        )


class RecompileDetector:
    """Tells when torch.compile still compiles new graphs after a stage's first steps."""

    def __init__(self) -> None:
        self.steps = 0
        self._graphs: int | None = None

    def check(self) -> bool:
        """Whether graphs were compiled since the number was last read; to be called once a step.

        The number is read every `WARM_STEPS` steps. At the first reading, and at all other steps,
        the answer is false.
        """
        self.steps += 1
        if self.steps < WARM_STEPS or self.steps % WARM_STEPS:
            return False
        before, self._graphs = self._graphs, graphs_compiled()
        return before is not None and self._graphs > before


class SpikeDetector:
    """Tells when the loss of a log line is suddenly higher than those of the lines before it."""

    def __init__(self, before: Sequence[float]) -> None:
        """`before` are the losses of the stage's earlier lines, oldest first."""
        self._last = deque(before, maxlen=NUM_REMEMBERED)

    def check(self, loss: float) -> float | None:
        """Return the loss over the median of the losses before it if it is a spike, else None.

        A finite loss is remembered for later lines.
        """
        if not math.isfinite(loss):
            return None
        losses = sorted(self._last)
        self._last.append(loss)
        if len(losses) < MIN_LOSSES:
            return None
        median = statistics.median(losses)
        distance = statistics.median(abs(value - median) for value in losses)
        if loss <= SPIKE_FACTOR * median or loss <= median + SPIKE_DISTANCES * distance:
            return None
        return loss / median if median > 0.0 else None
