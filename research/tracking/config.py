"""The config of the W&B mirror; it is no part of a run's config, and does not enter its hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """How runs are mirrored to W&B; none of it changes a run's results."""

    mode: Literal["auto", "online", "offline"] = "auto"
    """online or offline; auto: online if a key is configured, else offline."""
    project: str | None = None
    """W&B project; None: where the run was mirrored before, else WANDB_PROJECT, else sixfold. A
    project holds all studies, each as a group."""
    entity: str | None = None
    """W&B user or team; None: where the run was mirrored before, else WANDB_ENTITY, else the key's
    default."""
    init_seconds: float = 10.0
    """Seconds that a run waits for the server when it begins, before it continues offline."""
    finish_seconds: float = 15.0
    """Seconds that a run waits at its end for the server to confirm what it was sent."""
    silent: bool = False
    """Whether to leave out the git commit, the machine, its load and the versions of packages."""
    artifacts: bool = False
    """Whether a finished run also uploads its best checkpoint and its rank tables."""
    artifact_seconds: float = 600.0
    """Seconds that a run with artifacts waits at its end instead of `finish_seconds`."""

    @property
    def end_seconds(self) -> float:
        """Seconds that a run waits at its end for the server."""
        return self.artifact_seconds if self.artifacts else self.finish_seconds
