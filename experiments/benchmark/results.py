"""What a side reports of a work, and whether two sides did the same.

A peer's environment runs this file too, so it imports nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

Fact = str | int | float
OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a work by one side."""

    work: str
    """W1 to W8."""
    side: str
    """`OURS`, or the peer's name."""
    seconds: float
    """Wall time of the whole work; of an epoch, where the work is training."""
    cpu: float
    """CPU seconds of the same, summed over threads."""
    steps: int = 1
    """Steps that were timed; with fewer than an epoch has, the time is scaled by rows."""
    steps_in_epoch: int = 1
    """Steps of the whole work; 1: it has none."""
    timed_share: float = 1.0
    """Share of the whole work's rows that was timed; 1: nothing was scaled."""
    peak_megabytes: float
    """Peak resident memory of the process, or of torch's allocations on a GPU, in MiB."""
    gflop: float
    """10^9 operations in the matrix products of the whole work as this side does it; 0: not
    counted."""
    facts: Mapping[str, Fact]
    """What was done: rows, targets, sizes, loss."""

    @staticmethod
    def from_json(text: str) -> Measured:
        """The inverse of `to_json`."""
        return Measured(**json.loads(text))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Ceilings:
    """Best rates of a machine."""

    gflops: float
    """10^9 operations a second in fp32 products of large matrices."""
    copy: float
    """10^9 bytes a second, read and written, in copies of a large array."""


@dataclass(frozen=True)
class Failure:
    """A side that gave no measurement."""

    work: str
    """W1 to W8."""
    side: str
    """`OURS`, or the peer's name."""
    reason: str
    """The last line of its errors."""


def differences(ours: Mapping[str, Fact], theirs: Mapping[str, Fact]) -> dict[str, str]:
    """Facts that differ between two sides, by name, as text that has both values.

    A fact that only one side reports differs.
    """
    names = [*ours, *(name for name in theirs if name not in ours)]
    return {
        name: f"{name}: {shown(ours.get(name))} here, {shown(theirs.get(name))} there"
        for name in names
        if ours.get(name) != theirs.get(name)
    }


def shown(fact: Fact | None) -> str:
    """A fact as text, with commas in large numbers; None: the side did not report it."""
    if fact is None:
        return "not reported"
    return f"{fact:,}" if isinstance(fact, int) else str(fact)


def unexplained(
    ours: Mapping[str, Fact], theirs: Mapping[str, Fact], known: Collection[str]
) -> list[str]:
    """Differences whose names are not in `known`, as text; no ratio is given where there is one."""
    return [text for name, text in differences(ours, theirs).items() if name not in known]


@dataclass(frozen=True)
class Spread:
    """The median, least and most of some runs."""

    middle: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return Spread(median(values), min(values), max(values))


def digits(value: float) -> str:
    """A number with three digits that count."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"
