"""The training loop: one function, ordered as the work happens.

It knows batches, named (sum, count) pairs and steps; it does not know the losses. Validation comes
in as a function. A stage continues from its last checkpoint, since batches, masks and learning
rates are functions of (seed, epoch, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_type_hints

import torch
from accelerate import Accelerator
from torch import Tensor

from research.data.loader import Batch, BatchConfig, Loader
from research.data.windows import LastItems, WindowsConfig
from research.errors import InputError
from research.objectives.base import LossSum, ObjectiveConfig
from research.progress import Reporter
from research.randomness import seed_of
from research.tracking import RunFolder
from research.training import checkpoint
from research.training.optim import OptimiserConfig, build_optimiser, factor_at, set_rate
from research.training.pretrainer import Pretrainer


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the best state of a stage is found."""

    metric: str = "ndcg@10"
    """The metric to maximise, under full ranking."""
    every_epochs: int = 1
    """Epochs between validations."""
    patience: int | None = 10
    """Validations without improvement before the stage stops; None: never."""
    min_delta: float = 0.0
    """An improvement must exceed this."""

    def __post_init__(self) -> None:
        if self.every_epochs < 1 or (self.patience is not None and self.patience < 1):
            raise InputError(
                f"validation: every_epochs is {self.every_epochs} and patience {self.patience}; "
                "both must be at least 1 (patience may be None)"
            )


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: any objectives, on one kind of rows."""

    name: str = "train"
    """Names the stage's folder and metrics."""
    objectives: Mapping[str, ObjectiveConfig]
    """Objectives by key (cloze, next, aap, mip, map, sp, or the name of your own)."""
    windows: WindowsConfig = LastItems()
    """Which pieces of the histories are rows."""
    batches: BatchConfig = BatchConfig()
    """How rows become batches."""
    epochs: int = 200
    """Most epochs to train."""
    steps: int | None = None
    """Most steps to train; None: as many as the epochs have."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """Optimiser, clipping and schedule."""
    normalise: Literal["terms", "sequences"] = "terms"
    """Divide each objective's sum by its own count, or by the batch's number of rows (so that
    weights are weights of sums, as S3-Rec's are)."""
    rank_by: str | None = None
    """The objective that ranks; None: the only one that can."""
    validation: ValidationConfig | None = ValidationConfig()
    """How the best state is found; None: the last state is kept."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl; an epoch's end is logged as well."""

    def __post_init__(self) -> None:
        if not self.objectives:
            raise InputError(f"stage {self.name}: objectives is empty; give at least one")
        for key, objective in self.objectives.items():
            if not 0.0 <= objective.weight < float("inf"):
                raise InputError(
                    f"stage {self.name}: objectives.{key}.weight is {objective.weight}; it must "
                    "be finite and 0 or more"
                )
        if min(self.epochs, self.steps or 1, self.log_every) < 1 or self.steps == 0:
            raise InputError(
                f"stage {self.name}: epochs is {self.epochs}, steps {self.steps} and log_every "
                f"{self.log_every}; each must be at least 1 (steps may be None)"
            )


@dataclass(frozen=True, kw_only=True)
class StageState:
    """Where a stage stands: all that a checkpoint holds beside tensors."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Optimiser steps completed."""
    seconds: float = 0.0
    """Wall time of training and validation so far, over all continuations."""
    items: int = 0
    """Items (tokens of clean windows) seen so far, over all processes."""
    best_value: float | None = None
    """Best validation value so far."""
    best_epoch: int | None = None
    """Epochs completed when it was reached."""
    stale: int = 0
    """Validations since."""
    finished: bool = False
    """Whether the stage has ended."""


Validate = Callable[[], Mapping[str, float]]


def train(
    pretrainer: Pretrainer,
    loader: Loader,
    config: StageConfig,
    *,
    accelerator: Accelerator,
    folder: RunFolder,
    seed: int,
    validate: Validate | None,
    quiet: bool = False,
) -> StageState:
    """Train a stage to its end, from its last checkpoint if it has one.

    Afterwards `pretrainer` holds the best state (without validation: the last one). Raises
    `FloatingPointError` when a loss is not finite.
    """
    stage = folder.stage(config.name)
    weights = {key: objective.weight for key, objective in config.objectives.items()}
    optimiser = build_optimiser(config.optimiser, pretrainer)
    state = continued(stage, pretrainer, optimiser)
    folder.rewind(config.name, state.step)
    model, optimiser = accelerator.prepare(pretrainer, optimiser)
    total_steps = config.epochs * len(loader.plan(0))
    total_steps = min(total_steps, config.steps or total_steps)
    meter = Meter(accelerator, config)
    with Reporter(config.name, total_steps, quiet=quiet) as reporter:
        while not state.finished:
            started = time.monotonic()
            step, items = state.step, state.items
            model.train()
            for batch in loader.batches(state.epoch):
                torch.manual_seed(seed_of(seed, config.name, "dropout", step, loader.rank))
                factor = factor_at(config.optimiser.schedule, step, total_steps, state.epoch)
                set_rate(optimiser, config.optimiser, config.optimiser.lr * factor, step)
                batch = batch.to(accelerator.device)
                losses: dict[str, LossSum] = model(batch)
                loss = meter.objective(losses, weights, batch)
                accelerator.backward(loss)
                if config.optimiser.clip_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                step += 1
                if step % config.log_every == 0 or step == total_steps:
                    items += meter.log(folder, reporter, step, state.epoch, factor)
                if step == total_steps:
                    break
            items += meter.log(folder, reporter, step, state.epoch, factor)
            state = replace(state, epoch=state.epoch + 1, step=step, items=items)
            ended = step == total_steps or state.epoch == config.epochs
            state = replace(state, finished=ended)
            if validate is not None and config.validation is not None:
                if ended or state.epoch % config.validation.every_epochs == 0:
                    values = validate()
                    state = judged(state, values, config.validation)
                    folder.log(config.name, step, state.epoch, values)
                    reporter.say(line_of(config, state, values))
                    if state.stale == 0 and accelerator.is_main_process:
                        checkpoint.save(stage / "best", pretrainer, None, asdict(state))
            state = replace(state, seconds=state.seconds + time.monotonic() - started)
            if accelerator.is_main_process:
                checkpoint.save(stage / "last", pretrainer, optimiser, asdict(state))
    accelerator.wait_for_everyone()
    if state.best_epoch is not None:
        checkpoint.load_weights(checkpoint.existing(stage / "best"), pretrainer)
    return state


def continued(stage: Path, pretrainer: Pretrainer, optimiser: torch.optim.Optimizer) -> StageState:
    """The state of a stage's last checkpoint, tensors filled in; a fresh one without."""
    found = checkpoint.find(stage / "last")
    if found is None:
        return StageState()
    stored = checkpoint.read_state(found)
    fields = {name: stored[name] for name in get_type_hints(StageState) if name in stored}
    if len(fields) < len(get_type_hints(StageState)):
        raise InputError(f"{found / 'state.json'} lacks fields of a stage; use another checkpoint")
    checkpoint.load_weights(found, pretrainer)
    checkpoint.load_optimiser(found, optimiser)
    return StageState(**fields)  # type: ignore[arg-type]


def judged(state: StageState, values: Mapping[str, float], config: ValidationConfig) -> StageState:
    """The state after a validation: a better value is the new best, else patience runs."""
    value = values[f"val/{config.metric}"]
    if state.best_value is None or value > state.best_value + config.min_delta:
        return replace(state, best_value=value, best_epoch=state.epoch, stale=0)
    stale = state.stale + 1
    exhausted = config.patience is not None and stale >= config.patience
    return replace(state, stale=stale, finished=state.finished or exhausted)


def line_of(config: StageConfig, state: StageState, values: Mapping[str, float]) -> str:
    """A line for the terminal after a validation."""
    assert config.validation is not None
    shown = dict.fromkeys([f"val/{config.validation.metric}", *values])
    figures = "  ".join(f"{name} {values[name]:.4f}" for name in list(shown)[:3])
    return f"{config.name}: epoch {state.epoch}  {figures}" + ("  *" if state.stale == 0 else "")


class Meter:
    """Divides the step's sums by global counts, and averages losses between log lines."""

    def __init__(self, accelerator: Accelerator, config: StageConfig) -> None:
        self.accelerator = accelerator
        self.config = config
        self._clear()

    def _clear(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.rows = 0
        self.items = 0
        self.started = time.monotonic()

    def objective(
        self, losses: Mapping[str, LossSum], weights: Mapping[str, float], batch: Batch
    ) -> Tensor:
        """The scalar to differentiate: sum of weight * total * world / global count.

        Gradients are averaged over processes afterwards, hence the factor `world`.
        """
        world = self.accelerator.num_processes
        rows = len(batch.rows_S)
        local = torch.stack(
            [losses[key].count for key in weights]
            + [losses[next(iter(weights))].count.new_tensor(float(rows))]
        )
        counts: Tensor = local if world == 1 else self.accelerator.reduce(local, "sum")
        divisors = counts.clamp(min=1.0)
        parts = []
        for place, key in enumerate(weights):
            divisor = divisors[-1] if self.config.normalise == "sequences" else divisors[place]
            parts.append(losses[key].total * (weights[key] * world / divisor).to(losses[key].total))
            total = losses[key].total.detach().double()
            self.totals[key] = self.totals.get(key, torch.zeros_like(total)) + total
            self.counts[key] = self.counts.get(key, torch.zeros_like(total)) + losses[key].count
        self.rows += rows
        self.items += batch.packed.num_tokens
        return torch.stack(parts).sum()

    def log(
        self, folder: RunFolder, reporter: Reporter, step: int, epoch: int, factor: float
    ) -> int:
        """Write the means since the last line; returns the items seen since, over all processes.

        Raises `FloatingPointError` naming the objective whose loss is not finite.
        """
        if not self.totals:
            return 0
        local = torch.stack([*self.totals.values(), *self.counts.values()])
        local = torch.cat([local, local.new_tensor([self.rows, self.items])])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        *sums, rows, items = summed.tolist()
        name = self.config.name
        values = {}
        combined = 0.0
        for place, key in enumerate(self.totals):
            total, count = sums[place], sums[place + len(self.totals)]
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"stage {name}, step {step}, epoch {epoch}: the loss of {key} is {total}; "
                    "lower the learning rate or clip the gradient"
                )
            mean = total / max(count, 1.0)
            values[f"{name}/loss/{key}"] = mean
            divided = total / max(rows, 1.0) if self.config.normalise == "sequences" else mean
            combined += self.config.objectives[key].weight * divided
        rate = items / max(time.monotonic() - self.started, 1e-9)
        values[f"{name}/loss"] = combined
        values[f"{name}/lr"] = self.config.optimiser.lr * factor
        values[f"{name}/items_per_second"] = rate
        folder.log(name, step, epoch, values)
        reporter.step(step, combined, rate)
        self._clear()
        return int(items)
