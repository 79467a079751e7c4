"""Where a stage's checkpoints lie, for the tests that look into run folders."""

from __future__ import annotations

from pathlib import Path

from research.checkpoint.files import checkpoints_by_step


def newest_checkpoint(stage: Path, kind: str = "step") -> Path:
    """A stage's newest checkpoint of a kind: `step`, from which it goes on, or `best`."""
    return next(iter(checkpoints_by_step(stage, kind).values()))
