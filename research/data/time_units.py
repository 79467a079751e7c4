"""The unit of a corpus's times, guessed by how large they are.

A corpus keeps times in the unit of its source, which seldom says what that is.
"""

from __future__ import annotations

# The newest time in seconds is after March 1973 and before the year 5138. A finer unit then gives a
# larger number than any time in seconds, and what is smaller is a number in an order, not a time.
LEAST_SECONDS = 10**8
LEAST_FINER_THAN_SECONDS = 10**11
SECONDS_OF_A_DAY = 86_400


def units_of_a_second(newest: int) -> int | None:
    """How many units of the times are a second: 1, 1,000 (milliseconds), 10^6 or 10^9.

    `newest` is the newest time. None: it is too small for a time since 1970 in any such unit.
    """
    if newest < LEAST_SECONDS:
        return None
    units = 1
    while newest // units >= LEAST_FINER_THAN_SECONDS and units < 10**9:
        units *= 1000
    return units
