"""Slow readers of delimited text and of times, written from the rules alone, for the tests.

They go over text character by character and over times by exact fractions, and share no code with
the readers that they are compared with.
"""

from __future__ import annotations

import calendar
import math
from collections.abc import Sequence
from fractions import Fraction


class Fault(Exception):
    """The text breaks a rule."""

    def __init__(self, line: int | None) -> None:
        """`line` is where the row begins that breaks it; None: it is a rule of the whole file."""
        super().__init__(line)
        self.line = line


def rows_of(
    text: str, delimiter: str, *, quoted: bool, newlines: bool
) -> list[tuple[int, list[str]]]:
    """The line on which each row begins, and its fields; raises `Fault` for the first wrong row.

    Lines without a character are left out. The last row of the list has no fields and the line -n
    where a fault is on line n, so that a caller sees what comes before it.
    """
    rows: list[tuple[int, list[str]]] = []
    place, line = 0, 1
    while place < len(text):
        begins_at, is_blank = line, True
        fields = [""]
        # Of a field: "start", "plain", "quoted", or "closed" by a quote.
        state = "start"
        while True:
            letter = text[place : place + 1]
            end = "\r\n" if text.startswith("\r\n", place) else letter if letter in "\r\n" else None
            if state == "quoted" and letter:
                if end is not None and not newlines:
                    return [*rows, (-begins_at, [])]
                if letter == '"' and text[place + 1 : place + 2] == '"':
                    fields[-1] += '"'
                    place += 2
                elif letter == '"':
                    state = "closed"
                    place += 1
                else:
                    fields[-1] += end or letter
                    place += len(end or letter)
                    line += end is not None
            elif end is not None or not letter:
                if state == "quoted":
                    return [*rows, (-begins_at, [])]
                place += len(end or "")
                line += 1
                break
            elif text.startswith(delimiter, place):
                is_blank = False
                fields.append("")
                state = "start"
                place += len(delimiter)
            elif state == "closed":
                return [*rows, (-begins_at, [])]
            elif quoted and state == "start" and letter == '"':
                is_blank = False
                state = "quoted"
                place += 1
            else:
                is_blank = False
                fields[-1] += letter
                state = "plain"
                place += 1
        if not is_blank:
            rows.append((begins_at, fields))
    return rows


def table_of(
    data: bytes,
    names: Sequence[str],
    delimiter: str,
    *,
    header: bool,
    quoted: bool,
    newlines: bool,
) -> list[tuple[str, ...]]:
    """The cells of the columns `names` in each row; raises `Fault`.

    Without a header, columns are named by their numbers from 1.
    """
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    rows = rows_of(text, delimiter, quoted=quoted, newlines=newlines)
    if not rows:
        raise Fault(None)
    if rows[0][0] < 0:
        raise Fault(-rows[0][0])
    first = rows[0][1]
    present = first if header else [str(number + 1) for number in range(len(first))]
    if any("\0" in field for field in first) or any(present.count(name) != 1 for name in names):
        raise Fault(None)
    columns = [present.index(name) for name in names]
    table = []
    for line, fields in rows[1:] if header else rows:
        if line < 0 or len(fields) != len(first):
            raise Fault(abs(line))
        cells = tuple(fields[column] for column in columns)
        if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
            raise Fault(line)
        table.append(cells)
    if not table:
        raise Fault(None)
    return table


PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def unit_of(values: Sequence[Fraction]) -> str | None:
    """s, ms, us, ns or date for numbers by their size; None if they have two units.

    Dates make two units with other numbers where they are half of the numbers or more.
    """
    for digits in (8, 10, 12, 14):
        are_dates = [is_date(value, digits) for value in values]
        if all(are_dates):
            return "date"
        if 2 * sum(are_dates) >= len(are_dates):
            return None
    units = set()
    for value in values:
        size = abs(math.floor(value)) - (value < 0)
        units.add(
            "s" if size < 10**11 else "ms" if size < 10**14 else "us" if size < 10**17 else "ns"
        )
    return units.pop() if len(units) == 1 else None


def is_date(value: Fraction, digits: int) -> bool:
    """Whether a number is a date, of so many digits, in the years 1900 to 2100."""
    text = str(value)
    if value.denominator != 1 or len(text) != digits or not text.isdecimal():
        return False
    return 1900 <= int(text[:4]) <= 2100 and seconds_of_digits(text) is not None


def seconds_of_digits(text: str) -> int | None:
    """Seconds of YYYYMMDD, with hh, hhmm or hhmmss behind it; None if that is no date."""
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    clock = text[8:].ljust(6, "0")
    hour, minute, second = int(clock[:2]), int(clock[2:4]), int(clock[4:])
    if not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    return calendar.timegm((year, month, day, hour, minute, 0)) + second
