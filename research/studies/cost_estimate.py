"""Estimates what a run will cost: its stages are trained for a second, and a sample is ranked.

A study prints the estimates before it begins. The trial writes to a temporary folder, and nothing
that it has trained is used later.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from research.data.splits import HeldOut
from research.evaluation.candidates import AllItems
from research.evaluation.popularity import Popularity
from research.evaluation.ranker import Ranker
from research.runs.checks import check_sharding, check_touched_rows
from research.runs.config import RunConfig
from research.runs.parts import RunParts, StageParts, stage_parts
from research.runs.popularity_floor import has_recent_floor
from research.storage.run_folder import RunFolder
from research.training.allocator import give_back_free_memory
from research.training.averaging import held_by_averages
from research.training.limits import Limits
from research.training.loop import train
from research.training.optimizer import held_by_updates
from research.training.peak_memory import PeakMemory
from research.training.stage_run import StageRun
from research.training.state import StageState

# The first steps are slow, so they are run before the timing begins.
WARMUP_STEPS = 2
TRIAL_SECONDS = 0.7
# Histories that are ranked for the estimate, drawn evenly from all of them.
SAMPLED_HISTORIES = 2048
WARMUP_HISTORIES = 64
# Batches of an epoch among which the largest is looked for.
LOOKED_AT_BATCHES = 256
# On a CPU the heap gets holes between two trims, and a whole stage more than its first second: its
# peak was 1.2 to 1.45 times the trial's on Beauty (SASRec under the full softmax and BCE, BERT4Rec,
# S3-Rec), and 1.8 to 2.7 times on LastFM with S3-Rec's pretraining, whose steps are of unlike
# sizes (experiments/LOG.md, 2026-11-30): of that, this foresees little more than half.
HEAP_GROWTH = 1.5


@dataclass(frozen=True, eq=False)
class CostEstimate:
    """What a run will cost: an upper bound, as patience may end a stage earlier."""

    stages: Mapping[str, float]
    """By stage name, seconds of training, validation and checkpoints."""
    evaluation: float
    """Seconds of the final evaluation: the validation and the test part, and popularity's."""
    peak_bytes: int | None = None
    """Most memory that a process will hold, allocated on CUDA or else resident; None: the system
    does not report it."""


def estimate_cost(config: RunConfig, data_root: str, accelerator: Accelerator) -> CostEstimate:
    """Estimate a run's cost: train each stage briefly in a temporary folder, and rank a sample.

    `InputError` for a config that `execute` refuses before it trains.
    """
    check_sharding(config)
    check_touched_rows(config, accelerator.num_processes)
    give_back_free_memory()
    device = accelerator.device
    peak_memory = PeakMemory(device)
    run_parts = RunParts.of(config, data_root)
    if config.ranker is not None:
        started = time.monotonic()
        ranker = config.ranker.build(run_parts.events, run_parts.split)
        built = time.monotonic() - started
        evaluation = built + sum(_ranking_seconds(run_parts, ranker, counts=True))
        return CostEstimate({}, evaluation, peak_memory.bytes())
    stages = stage_parts(run_parts, accelerator)
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    try:
        validation, test = _ranking_seconds(run_parts, last.ranker)
        peaks = [peak_memory.bytes()]
        seconds: dict[str, float] = {}
        for stage in stages:
            name = stage.config.name
            seconds[name], peak = _estimate_stage(run_parts, stage, validation, accelerator)
            peaks.append(peak)
    finally:
        accelerator.free_memory()
    growth = HEAP_GROWTH if device.type == "cpu" else 1.0
    known = [round(growth * peak) for peak in peaks if peak is not None]
    return CostEstimate(seconds, validation + test, max(known, default=None))


def _ranking_seconds(
    run_parts: RunParts, ranker: Ranker, *, counts: bool = False
) -> tuple[float, float]:
    """Estimated seconds of ranking (the validation part, the test part).

    The test part is ranked under the candidate sets of the config and, unless the ranker itself
    `counts`, once more by popularity, twice where the last days are ranked by too.
    """
    validation, test = run_parts.split.validation, run_parts.split.test

    def sampled(number: int) -> RunParts:
        split = replace(run_parts.split, validation=evenly_drawn(validation, number))
        return replace(run_parts, split=replace(split, test=evenly_drawn(test, number)))

    sample, warmup = sampled(SAMPLED_HISTORIES), sampled(WARMUP_HISTORIES)
    seconds = {"validation": 0.0, "test": 0.0}
    popularity = Popularity(run_parts.catalogue.training.counts_V)
    for part, whole in (("validation", validation), ("test", test)):
        if len(whole) == 0 or (part == "test" and not run_parts.config.evaluation.test):
            continue
        asked = sample.split.test if part == "test" else sample.split.validation
        # The first ranking is slow: memory is allocated, and kernels are chosen.
        warmup.tables(ranker, part, [AllItems()])
        warmup.tables(popularity, part, [AllItems()])
        # Not timed, as a file of negatives is read whole whatever the sample.
        sets = sample.candidate_sets(asked, part) if part == "test" else [AllItems()]
        started = time.monotonic()
        sample.tables(ranker, part, sets)
        floors = 0 if part != "test" or counts else 1 + has_recent_floor(run_parts)
        for _ in range(floors):
            sample.tables(popularity, part, sets)
        seconds[part] = (time.monotonic() - started) * len(whole) / len(asked)
    return seconds["validation"], seconds["test"]


def evenly_drawn(held_out: HeldOut, number: int) -> HeldOut:
    """The questions about `number` histories, drawn evenly; all where there are fewer."""
    history_Q = held_out.histories.runs()
    if len(held_out) == 0 or history_Q[-1] < number:
        return held_out
    drawn = np.linspace(0, history_Q[-1], number).astype(np.int64)
    return held_out.select(np.isin(history_Q, drawn))


def _estimate_stage(
    run_parts: RunParts, stage: StageParts, validation_seconds: float, accelerator: Accelerator
) -> tuple[float, int | None]:
    """(seconds, peak memory in bytes) of a stage; the memory is None where the system does not
    report it."""
    config = stage.config
    num_rows = stage.loader.num_rows
    limits = Limits.of(config, num_rows)
    _train_briefly(run_parts, stage, accelerator, steps=WARMUP_STEPS)
    # A stage of one step has all that happens once: the optimizer's moments are made, a line is
    # logged with accuracies. What a longer one takes beyond it is the time of its other steps.
    one = _train_briefly(run_parts, stage, accelerator, steps=1)
    give_back_free_memory()
    held = PeakMemory(accelerator.device).bytes()
    trial = _train_briefly(run_parts, stage, accelerator, seconds=one.seconds + TRIAL_SECONDS)
    peak = trial.peak_bytes
    if held is not None and peak is not None:
        # Moments, dense gradients and averages were made in the trial, and do not grow with the
        # batch.
        held += held_by_updates(config.optimizer, stage.model)
        held += held_by_averages(config.averaging, stage.model)
        peak += round(max(0, peak - held) * (_largest_batch(stage, trial.step) - 1.0))
    if min(limits.steps, limits.rows, limits.tokens) == math.inf:
        assert config.seconds is not None, "a stage has a limit"
        return config.seconds, peak
    # The share of the stage that the trial has done; above 1 where the stage is shorter.
    share = max(
        count / max(1, limit)
        for count, limit in (
            (trial.step, limits.steps), (trial.rows, limits.rows), (trial.items, limits.tokens)
        )
    )  # fmt: skip
    seconds_per_step = trial.seconds
    if trial.step > one.step:
        seconds_per_step = (trial.seconds - one.seconds) / (trial.step - one.step)
    seconds = seconds_per_step * trial.step / share
    epochs = max(1, round(trial.rows / num_rows / share))
    validations = 0
    if config.validation is not None:
        validations = math.ceil(epochs / config.validation.every_epochs)
    # The trial has written one checkpoint, and a stage writes one after each validation at most.
    save_seconds = trial.checkpoint_seconds or 0.0
    total = seconds + validations * (validation_seconds + save_seconds)
    return total if config.seconds is None else min(total, config.seconds), peak


def _largest_batch(stage: StageParts, steps: int) -> float:
    """Tokens of the stage's largest batch by those of the largest among its first `steps`."""
    batches = itertools.islice(stage.loader.batches(0), LOOKED_AT_BATCHES)
    tokens = [batch.step_tokens for batch in batches]
    return max(tokens) / max(tokens[:steps])


def _train_briefly(
    run_parts: RunParts,
    stage: StageParts,
    accelerator: Accelerator,
    *,
    steps: int | None = None,
    seconds: float | None = None,
) -> StageState:
    """Train a stage for `steps` or `seconds` in a temporary folder, and return its state."""
    schedule = replace(stage.config.optimizer.schedule, shape="constant")
    config = replace(
        stage.config,
        epochs=None,
        steps=steps,
        tokens=None,
        seconds=seconds,
        validation=None,
        optimizer=replace(stage.config.optimizer, schedule=schedule),
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = StageRun(
            accelerator=accelerator,
            folder=RunFolder(Path(scratch)),
            seed=run_parts.config.seed,
            quiet=True,
            # In so few steps an objective may have no target at all, which is no error here.
            checks_targets=False,
        )
        return train(stage.model, stage.loader, config, run)
