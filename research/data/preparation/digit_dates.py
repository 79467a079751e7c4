"""Dates that are written as whole numbers, from YYYYMMDD to YYYYMMDDhhmmss.

`times.py` asks for them before it takes whole numbers for seconds or milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.data.time_units import SECONDS_OF_A_DAY
from research.errors import InputError


@final
@dataclass(frozen=True, kw_only=True)
class _Form:
    name: str
    """How the form is written."""
    lowest: int
    """The smallest number that may be one of its dates."""
    highest: int
    """The largest number that may be one of its dates."""
    per_day: int
    """What a number is divided by to get its day as YYYYMMDD."""
    otherwise: str
    """What the numbers would be if they were no dates."""
    unit: str
    """Their unit then."""


_FORMS = (
    _Form(
        name="YYYYMMDD",
        lowest=19000101,
        highest=21001231,
        per_day=1,
        otherwise="seconds of August 1970",
        unit="s",
    ),
    _Form(
        name="YYYYMMDDhh",
        lowest=1900010100,
        highest=2100123123,
        per_day=10**2,
        otherwise="seconds of 2030 to 2036",
        unit="s",
    ),
    _Form(
        name="YYYYMMDDhhmm",
        lowest=190001010000,
        highest=210012312359,
        per_day=10**4,
        otherwise="milliseconds of 1976",
        unit="ms",
    ),
    _Form(
        name="YYYYMMDDhhmmss",
        lowest=19000101000000,
        highest=21001231235959,
        per_day=10**6,
        otherwise="milliseconds of a year after 2570",
        unit="ms",
    ),
)


def digit_dates(
    values: NDArray[np.int64],
    where: Callable[[int], str],
    is_whole: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Seconds since 1970 of numbers that are dates, int64 [N], and what to tell the user.

    The seconds are None for numbers that are no dates. A value is a date if it is one in the years
    1900 to 2100 and, where `is_whole` is given, its flag there is set. Raises `InputError` for
    the first number that is no date if at least half of them are dates; `where` names its row.
    """
    for form in _FORMS:
        in_range = (values >= form.lowest) & (values <= form.highest)
        if 2 * int(in_range.sum()) < max(len(values), 1):
            continue
        is_date = in_range.copy() if is_whole is None else in_range & is_whole
        seconds = np.zeros(len(values), dtype=np.int64)
        seconds[is_date], is_real = _seconds_of(values[is_date], form.per_day)
        is_date[is_date] = is_real
        num_dates = int(is_date.sum())
        example = values[int(np.argmax(in_range))]
        if 2 * num_dates < len(values):
            advice = (
                f"times such as {example} look like dates ({form.name}), but most are no such "
                f"dates; they are read as {form.otherwise}. If that is wrong, correct them; if it "
                f"is right, give --time-unit {form.unit}."
            )
            return None, (advice,)
        if num_dates < len(values):
            row = int(np.argmin(is_date))
            more = "" if is_whole is None or is_whole[row] else " and a fraction"
            raise InputError(
                f"{where(row)}: {values[row]}{more} is no date of the years 1900 to 2100, while "
                f"{num_dates:,} of {len(values):,} times are dates ({form.name}). Correct it, or "
                f"give --time-unit {form.unit} if the times are {form.otherwise}."
            )
        advice = f"times such as {example} are read as dates ({form.name})"
        return seconds, (f"{advice}; otherwise give --time-unit.",)
    return None, ()


def _seconds_of(
    values: NDArray[np.int64], per_day: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Seconds since 1970, int64, and whether a value is a date and time of day at all, bool."""
    dates, clock = np.divmod(values, per_day)
    years, days = np.divmod(dates, 10_000)
    months, days = np.divmod(days, 100)
    month_numbers = 12 * (years - 1970) + months - 1
    first_days, next_days = (
        numbers.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        for numbers in (month_numbers, month_numbers + 1)
    )
    # As hhmmss, whatever of it is written.
    hours, rest = np.divmod(clock * (10**6 // per_day), 10_000)
    minutes, rest = np.divmod(rest, 100)
    is_real = (months >= 1) & (months <= 12) & (days >= 1) & (days <= next_days - first_days)
    # A minute may have a 61st second.
    is_real &= (hours <= 23) & (minutes <= 59) & (rest <= 60)
    return (first_days + days - 1) * SECONDS_OF_A_DAY + hours * 3600 + minutes * 60 + rest, is_real
