"""A point in time that cuts all histories, and what is said where it leaves nobody.

`temporal_cut.py` and `timepoint_leave_one_out.py` hold out what is later. There an interaction at
the very time of the cut is before it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from research.config import check_types
from research.data.corpus import Corpus
from research.data.held_out import Indices
from research.data.time_units import SECONDS_OF_A_DAY, units_of_a_second
from research.errors import InputError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class CutConfig(ABC):
    """Abstract: where in time all histories are cut; each is a frozen dataclass."""

    @abstractmethod
    def last_time(self, corpus: Corpus) -> int:
        """The time of the cut in the unit of the corpus's times, rounded down.

        Interactions up to it, itself included, are before the cut. `InputError` if the corpus has
        no timestamps or the cut is outside of them.
        """


@dataclass(frozen=True, kw_only=True)
class AtQuantile(CutConfig):
    """The cut at a quantile of the times of all interactions, interpolated linearly."""

    quantile: float = 0.9
    """Share of the interactions up to the cut, above 0 and below 1."""

    def __post_init__(self) -> None:
        check_types(self)
        check_quantile(self.quantile, "split.cut.quantile")

    def last_time(self, corpus: Corpus) -> int:
        """See `CutConfig`; `InputError` if the corpus has no timestamps."""
        return time_at_quantile(times_of(corpus), self.quantile)


@dataclass(frozen=True, kw_only=True)
class AtTime(CutConfig):
    """The cut at a time that is given."""

    time: str
    """A day (2014-05-01: its first moment, midnight) or a moment (2014-05-01T12:30), in UTC unless
    it names another zone; or a whole number in the unit of the corpus's times. Interactions at the
    very time of the cut are before it: where times are whole days, so is all of that day."""

    def __post_init__(self) -> None:
        check_types(self)
        if not _is_whole(self.time):
            _seconds_of(self.time)

    def last_time(self, corpus: Corpus) -> int:
        """See `CutConfig`; `InputError` for a date where the times of the corpus have no unit."""
        times = times_of(corpus)
        oldest, newest = int(times.min()), int(times.max())
        if _is_whole(self.time):
            last = int(self.time)
        else:
            units = units_of_a_second(newest)
            if units is None:
                raise InputError(
                    f"split.cut.time is {self.time}, but the times of corpus {corpus.name}, "
                    f"{oldest} to {newest}, are no seconds since 1970; give one of these numbers"
                )
            last = math.floor(_seconds_of(self.time) * units)
        if not oldest <= last < newest:
            raise InputError(
                f"split.cut.time is {self.time}, which leaves no interaction of corpus "
                f"{corpus.name} on one side; its times are {moment(oldest, newest)} to "
                f"{moment(newest, newest)}: choose a time between them"
            )
        return last


def check_quantile(quantile: float, field: str) -> None:
    """Raise `InputError`, naming the config field, unless a quantile is above 0 and below 1."""
    if not 0.0 < quantile < 1.0:
        raise InputError(f"{field} is {quantile}; it must be above 0 and below 1, such as 0.9")


def times_of(corpus: Corpus) -> NDArray[np.int64]:
    """int64 [N]: the times of all interactions; `InputError` if the corpus has none."""
    if corpus.timestamps is None:
        raise InputError(
            f"corpus {corpus.name} has no timestamps, which a split at points in time (such as "
            "TemporalCut) and popularity of the last days need; choose split=LeaveOneOut or "
            "UserHoldout, or prepare it from a source with times"
        )
    if corpus.num_interactions == 0:
        raise InputError(f"corpus {corpus.name} has no interaction to split")
    return np.asarray(corpus.timestamps)


def time_at_quantile(times: NDArray[np.int64], quantile: float) -> int:
    """A quantile of times, interpolated linearly and rounded down; the times are not empty."""
    return math.floor(float(np.quantile(times, quantile)))


def stops_through(corpus: Corpus, times: NDArray[np.int64], last_time: int) -> Indices:
    """int64 [U]: index into `corpus.items` after each user's newest interaction up to `last_time`.

    It is the start of the history where there is none: histories are in the order of time, so that
    the interactions before a cut are a prefix of each.
    """
    starts = np.asarray(corpus.offsets[:-1])
    before = np.concatenate([[0], np.cumsum(times <= last_time)])
    stops: Indices = starts + before[corpus.offsets[1:]] - before[starts]
    return stops


def units_of_days(corpus: Corpus, days: float, field: str) -> int:
    """So many days in the unit of the corpus's times, rounded down.

    `InputError`, naming the config field, if the corpus has no timestamps or they have no unit, and
    for days that are not finite or less than one unit.
    """
    if not math.isfinite(days):
        raise InputError(f"{field} is {days}; give a finite number of days")
    times = times_of(corpus)
    units = units_of_a_second(int(times.max()))
    if units is None:
        raise InputError(
            f"{field} is {days}, but the times of corpus {corpus.name} are no seconds since 1970 "
            "and have no days; prepare it from a source with real times"
        )
    span = math.floor(days * SECONDS_OF_A_DAY * units)
    if span < 1:
        raise InputError(
            f"{field} is {days}, less than one unit of the times of corpus {corpus.name}, of which "
            f"a day has {SECONDS_OF_A_DAY * units:,}; give more days"
        )
    return span


def moment(time: int, newest: int) -> str:
    """A time as text, with its date in UTC if the newest time says what unit times are in."""
    units = units_of_a_second(newest)
    if units is None:
        return str(time)
    try:
        date = _EPOCH + timedelta(seconds=time // units)
    except OverflowError:
        return str(time)
    return f"{date:%Y-%m-%d %H:%M:%S} ({time})"


def nobody_left(
    corpus: Corpus, cut: int, part: str, remedy: str, *, cut_is_before: bool = True
) -> InputError:
    """The error that a cut leaves nobody to train on or to ask, `part` in words.

    `cut_is_before` says on which side interactions at the very time of the cut are.
    """
    times = times_of(corpus)
    before = int((times < cut + cut_is_before).sum())
    return InputError(
        f"corpus {corpus.name}: the cut at {moment(cut, int(times.max()))} leaves no user {part}; "
        f"{before:,} interactions are before it and {len(times) - before:,} after it. {remedy}"
    )


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20


def _seconds_of(text: str) -> float:
    """Seconds since 1970 of a date as text, in UTC unless it names a zone; `InputError`."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"split.cut.time is {text!r:.60}; allowed: a day such as 2014-05-01, a moment such as "
            "2014-05-01T12:30, or a whole number in the unit of the corpus's times"
        ) from error
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
