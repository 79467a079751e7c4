"""How runs are mirrored to W&B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How runs are mirrored to W&B; nothing of this changes a run or its folder."""

    mode: Literal["auto", "online", "offline"] = "auto"
    """auto: online if a key is configured, else offline."""
    project: str | None = None
    """W&B project; None: WANDB_PROJECT, else sixfold, which holds all studies as groups."""
    entity: str | None = None
    """W&B user or team; None: WANDB_ENTITY, else the key's default."""
    init_seconds: float = 10.0
    """How long a run's beginning may wait for the server before it goes on offline."""
    finish_seconds: float = 15.0
    """How long a run's end may wait for the server to confirm what it was sent."""
