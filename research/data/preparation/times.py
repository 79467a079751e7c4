"""Times of events: numbers of seconds or of a smaller unit, and dates as text, made seconds.

What is stored in a corpus are whole seconds since 1970. Events are sorted before that, by the time
exactly as it was given: integers never become floats, and decimals are compared as decimals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.digit_dates import digit_dates
from research.data.time_units import PER_SECOND, SECONDS_OF_A_DAY, unit_of_size
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?$"
_PLAIN_DECIMAL = r"^(?P<sign>[+-]?)(?P<whole>[0-9]+)(?P<point>\.?)(?P<fraction>[0-9]*)$"
_ZONE = r"([zZ]|[ ]?UTC|[ ]?[+-][0-9]{2}(:?[0-9]{2})?)$"
_TIME_OF_DAY = r"[T ][0-9]{2}.*"
# So many digits after the point are compared as an integer, which fits into int64; more of them are
# compared by Python.
_DIGITS = 18
_FINER = r"^0*[1-9]"
# A float64 holds every integer up to here.
EXACT_IN_FLOAT = 2**53

Where = Callable[[int], str]
"""Names a row (from 0) in errors, by its file and line or row number."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Times:
    """The times of events, and what reading them showed."""

    seconds: NDArray[np.int64]
    """[N]: whole seconds since 1970, rounded down."""
    exact: NDArray[np.int64] | NDArray[np.float64]
    """[N]: a number that is larger for a later time; equal for equal times as they were given."""
    unit: str
    """The unit of the values: s, ms, us, ns, or "date"."""
    rounded_down: int = 0
    """How many of them are no whole seconds."""
    warnings: tuple[str, ...] = ()
    """What to tell the user."""


def read_times(
    cells: pa.ChunkedArray, unit: TimeUnit, text_format: str | None, where: Where
) -> Times:
    """The times in `cells`, of which none is missing.

    Numbers have the unit `unit`; "auto" tells it by their size. Text that is no number is a date
    in ISO 8601, in UTC if it has no zone, or in the form `text_format` (as of `strptime`). Raises
    `InputError` with `where` for a value that is no time, if the unit cannot be told, or if one is
    given for dates.
    """
    times = _read_times(cells, unit, text_format, where)
    if times.unit == "date" and unit != "auto":
        raise InputError(f"{where(0)}: times are dates, which have no unit; leave out --time-unit.")
    return times


def _read_times(
    cells: pa.ChunkedArray, unit: TimeUnit, text_format: str | None, where: Where
) -> Times:
    import pyarrow as pa

    kind = cells.type
    if text_format is not None:
        return _of_format(cells.cast(pa.string()), text_format, where)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _of_temporal(cells)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_decimal(kind):
        return _of_text(cells.cast(pa.string()), unit, where)
    if pa.types.is_uint64(kind):
        _raise_first(np.asarray(cells) >= 2**63, cells, where, "does not fit into int64")
    if pa.types.is_integer(kind):
        return _of_integers(_integers(cells), unit, where)
    if pa.types.is_floating(kind):
        return _of_floats(cells, unit, where)
    raise InputError(f"{where(0)}: {kind} is no type of times; numbers, dates and text are.")


def _of_integers(values: NDArray[np.int64], unit: TimeUnit, where: Where) -> Times:
    advice: tuple[str, ...] = ()
    if unit == "auto":
        seconds, advice = digit_dates(values, where)
        if seconds is not None:
            warnings = (*advice, _READ_AS_UTC)
            return Times(seconds=seconds, exact=values, unit="date", warnings=warnings)
    named = _unit_of(values, where) if unit == "auto" else unit
    warnings = _unit_warnings(named, unit) + advice
    return _of_counts(values, PER_SECOND[named], named, warnings)


def _of_counts(
    values: NDArray[np.int64], per_second: int, unit: str, warnings: tuple[str, ...]
) -> Times:
    seconds = values if per_second == 1 else values // per_second
    rounded_down = int((seconds * per_second != values).sum())
    return Times(
        seconds=seconds, exact=values, unit=unit, rounded_down=rounded_down, warnings=warnings
    )


def _of_floats(cells: pa.ChunkedArray, unit: TimeUnit, where: Where) -> Times:
    values = np.asarray(cells).astype(np.float64)
    _raise_first(~np.isfinite(values), cells, where, "is not finite")
    # 2.0 ** 63 is exact in float64; the maximum of int64 is not.
    outside = (values < -(2.0**63)) | (values >= 2.0**63)
    _raise_first(outside, cells, where, "does not fit into int64")
    lossy = _lossy(np.abs(values) >= EXACT_IN_FLOAT, where)
    if cells.type.bit_width < 64:
        lossy += (
            f"{where(0)}: times are stored as {cells.type}, which cannot tell one second of today "
            "from the next; write them as float64 or integers.",
        )
    if (values == np.floor(values)).all():
        times = _of_integers(values.astype(np.int64), unit, where)
        return replace(times, warnings=times.warnings + lossy)
    whole = np.floor(values)
    named, advice = _unit_and_advice(whole.astype(np.int64), values == whole, unit, where)
    # A quotient of floats may be rounded up to a whole number; a remainder is exact.
    quotients, part = np.divmod(values, PER_SECOND[named])
    seconds = quotients.astype(np.int64)
    rounded_down = int((part != 0).sum())
    return Times(
        seconds=seconds,
        exact=values,
        unit=named,
        rounded_down=rounded_down,
        warnings=_unit_warnings(named, unit) + advice + lossy,
    )


def _of_temporal(cells: pa.ChunkedArray) -> Times:
    import pyarrow as pa

    kind = cells.type
    if pa.types.is_date64(kind):
        return _of_counts(_integers(cells.cast(pa.int64())), PER_SECOND["ms"], "date", ())
    if pa.types.is_date(kind):
        days = _integers(cells.cast(pa.date32()).cast(pa.int32()))
        return Times(seconds=days * SECONDS_OF_A_DAY, exact=days, unit="date")
    values = _integers(cells.cast(pa.int64()))
    warnings = () if kind.tz else (_READ_AS_UTC,)
    return _of_counts(values, PER_SECOND[kind.unit], "date", warnings)


_READ_AS_UTC = "dates without a time zone are read as UTC."


def _of_text(cells: pa.ChunkedArray, unit: TimeUnit, where: Where) -> Times:
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim(cells, " \t")
    is_number = _flags(pc.match_substring_regex(trimmed, _NUMBER))
    if is_number.all():
        try:
            return _of_integers(_integers(trimmed.cast(pa.int64())), unit, where)
        except pa.ArrowInvalid:
            return _of_decimals(trimmed, unit, where)
    if is_number.any():
        number, date = int(np.argmax(is_number)), int(np.argmin(is_number))
        raise InputError(
            f"{where(date)}: {cells[date].as_py()!r:.60} is no number, while "
            f"{cells[number].as_py()!r:.60} ({where(number)}) is one; times of one column must all "
            "be numbers or all be dates."
        )
    return _of_dates(trimmed, where)


def _of_decimals(cells: pa.ChunkedArray, unit: TimeUnit, where: Where) -> Times:
    """Times of numbers, some of which have a point or an exponent; compared as decimals."""
    import pyarrow as pa
    import pyarrow.compute as pc

    has_exponent = _flags(pc.match_substring_regex(cells, "[eE]"))
    if has_exponent.any():
        # Few programs write so, and each value must be read by itself.
        texts = cells.to_pylist()
        for row in np.flatnonzero(has_exponent).tolist():
            texts[row] = f"{Decimal(texts[row]):f}"
        cells = pa.chunked_array([pa.array(texts, pa.string())])
    parts = pc.extract_regex(cells, _PLAIN_DECIMAL).combine_chunks()
    negative = _flags(pc.equal(parts.field("sign"), "-"))
    try:
        whole = _integers(parts.field("whole").cast(pa.int64()))
    except pa.ArrowInvalid:
        too_large = [Decimal(text) >= 2**63 for text in parts.field("whole").to_pylist()]
        _raise_first(np.array(too_large), cells, where, "does not fit into int64")
        raise
    digits = pc.utf8_slice_codeunits(
        pc.utf8_rpad(parts.field("fraction"), _DIGITS, "0"), 0, _DIGITS
    )
    fraction = _integers(digits.cast(pa.int64()))
    has_point = has_exponent | _flags(pc.not_equal(parts.field("point"), ""))
    lossy = _lossy(has_point & (whole >= EXACT_IN_FLOAT), where)
    # Rounded down: -1.25 is -2 and 0.75.
    borrows = negative & (fraction > 0)
    whole = np.where(negative, -whole, whole) - borrows
    fraction = np.where(borrows, 10**_DIGITS - fraction, fraction)
    rest = pc.utf8_slice_codeunits(parts.field("fraction"), _DIGITS)
    if _flags(pc.match_substring_regex(rest, _FINER)).any():
        values = [Decimal(text) for text in cells.to_pylist()]
        whole = np.array([math.floor(value) for value in values], dtype=np.int64)
        ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
        exact = np.array([ranks[value] for value in values], dtype=np.int64)
        fraction = np.array([value != math.floor(value) for value in values], dtype=np.int64)
    elif not fraction.any():
        # Whole numbers with a point, as of a column of dates in which a cell was missing.
        times = _of_integers(whole, unit, where)
        return replace(times, warnings=times.warnings + lossy)
    else:
        exact = _dense_ranks(whole, fraction)
    named, advice = _unit_and_advice(whole, fraction == 0, unit, where)
    seconds, part = np.divmod(whole, PER_SECOND[named])
    return Times(
        seconds=seconds,
        exact=exact,
        unit=named,
        rounded_down=int(((part != 0) | (fraction != 0)).sum()),
        warnings=_unit_warnings(named, unit) + advice + lossy,
    )


def _of_dates(cells: pa.ChunkedArray, where: Where) -> Times:
    """Times of ISO 8601 dates, with and without zones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow reads neither a blank before a zone nor the slashes and the words that others write.
    plain = pc.replace_substring_regex(cells, r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", r"\1-\2-\3")
    plain = pc.replace_substring_regex(plain, r"[ ]?(UTC|GMT|z)$", "Z")
    plain = pc.replace_substring_regex(plain, r"[ ]([+-][0-9]{2}:?[0-9]{2})$", r"\1")
    has_zone = _flags(pc.match_substring_regex(plain, f"{_TIME_OF_DAY}{_ZONE}"))
    nanoseconds = np.empty(len(has_zone), dtype=np.int64)
    per_second = PER_SECOND["ns"]
    for unit in ("ns", "us"):
        try:
            for rows, zone in ((has_zone, "UTC"), (~has_zone, None)):
                values = plain.filter(pa.array(rows)).cast(pa.timestamp(unit, zone))
                nanoseconds[rows] = _integers(values.cast(pa.int64()))
        except pa.ArrowInvalid:
            continue
        per_second = PER_SECOND[unit]
        break
    else:
        _raise_no_date(cells, plain, has_zone, where)
    warnings: tuple[str, ...] = ()
    if not has_zone.all():
        which = f"{int((~has_zone).sum()):,} of {len(has_zone):,} " if has_zone.any() else ""
        warnings = (which + _READ_AS_UTC,)
    return _of_counts(nanoseconds, per_second, "date", warnings)


def _raise_no_date(
    cells: pa.ChunkedArray, plain: pa.ChunkedArray, has_zone: NDArray[np.bool_], where: Where
) -> None:
    import pyarrow as pa

    for row, (value, zone) in enumerate(zip(plain.to_pylist(), has_zone.tolist(), strict=True)):
        try:
            pa.scalar(value).cast(pa.timestamp("us", "UTC" if zone else None))
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{where(row)}: {cells[row].as_py()!r:.60} is neither a number nor a date "
                "in ISO 8601, such as 2024-08-06T04:06:10+02:00. Give the form of yours, for "
                "example --time-format '%d.%m.%Y %H:%M'."
            ) from error
    raise InputError(
        f"{where(0)}: dates before 1677 or after 2262 cannot have parts of a microsecond."
    )


def _of_format(cells: pa.ChunkedArray, text_format: str, where: Where) -> Times:
    import pandas as pd
    import pyarrow.compute as pc

    if "%" not in text_format:
        raise InputError(f"--time-format {text_format!r}: expected a form such as '%d.%m.%Y'.")
    encoded = pc.utf8_trim_whitespace(cells).combine_chunks().dictionary_encode()
    codes, distinct = np.asarray(encoded.indices), encoded.dictionary.to_pylist()
    try:
        dates = pd.to_datetime(distinct, format=text_format, utc=True, errors="coerce")
    except ValueError as error:
        raise InputError(f"--time-format {text_format!r}: {error}.") from error
    wrong = np.asarray(dates.isna())[codes]
    _raise_first(wrong, cells, where, f"does not have the form {text_format!r} (--time-format)")
    naive = np.asarray(dates.tz_localize(None))
    # Pandas takes nanoseconds where a fraction has more than six digits.
    precision = "ns" if naive.dtype == np.dtype("datetime64[ns]") else "us"
    ticks = naive.astype(f"datetime64[{precision}]").astype(np.int64)
    values: NDArray[np.int64] = ticks[codes]
    warnings = () if "%z" in text_format or "%Z" in text_format else (_READ_AS_UTC,)
    return _of_counts(values, PER_SECOND[precision], "date", warnings)


def _unit_and_advice(
    whole: NDArray[np.int64], is_whole: NDArray[np.bool_], unit: TimeUnit, where: Where
) -> tuple[str, tuple[str, ...]]:
    """The unit of times of which some have a fraction, and what to tell; `whole` is rounded down.

    Raises `InputError` where most of them are dates, and as `_unit_of` does.
    """
    if unit != "auto":
        return unit, ()
    _, advice = digit_dates(whole, where, is_whole)
    return _unit_of(whole, where), advice


def _unit_of(values: NDArray[np.int64], where: Where) -> str:
    """The unit of times by their size; `InputError` if they seem to have two."""
    if not len(values):
        return "s"
    # One less than the size of a negative number, which for the least int64 has no positive.
    sizes = np.maximum(values, -(values + 1))
    least, most = int(np.argmin(sizes)), int(np.argmax(sizes))
    names = [unit_of_size(int(sizes[row])) for row in (least, most)]
    if names[0] != names[1]:
        raise InputError(
            f"{where(least)}: {values[least]} is a time in {names[0]} by its size, but "
            f"{values[most]} ({where(most)}) is one in {names[1]}. Correct the wrong ones, or give "
            "the unit of all with --time-unit s, ms, us or ns."
        )
    return names[1]


def _unit_warnings(named: str, asked: str) -> tuple[str, ...]:
    if asked != "auto" or named == "s":
        return ()
    full = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[named]
    return (f"by their size, times are {full}; they are stored as seconds.",)


def _lossy(suspect: NDArray[np.bool_], where: Where) -> tuple[str, ...]:
    if not suspect.any():
        return ()
    return (
        f"{int(suspect.sum()):,} times, the first at {where(int(np.argmax(suspect)))}, are written "
        "as floats but too large for a float to hold exactly; they may have been rounded before.",
    )


def _dense_ranks(whole: NDArray[np.int64], fraction: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [N]: the ranks of (whole, fraction) from 0, equal ones alike."""
    order = np.lexsort((fraction, whole))
    differs = np.diff(whole[order]) != 0
    differs |= np.diff(fraction[order]) != 0
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(differs)))
    return ranks


def _raise_first(
    wrong: NDArray[np.bool_], cells: pa.ChunkedArray, where: Where, fault: str
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{where(row)}: {cells[row].as_py()!r:.60} {fault}.")


def _integers(values: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64, copy=False)


def _flags(values: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values).astype(np.bool_, copy=False)
