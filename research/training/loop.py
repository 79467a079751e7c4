"""The training loop: one function, in the order in which the work happens.

It handles batches, steps and named figures, and knows nothing of the losses. Validation is passed
in as a function. A stage continues from its last checkpoint at any step, since batches, masks and
learning rates are functions of the seed and of what has been done: epochs, steps, rows, tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from research.data.batch import Batch
from research.data.loader import Loader
from research.training.allocator import HeapTrimmer
from research.training.checkpointer import Checkpointer
from research.training.config import StageConfig
from research.training.early_stopping import after_validation, resume_extended, validates
from research.training.interruption import Interruption
from research.training.limits import Limits
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import build_optimizer
from research.training.schedule import factor_at
from research.training.stage_clock import StageClock
from research.training.stage_log import StageLog
from research.training.stage_run import StageRun
from research.training.state import StageState
from research.training.step import TrainStep
from research.training.weights import place_weights

# Lines that a short stage is given at least, and the fewest steps between two of them.
FEWEST_LINES, FEWEST_STEPS = 20, 5


def train(
    model: MultiObjectiveModel, loader: Loader, config: StageConfig, run: StageRun
) -> StageState:
    """Train a stage to its end, from its last checkpoint if it has one, and return its final state.

    Afterwards `model` holds the best weights (the last ones if the stage does not validate), both
    averaged where the stage averages weights. Raises `FloatingPointError` when more steps than
    allowed are not finite, `MemoryError` when a step does not fit into memory, `InputError` when an
    objective has no targets or the checkpoint does not fit, and
    `research.distributed.signals.Stopped` after a signal, once a checkpoint is written.
    """
    weights = place_weights(model, run, config.averaging)
    optimizer = build_optimizer(config.optimizer, weights.trained)
    checkpoints = Checkpointer(config.name, loader.corpus.fingerprint, run, weights, optimizer)
    state = resume_extended(checkpoints.load(), config, loader.num_rows, run.extended_after)
    if state.step and not state.finished:
        run.say(f"{config.name}: continues at step {state.step:,}, in epoch {state.epoch + 1:,}")
    limits = Limits.of(config, loader.num_rows)
    steps_a_line = log_interval(config, limits)
    log = StageLog(config, state, limits, run)
    interruption = Interruption(config, state, checkpoints)
    clock, heap = StageClock(state, run.accelerator.device), HeapTrimmer()
    train_step = TrainStep(config, state, weights, optimizer, run, log.say)

    def save(state: StageState, *, best: bool = False) -> StageState:
        # Each of the four adds to the state what it keeps of it, before the state is written.
        state = clock.complete(interruption.complete(log.complete(train_step.complete(state))))
        with clock.measure("checkpoints"):
            checkpoints.save(state, best=best)
        interruption.raise_if_stopping()
        # What the checkpoint itself took.
        return clock.complete(interruption.complete(state))

    with log, interruption:
        while not state.finished:
            for batch in remaining_batches(loader, config, state, limits):
                if interruption.should_save():
                    state = save(state)
                next_state = state_after(state, batch, config)
                ends_epoch_now = ends_epoch(next_state, loader, limits) or interruption.time_is_up
                logs_line = ends_epoch_now or next_state.step % steps_a_line == 0
                factor = lr_factor(state, config, limits)
                result = train_step(batch, state, factor, measured=logs_line)
                weights.averaged.after_step(next_state.step)
                state = train_step.complete(next_state) if logs_line else next_state
                heap.after_step()
                log.step(result, state, max(limits.share(state), interruption.time_share))
                if logs_line:
                    log.losses(result, state, factor)
                if ends_epoch_now:
                    break
                if checkpoints.is_due(state.step):
                    state = save(state)
            log.end_epoch()
            # With `wait`, a signal that any process has received is acted on now, before a long
            # validation.
            if interruption.should_save(wait=True):
                state = save(state)
            finished = limits.reached(state) or interruption.time_is_up
            state = replace(state, epoch=state.epoch + 1, finished=finished)
            weights.averaged.after_epoch(state.epoch)
            if run.validate is not None and validates(config, state):
                with clock.measure("validation"), weights.averaged.in_module():
                    values = weights.validate_with_full_weights(run.validate)
                state = after_validation(state, values, config)
                log.validation(state, values)
                if run.watch is not None and not state.finished:
                    run.watch(config.name, state.epoch, values)
            improved = state.best_step == state.step
            if improved or state.finished or checkpoints.is_due(state.step):
                state = save(state, best=improved)
    checkpoints.load_result(state)
    return state


def remaining_batches(
    loader: Loader, config: StageConfig, state: StageState, limits: Limits
) -> Iterator[Batch]:
    """Yield this process's share of each batch that is left of the current epoch.

    There is none once a limit is reached.
    """
    if not limits.reached(state):
        position = state.rows - state.epoch * loader.num_rows
        own_rows = {rule: state.own_rows.get(key, 0) for key, rule in config.own_windows.items()}
        yield from loader.batches(state.epoch, position, own_rows)


def state_after(state: StageState, batch: Batch, config: StageConfig) -> StageState:
    """Return the state after a step on a batch."""
    own_rows = {key: batch.for_windows(rule).rows_done for key, rule in config.own_windows.items()}
    items = state.items + batch.step_tokens
    next_state = replace(
        state, step=state.step + 1, rows=batch.rows_done, own_rows=own_rows, items=items
    )
    if next_state.step == config.optimizer.schedule.warmup_steps:
        return replace(next_state, warmup_rows=next_state.rows, warmup_items=items)
    return next_state


def ends_epoch(state: StageState, loader: Loader, limits: Limits) -> bool:
    """Whether the step that led to `state` was the last of its epoch, or of the stage."""
    return state.rows == (state.epoch + 1) * loader.num_rows or limits.reached(state)


def log_interval(config: StageConfig, limits: Limits) -> int:
    """Return the steps between two log lines: fewer than asked for in a short stage.

    A stage that is limited in steps has about 20 lines at least, for its curves, but none for every
    few steps.
    """
    if limits.steps == math.inf:
        return config.log_every
    return min(config.log_every, max(FEWEST_STEPS, math.ceil(limits.steps / FEWEST_LINES)))


def lr_factor(state: StageState, config: StageConfig, limits: Limits) -> float:
    """Return the factor of the learning rate for the step that follows `state`."""
    schedule = config.optimizer.schedule
    share = limits.share_after(state, schedule.warmup_steps)
    return factor_at(schedule, state.step, state.epoch, share)
