"""What a stage reports while it trains: lines of metrics.jsonl, and messages on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType

from research.console import Reporter
from research.distributed.activity import ACTIVITY
from research.distributed.collectives import Processes
from research.training.anomalies import SpikeDetector
from research.training.config import StageConfig
from research.training.limits import Limits
from research.training.loss_meter import LossMeter
from research.training.stage_run import StageRun
from research.training.state import StageState
from research.training.step import StepResult
from research.training.target_check import TargetCheck

ALL_MISSED = (
    "every held-out validation item is already in its history, whose items evaluation.seen "
    "excludes: all metrics are 0 whatever is learned; set evaluation.seen to kept to rank these "
    "items too"
)


class StageLog:
    """A context around a stage: shows its progress, and writes lines to the run folder."""

    def __init__(
        self, config: StageConfig, state: StageState, limits: Limits, run: StageRun
    ) -> None:
        """Remove the lines that the run folder has after `state`, the state of a checkpoint."""
        self.config = config
        self.folder = run.folder
        self.accelerator = run.accelerator
        self.checks_targets = run.checks_targets
        self.reporter = Reporter(config.name, limits.steps, quiet=run.quiet, prefix=run.prefix)
        self.meter = LossMeter(config, run.accelerator, state.pending)
        processes = Processes(run.accelerator)
        self.target_check = TargetCheck(config, state, processes)
        losses: list[float] = []

        def rewind() -> None:
            for line in run.folder.rewind(config.name, state.logged, state.step):
                loss = line.get(f"{config.name}/loss")
                losses.extend([float(loss)] if isinstance(loss, (int, float)) else [])

        processes.from_main(rewind)
        self.spikes = SpikeDetector(losses)

    def __enter__(self) -> StageLog:
        self.reporter.__enter__()
        ACTIVITY.begin(f"training {self.config.name}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reporter.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Print a line for a person."""
        self.reporter.say(text)

    def step(self, result: StepResult, state: StageState, share: float) -> None:
        """Count a step that led to `state`; `share` (0 to 1) of the stage is done."""
        self.meter.add(result)
        self.target_check.add(result.counts_K3)
        figures = result.cosines.log_values(self.accelerator)
        if figures:
            values = {f"{self.config.name}/{name}": value for name, value in figures.items()}
            self.folder.log(self.config.name, state.step, state.epoch, values)
        self.reporter.advance(state.step, share)
        ACTIVITY.progress(state.step)

    def losses(self, result: StepResult, state: StageState, lr_factor: float) -> None:
        """Write mean losses and accuracies since the last line, learning rate, tokens and speed.

        `result` is that of the latest step and adds its combination's figures; `lr_factor` is that
        step's factor of the learning rate. A sudden rise of the loss is also printed. All processes
        call it together.
        """
        name = self.config.name
        values = self.meter.flush(lr_factor)
        values |= {f"{name}/{figure}": value for figure, value in result.log_values.items()}
        values[f"{name}/items"] = state.items
        speed = values[f"{name}/items_per_second"]
        loss = values.get(f"{name}/loss")
        rise = None if loss is None else self.spikes.check(loss)
        if rise is not None:
            values[f"{name}/loss_rise"] = rise
            self.say(
                f"{name}: step {state.step}: the loss is {loss:.4g}, {rise:.1f} times the median "
                "of the lines before it"
            )
        self.folder.log(name, state.step, state.epoch, values)
        self.reporter.step(state.step, loss, speed)

    def end_epoch(self) -> None:
        """Raise `InputError` if an objective has had no targets, unless `checks_targets` is off."""
        if self.checks_targets:
            self.target_check.check(self.say)

    def validation(self, state: StageState, values: Mapping[str, float]) -> None:
        """Write the figures of a validation; `state` is the stage's state after it."""
        assert self.config.validation is not None
        improved = state.best_step == state.step
        if improved and values.get("val/missed_share") == 1.0:
            self.say(f"{self.config.name}: {ALL_MISSED}")
        self.folder.log(self.config.name, state.step, state.epoch, values)
        names = dict.fromkeys([f"val/{self.config.validation.metric}", *values])
        figures = "  ".join(f"{name} {values[name]:.4f}" for name in list(names)[:3])
        star = "  *" if improved else ""
        self.say(f"{self.config.name}: epoch {state.epoch}  {figures}{star}")

    def complete(self, state: StageState) -> StageState:
        """Return the state with the log's part for a checkpoint; all processes call it together."""
        logged = self.folder.logged(self.config.name)
        state = replace(state, logged=logged, pending=self.meter.pending())
        return self.target_check.complete(state)
