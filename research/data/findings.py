"""`Finding`, the answer of one check of an audit, and the shares from which it is a warning.

`corpus_checks.py` and `split_checks.py` ask about a corpus, `research/runs/audit.py` about a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["problem", "warning", "fine"]

# Below one question in a hundred, a check moves a figure by less than another seed does.
WARNED_SHARE = 0.01
# From one question in ten on, it moves figures by more than most models differ.
PROBLEM_SHARE = 0.10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    """The check's name, by which a script finds it."""
    level: Level
    """A "problem" makes figures mean something else than they seem to; a "warning" has to be said
    beside them; "fine" needs nothing."""
    numbers: Mapping[str, float]
    """What was counted, by name; a name with `share` is of 0 to 1."""
    sentence: str
    """What was found and, unless it is fine, what to do about it."""


def level_of(share: float) -> Level:
    """The level of a share (0 to 1) of questions that a fault touches."""
    if share < WARNED_SHARE:
        return "fine"
    return "warning" if share < PROBLEM_SHARE else "problem"


def percent(share: float) -> str:
    """A share (0 to 1) as text; one above 0 is never written as 0."""
    return "under 0.1 %" if 0.0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def span(numbers: Sequence[float], text: Callable[[float], str]) -> str:
    """The least and the greatest of at least one number, each as `text` writes it; one if alike."""
    low, high = text(min(numbers)), text(max(numbers))
    return high if low == high else f"{low} to {high}"


def share_of(part: int, whole: int) -> float:
    """`part` of `whole`, 0 where there is nothing."""
    return part / whole if whole else 0.0
