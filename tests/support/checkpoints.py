"""Finds the checkpoints of a stage, for tests that look into run folders."""

from __future__ import annotations

from pathlib import Path

from research.checkpoint.files import checkpoints_by_step


def newest_checkpoint(stage: Path, kind: str = "step") -> Path:
    """Return the folder of a stage's newest checkpoint.

    The kind `step` is what training continues from, `best` has the best validation.
    """
    return next(iter(checkpoints_by_step(stage, kind).values()))
