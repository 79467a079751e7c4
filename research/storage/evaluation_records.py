"""Records beside the figures of an evaluation, which are parts of summary.json (`records.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuestionsRecord:
    """How many held-out items of a part are asked for in doubt."""

    questions: int
    """Number of held-out items."""
    tied: int | None
    """Those with the time of the item before them, so that the order of the two is arbitrary; None:
    the corpus has no times."""
    finer_times: bool
    """Whether times finer than those that the corpus keeps decided the order of the tied ones."""
    before_training_end: int | None
    """Those older than the newest training event, so that training knows what came later; None: the
    corpus has no times."""
    unseen: int
    """Those of an item that no training event has."""


@dataclass(frozen=True, kw_only=True)
class FloorRecord:
    """Popularity's metrics on a run's test part, and the run's difference from them."""

    newest_days: int | None = None
    """The last days of training whose interactions make an item popular; None: all of it."""

    test: Mapping[str, Mapping[str, float]]
    """Popularity's metrics by candidate set."""
    candidates: str
    """The candidate set of the comparison."""
    metric: str
    """The metric of the comparison."""
    difference: float
    """The run minus popularity, mean over users; positive: the run is above popularity."""
    low: float
    """Lower end of the difference's 95 % bootstrap interval over users."""
    high: float
    """Upper end of the same interval."""

    @property
    def name(self) -> str:
        """What the floor is called."""
        days = "" if self.newest_days is None else f" of the last {self.newest_days} days"
        return f"popularity{days}"
