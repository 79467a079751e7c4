"""The training loop: one function, ordered as the work happens.

It knows batches, steps and named figures; it does not know the losses. Validation comes in as a
function. A stage continues from its last checkpoint at any step, since batches, masks and learning
rates are functions of the seed and of what has been done: epochs, steps, rows, tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from accelerate import Accelerator

from research import stopping
from research.data.loader import Batch, Loader
from research.processes import Agreement, Processes
from research.progress import Reporter
from research.pulse import PULSE
from research.tracking import RunFolder
from research.training.allocator import trim
from research.training.health import Health, Recompilations, Spikes
from research.training.limits import Counts, done_by, limits_of, progress
from research.training.optim import build_optimizer, factor_at
from research.training.pretrainer import MultiObjectiveModel
from research.training.saves import CheckpointPlan, Saves
from research.training.stage import StageConfig, StageState
from research.training.step import Stepper

Validate = Callable[[], Mapping[str, float]]

ALL_MISSED = (
    "every validation answer already stands in its history, whose items evaluation.seen excludes: "
    "all metrics are 0 whatever is learned; evaluation.seen=kept lets these items compete"
)


def train(
    pretrainer: MultiObjectiveModel,
    loader: Loader,
    config: StageConfig,
    *,
    accelerator: Accelerator,
    folder: RunFolder,
    seed: int,
    validate: Validate | None,
    plan: CheckpointPlan = CheckpointPlan(),
    quiet: bool = False,
    shard_weights: bool = False,
) -> StageState:
    """Train a stage to its end, from its last checkpoint if it has one.

    Afterwards `pretrainer` holds the best state (without validation: the last one). Raises
    `FloatingPointError` when a loss or a gradient is not finite, `research.stopping.Stopped` after
    a signal; a checkpoint then says where the stage stands. With `shard_weights` several processes
    split the weights while the stage trains.
    """
    processes = Processes(accelerator)
    shards = None
    if shard_weights and processes.world > 1:
        # It brings in torch's FSDP, which other runs do without.
        from research.training.sharded import Shards

        shards = Shards(pretrainer, accelerator)
        if validate is not None:
            validate = partial(shards.ranking, validate)
    trained = pretrainer if shards is None else shards.split
    fingerprint = loader.corpus.fingerprint
    saves = Saves(folder.stage(config.name), fingerprint, plan, processes, shards)
    optimizer = build_optimizer(config.optimizer, trained)
    state = saves.load(trained, optimizer)
    limits = limits_of(config, loader.num_rows)
    with Reporter(config.name, limits.steps, quiet=quiet) as reporter, stopping.deferred():
        stepper = Stepper(
            trained,
            optimizer,
            config,
            seed,
            accelerator=accelerator,
            shards=shards,
        )
        stage = Running(stepper, limits, saves, state, folder, reporter)
        PULSE.begin(f"training {config.name}")
        while not stage.state.finished:
            stage.train_epoch(loader)
            stage.end_epoch(validate)
            trim()
        stage.stop_if_asked()
    accelerator.wait_for_everyone()
    if shards is not None:
        shards.join()
    if stage.state.best_step is not None:
        saves.load_result(pretrainer)
    return stage.state


class Running:
    """A stage on its way: where it stands, and everything that hears of it."""

    def __init__(
        self,
        stepper: Stepper,
        limits: Counts,
        saves: Saves,
        state: StageState,
        folder: RunFolder,
        reporter: Reporter,
    ) -> None:
        self.stepper = stepper
        self.limits = limits
        self.config = stepper.config
        self.meter = stepper.meter
        self.saves = saves
        self.folder = folder
        self.reporter = reporter
        self.agreement = Agreement(stepper.processes)
        self.state = state
        self.seconds_before = state.seconds
        self.started = time.monotonic()
        losses: list[float] = []

        def rewind() -> None:
            for line in folder.rewind(self.config.name, state.logged, state.step):
                loss = line.get(f"{self.config.name}/loss")
                losses.extend([float(loss)] if isinstance(loss, (int, float)) else [])

        stepper.processes.from_main(rewind)
        self.spikes = Spikes(losses)
        self.health = Health(
            self.config, stepper.processes, state.skipped, reporter.say, self._record
        )
        stepper.resume(state)
        self.recompilations = Recompilations()
        self.out_of_time = False

    def train_epoch(self, loader: Loader) -> None:
        """What is left of the running epoch, up to the stage's last step or moment."""
        if self._progress(self.state) == 1.0:
            return
        place = self.state.rows - self.state.epoch * loader.num_rows
        rules = self.config.own_windows.items()
        own_rows = {rule: self.state.own_rows.get(key, 0) for key, rule in rules}
        for batch in loader.batches(self.state.epoch, place, own_rows):
            self._heed()
            step, epoch = self.state.step, self.state.epoch
            after = advanced(self.state, batch, self.config)
            last = batch.rows_done == (epoch + 1) * loader.num_rows or self._progress(after) == 1.0
            logs = (step + 1) % self.config.log_every == 0 or last or self.out_of_time
            factor = self._factor()
            taken, pulls = self.stepper.take(batch, step, epoch, factor, measured=logs)
            self.health.judge(taken)
            self.stepper.clear()
            figures = pulls.figures(self.stepper.accelerator)
            if figures:
                self._log(step + 1, epoch, named(self.config, figures))
            self.state = after
            in_time = self._seconds() / (self.config.seconds or math.inf)
            self.reporter.advance(step + 1, max(self._progress(after), in_time))
            PULSE.progress(step + 1)
            if self.stepper.compiles and self.recompilations.judge():
                self.reporter.say(
                    f"{self.config.name}: step {step + 1}: torch.compile goes on building code, "
                    "which costs seconds each time; TORCH_LOGS=recompiles tells why"
                )
            if logs:
                self._log_losses(factor)
            if last or self.out_of_time:
                return
            if self.saves.is_due(step + 1):
                self.save()

    def end_epoch(self, validate: Validate | None) -> None:
        """Count the epoch, validate if it is time to, and save what must not be lost."""
        ended = self.out_of_time
        self.stepper.counted.end_epoch(self.reporter.say)
        self._heed(wait=True)
        ended = ended or self._progress(self.state) == 1.0
        self.state = replace(self.state, epoch=self.state.epoch + 1, finished=ended)
        best = False
        if validate is not None and is_due(self.config, self.state):
            PULSE.begin(f"validating {self.config.name}")
            values = validate()
            PULSE.begin(f"training {self.config.name}")
            if self.state.best_value is None and values.get("val/missed_share") == 1.0:
                self.reporter.say(f"{self.config.name}: {ALL_MISSED}")
            self.state = judged(self.state, values, self.config)
            self._log(self.state.step, self.state.epoch, values)
            self.reporter.say(line_of(self.config, self.state, values))
            if self.state.stale == 0:
                best = True
                self.saves.save_best(self.stepper.pretrainer, self._now())
        if best or self.state.finished or self.saves.is_due(self.state.step):
            self.save()

    def stop_if_asked(self) -> None:
        """After the stage's end, when all is saved."""
        if self.agreement.ask([stopping.is_asked()], wait=True)[0]:
            raise stopping.Stopped(stopping.asked_by())

    def _heed(self, *, wait: bool = False) -> None:
        """Save or stop if it is time to, or note that the next step is the last in time."""
        limit = self.config.seconds
        spent = limit is not None and self._seconds() >= limit
        wishes = (stopping.is_asked(), self.saves.wishes(), spent)
        stop, save, spent = self.agreement.ask(wishes, wait=wait)
        if stop or save:
            self.save()
        if stop:
            raise stopping.Stopped(stopping.asked_by())
        self.out_of_time = self.out_of_time or spent

    def save(self) -> None:
        """Write a checkpoint of where the stage stands."""
        self.saves.save(self.stepper.pretrainer, self.stepper.optimizer, self._now())
        PULSE.progress()

    def _now(self) -> StageState:
        self.health.settle()
        self.state = replace(
            self.stepper.with_scale(self.state),
            seconds=self._seconds(),
            skipped=self.health.skipped,
            logged=self.folder.logged(self.config.name),
            pending=self.meter.pending(),
        )
        return self.state

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _progress(self, state: StageState, since: Counts = Counts()) -> float:
        return progress(done_by(state), self.limits, since)

    def _factor(self) -> float:
        """The factor of the learning rate of the next step."""
        state, schedule = self.state, self.config.optimizer.schedule
        warm = Counts(schedule.warmup_steps, state.warmup_rows, state.warmup_items)
        return factor_at(schedule, state.step, state.epoch, self._progress(state, warm))

    def _log_losses(self, factor: float) -> None:
        state = self.state
        self.health.settle()
        values = self.meter.line(factor)
        speed = values[f"{self.config.name}/items_per_second"]
        loss = values.get(f"{self.config.name}/loss")
        rise = None if loss is None else self.spikes.judge(loss)
        if rise is not None:
            values[f"{self.config.name}/loss_rise"] = rise
            self.reporter.say(
                f"{self.config.name}: step {state.step}: the loss is {loss:.4g}, {rise:.1f} times "
                "the median of the lines before it"
            )
        self._log(state.step, state.epoch, values)
        if loss is not None:
            self.reporter.step(state.step, loss, speed)

    def _log(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.folder.log(self.config.name, step, epoch, values)

    def _record(self, found: dict[str, object]) -> None:
        self.folder.write("nonfinite.json", found)


def advanced(state: StageState, batch: Batch, config: StageConfig) -> StageState:
    """The state after a step on a batch."""
    own_rows = {key: batch.under(rule).rows_done for key, rule in config.own_windows.items()}
    items = state.items + batch.step_tokens
    after = replace(
        state, step=state.step + 1, rows=batch.rows_done, own_rows=own_rows, items=items
    )
    if after.step == config.optimizer.schedule.warmup_steps:
        return replace(after, warmup_rows=after.rows, warmup_items=items)
    return after


def named(config: StageConfig, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures under the stage's name, as metrics.jsonl has them."""
    return {f"{config.name}/{name}": value for name, value in figures.items()}


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
        return replace(
            state, best_value=value, best_epoch=state.epoch, best_step=state.step, stale=0
        )
    stale = state.stale + 1
    exhausted = rule.patience is not None and stale >= rule.patience
    return replace(state, stale=stale, finished=state.finished or exhausted)


def line_of(config: StageConfig, state: StageState, values: Mapping[str, float]) -> str:
    """A line for the terminal after a validation."""
    assert config.validation is not None
    shown = dict.fromkeys([f"val/{config.validation.metric}", *values])
    figures = "  ".join(f"{name} {values[name]:.4f}" for name in list(shown)[:3])
    return f"{config.name}: epoch {state.epoch}  {figures}" + ("  *" if state.stale == 0 else "")
