"""nonfinite.json: what a step had that a loss or gradient which is not finite has stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from research.storage.records import Record


@dataclass(frozen=True, kw_only=True)
class NonFiniteShare:
    """One process's share of a step with a loss or gradient that was not finite."""

    rank: int
    """The rank of the process."""
    not_finite: tuple[str, ...]
    """Names of its losses that were not finite."""
    rows: tuple[int, ...]
    """The rows in its batch."""
    users: tuple[int, ...]
    """The users of those rows."""
    gradients: tuple[str, ...] | None = None
    """In the share of rank 0, names of parameters whose gradients were not finite; None: another
    rank, or a loss was not finite, so that gradients were not checked."""


@dataclass(frozen=True, kw_only=True)
class NonFiniteRecord(Record):
    """nonfinite.json: the step that stopped a stage, as a loss or gradient was not finite."""

    FILE: ClassVar[str] = "nonfinite.json"
    stage: str
    """The stage's name."""
    step: int
    """The number of the step."""
    epoch: int
    """Epochs completed before the step."""
    shares: tuple[NonFiniteShare, ...]
    """The share of every process, in the order of ranks."""
