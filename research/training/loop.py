"""The training loop: one function, ordered as the work happens.

It knows batches, named (sum, count) pairs and steps; it does not know the losses. Validation comes
in as a function. A stage continues from its last checkpoint, since batches, masks and learning
rates are functions of (seed, epoch, step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_type_hints

import torch
from accelerate import Accelerator

from research.config import fits
from research.data.loader import Loader
from research.errors import InputError
from research.objectives.base import LossSum
from research.progress import Reporter
from research.randomness import seed_of
from research.tracking import RunFolder
from research.training import checkpoint
from research.training.allocator import trim
from research.training.gradients import gradient_figures
from research.training.meter import Meter
from research.training.optim import build_optimiser, factor_at, set_rate
from research.training.pretrainer import Pretrainer
from research.training.stage import StageConfig, StageState

Validate = Callable[[], Mapping[str, float]]
# Steps between questions of several processes whether their time is over.
ASK_EVERY = 20


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
    fingerprint = loader.corpus.fingerprint
    state = continued(stage, pretrainer, optimiser, fingerprint)
    folder.rewind(config.name, state.step)
    encoder = [each for each in pretrainer.encoder.parameters() if each.requires_grad]
    model, optimiser = accelerator.prepare(pretrainer, optimiser)
    total_steps = loader.num_steps(config.epochs, config.steps, config.tokens)
    meter = Meter(accelerator, config)
    with Reporter(config.name, total_steps, quiet=quiet) as reporter:
        while not state.finished:
            started = time.monotonic()
            step, items = state.step, state.items
            model.train()
            last_step = step + len(loader.plan(state.epoch))
            last_step = last_step if total_steps is None else min(last_step, total_steps)
            out_of_time = False
            for batch in loader.batches(state.epoch):
                torch.manual_seed(seed_of(seed, config.name, "dropout", step, loader.rank))
                factor = factor_at(config.optimiser.schedule, step, total_steps, state.epoch)
                set_rate(optimiser, config.optimiser, config.optimiser.lr * factor, step)
                batch = batch.to(accelerator.device)
                seconds = state.seconds + time.monotonic() - started
                out_of_time = is_spent(config, seconds, step, accelerator)
                logs = (step + 1) % config.log_every == 0 or step + 1 == last_step or out_of_time
                losses: dict[str, LossSum] = model(batch, measured=logs)
                terms = meter.terms(losses, weights, batch)
                if config.gradients_every and (step + 1) % config.gradients_every == 0:
                    figures = gradient_figures(terms, encoder, accelerator)
                    folder.log(config.name, step + 1, state.epoch, named(config, figures))
                accelerator.backward(torch.stack(list(terms.values())).sum())
                if config.optimiser.clip_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                step += 1
                reporter.advance(step)
                if logs:
                    items += meter.log(folder, reporter, step, state.epoch, factor)
                if step == total_steps or out_of_time:
                    break
            state = replace(state, epoch=state.epoch + 1, step=step, items=items)
            ended = total_steps is not None and step >= total_steps
            state = replace(state, finished=ended or out_of_time)
            if validate is not None and is_due(config, state):
                values = validate()
                state = judged(state, values, config)
                folder.log(config.name, step, state.epoch, values)
                reporter.say(line_of(config, state, values))
                if state.stale == 0 and accelerator.is_main_process:
                    best = {"fingerprint": fingerprint, **asdict(state)}
                    checkpoint.save(stage / "best", pretrainer, None, best)
            state = replace(state, seconds=state.seconds + time.monotonic() - started)
            if accelerator.is_main_process:
                last = {"fingerprint": fingerprint, **asdict(state)}
                checkpoint.save(stage / "last", pretrainer, optimiser, last)
            trim()
    accelerator.wait_for_everyone()
    if state.best_epoch is not None:
        checkpoint.load_weights(checkpoint.existing(stage / "best"), pretrainer)
    return state


def continued(
    stage: Path, pretrainer: Pretrainer, optimiser: torch.optim.Optimizer, fingerprint: str
) -> StageState:
    """The state of a stage's last checkpoint, tensors filled in; a fresh one without."""
    found = checkpoint.find(stage / "last")
    if found is None:
        return StageState()
    stored = checkpoint.read_state(found, fingerprint)
    fields = {}
    for name, hint in get_type_hints(StageState).items():
        if not fits(stored.get(name, ...), hint):
            raise InputError(
                f"{found / 'state.json'}: {name} is {stored.get(name, 'missing')!r}; allowed: "
                f"{hint}; use another checkpoint"
            )
        fields[name] = stored[name]
    checkpoint.load_weights(found, pretrainer)
    checkpoint.load_optimiser(found, optimiser)
    return StageState(**fields)  # type: ignore[arg-type]


def named(config: StageConfig, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures under the stage's name, as metrics.jsonl has them."""
    return {f"{config.name}/{name}": value for name, value in figures.items()}


def is_spent(config: StageConfig, seconds: float, step: int, accelerator: Accelerator) -> bool:
    """Whether the step with number `step` is the last that a stage has time for.

    Several processes ask each other now and then; the slowest decides for all.
    """
    if config.seconds is None:
        return False
    if accelerator.num_processes == 1:
        return seconds >= config.seconds
    if step % ASK_EVERY:
        return False
    own = torch.tensor(seconds, dtype=torch.float64, device=accelerator.device)
    return bool(accelerator.gather(own).max() >= config.seconds)


def is_due(config: StageConfig, state: StageState) -> bool:
    """Whether a stage validates after the epoch that has just ended."""
    if config.validation is None:
        return False
    return state.finished or state.epoch % config.validation.every_epochs == 0


def judged(state: StageState, values: Mapping[str, float], config: StageConfig) -> StageState:
    """The state after a validation: a better value is the new best, else patience runs."""
    rule = config.validation
    assert rule is not None, "only a stage with validation is judged"
    value = values[f"val/{rule.metric}"]
    if state.best_value is None or value > state.best_value + rule.min_delta:
        return replace(state, best_value=value, best_epoch=state.epoch, stale=0)
    stale = state.stale + 1
    exhausted = rule.patience is not None and stale >= rule.patience
    return replace(state, stale=stale, finished=state.finished or exhausted)


def line_of(config: StageConfig, state: StageState, values: Mapping[str, float]) -> str:
    """A line for the terminal after a validation."""
    assert config.validation is not None
    shown = dict.fromkeys([f"val/{config.validation.metric}", *values])
    figures = "  ".join(f"{name} {values[name]:.4f}" for name in list(shown)[:3])
    return f"{config.name}: epoch {state.epoch}  {figures}" + ("  *" if state.stale == 0 else "")
