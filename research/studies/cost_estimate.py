"""Estimates how long a run will take by training each of its stages for a second.

A study prints the estimates before it begins. The trial writes to a temporary folder, and nothing
that it has trained is used later.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from research.evaluation.candidates import AllItems
from research.runs.config import RunConfig
from research.runs.parts import RunParts, StageParts, stage_parts
from research.storage.run_folder import RunFolder
from research.training.limits import Limits
from research.training.loop import train
from research.training.stage_run import StageRun
from research.training.state import StageState

# The first steps are slow, so they are run before the timing begins.
WARMUP_STEPS = 3
TRIAL_SECONDS = 0.7


@dataclass(frozen=True, eq=False)
class CostEstimate:
    """Estimated seconds of a run: an upper bound, as patience may end a stage earlier."""

    stages: Mapping[str, float]
    """By stage name, seconds of training and validation."""
    evaluation: float
    """Seconds of ranking the validation and the test part once each, at the end."""


def estimate_cost(config: RunConfig, data_root: str, accelerator: Accelerator) -> CostEstimate:
    """Estimate a run's seconds: train each stage briefly in a temporary folder, and rank once."""
    run_parts = RunParts.of(config, data_root)
    part = "validation" if len(run_parts.split.validation) else "test"
    started = time.monotonic()
    if config.ranker is not None:
        run_parts.tables(config.ranker.build(run_parts.corpus, run_parts.split), part, [AllItems()])
        return CostEstimate({}, 2 * (time.monotonic() - started))
    stages = stage_parts(run_parts, accelerator)
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    started = time.monotonic()
    run_parts.tables(last.ranker, part, [AllItems()])
    ranking_seconds = time.monotonic() - started
    try:
        by_stage = {
            stage.config.name: _estimate_stage(run_parts, stage, ranking_seconds, accelerator)
            for stage in stages
        }
    finally:
        accelerator.free_memory()
    return CostEstimate(by_stage, 2 * ranking_seconds)


def _estimate_stage(
    run_parts: RunParts, stage: StageParts, ranking_seconds: float, accelerator: Accelerator
) -> float:
    config = stage.config
    num_rows = stage.loader.num_rows
    limits = Limits.of(config, num_rows)
    if min(limits.steps, limits.rows, limits.tokens) == math.inf:
        assert config.seconds is not None, "a stage has a limit"
        return config.seconds
    _train_briefly(run_parts, stage, accelerator, steps=WARMUP_STEPS)
    trial = _train_briefly(run_parts, stage, accelerator, seconds=TRIAL_SECONDS)
    share_done = limits.share(trial)
    validations = 0
    if config.validation is not None:
        epochs = trial.rows / num_rows / share_done
        validations = max(1, round(epochs / config.validation.every_epochs))
    seconds = trial.seconds / share_done + validations * ranking_seconds
    return seconds if config.seconds is None else min(seconds, config.seconds)


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
