"""Units of times, and the unit of a corpus's times, guessed by how large they are.

Preparation stores whole seconds since 1970. A corpus from before it did so, or from another
program, may hold another unit, or numbers that only order events, and does not say which.
"""

from __future__ import annotations

from datetime import date, timedelta

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# From how large a number on a time is in a unit finer than seconds: 10^11 seconds are the year
# 5138, and 10^11 milliseconds are March 1973.
SMALLEST = {"ms": 10**11, "us": 10**14, "ns": 10**17}
# What is smaller than the seconds of March 1973 may be a number in an order, and no time.
LEAST_SECONDS = 10**8
SECONDS_OF_A_DAY = 86_400
# Whole seconds that differ by no more than this say nothing of who did what when.
SHORTEST_SPAN = 1


def unit_of_size(size: int) -> str:
    """The unit, s, ms, us or ns, of a time whose absolute value is `size`."""
    return next((unit for unit, least in reversed(SMALLEST.items()) if size >= least), "s")


def units_of_a_second(newest: int) -> int | None:
    """How many units of the times are a second: 1, 1,000 (milliseconds), 10^6 or 10^9.

    `newest` is the newest time. None: it is too small for a time since 1970 in any such unit.
    """
    return None if newest < LEAST_SECONDS else PER_SECOND[unit_of_size(newest)]


def days_of(first: int, last: int) -> tuple[str, str] | None:
    """The days (YYYY-MM-DD, UTC) of the oldest and the newest time.

    None: their unit cannot be guessed, or they are in no year from 1 to 9999.
    """
    units = units_of_a_second(last)
    if units is None:
        return None
    days = (time // (units * SECONDS_OF_A_DAY) for time in (first, last))
    try:
        oldest, newest = (str(date(1970, 1, 1) + timedelta(days=day)) for day in days)
    except OverflowError:
        return None
    return oldest, newest


def are_in_a_second(first: int, last: int) -> bool:
    """Whether the oldest and the newest time, in whole seconds, are at most a second apart."""
    return last - first <= SHORTEST_SPAN
