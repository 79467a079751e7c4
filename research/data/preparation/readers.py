"""Readers of general formats: S3-Rec text, pairs, CSV and Parquet.

Each function `..._source` takes the paths that a user gave, finds the files that belong to them and
returns a `Source` for `prepare.py`; nothing is parsed before `Source.read` is called. A missing
file, or a wrong line or cell, raises an `InputError` that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NoReturn, final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.delimited import (
    Kind,
    Layout,
    Rows,
    raise_wrong_encoding,
    read_rows,
    text_fields,
)
from research.data.preparation.events import Events, Source, require_file
from research.errors import InputError
from research.storage.untrusted import parse_json

# 18 digits always fit into int64.
_MAX_DIGITS = 18


@final
@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Names of the columns of a table."""

    user: str
    """Column of raw user ids."""
    item: str
    """Column of raw item ids."""
    timestamp: str | None
    """Column of times; None: interactions are in the order of the file."""
    rating: str | None
    """Column of ratings; None: ratings are not read."""


def s3rec_source(raw: Path, attributes: Path | None) -> Source:
    """S3-Rec's text: one line per user, `user item item ...`, the oldest item first.

    The attributes are in the JSON file `attributes`; None: in `X_item2attributes.json` beside the
    file `X.txt`, if that exists.
    """
    require_file(raw)
    attribute_file = raw.with_name(f"{raw.stem}_item2attributes.json")
    if attributes is None and attribute_file.is_file():
        attributes = attribute_file
    return _with_json(raw, attributes, _read_s3rec)


def pairs_source(raw: Path, attributes: Path | None) -> Source:
    """Text with one interaction `user item` per line; the lines of users may be interleaved."""
    return _with_json(require_file(raw), attributes, _read_pairs)


def csv_source(raw: Path, columns: ColumnNames, attributes: Path | None) -> Source:
    """Text with a header and columns separated by commas, or by tabs in a `.tsv` file."""
    return _with_json(require_file(raw), attributes, partial(_read_csv, columns))


def parquet_source(raw: Path, columns: ColumnNames, attributes: Path | None) -> Source:
    """One Parquet file."""
    return _with_json(require_file(raw), attributes, partial(_read_parquet, columns))


def named_events(rows: Rows, columns: ColumnNames) -> Events:
    """The events in the given columns; raw ids are in order of first appearance."""
    users, user_names = rows.codes(columns.user)
    items, item_names = rows.codes(columns.item)
    times, rounded = rows.times(columns.timestamp) if columns.timestamp else (None, 0)
    return Events(
        users=users,
        items=items,
        user_names=user_names,
        item_names=item_names,
        timestamps=times,
        ratings=rows.numbers(columns.rating) if columns.rating else None,
        notes={"timestamps_rounded_down": rounded} if rounded else {},
    )


def first_line(path: Path, delimiter: str, *, quoted: bool) -> list[str]:
    """The fields of the first line that is not blank; `InputError` if every line is."""
    layout = Layout(columns=(), kinds={}, delimiter=delimiter, header=False, quoted=quoted)
    for _, fields in text_fields(path, layout):
        return fields
    raise InputError(f"{path}: holds no header.")


def _with_json(raw: Path, attributes: Path | None, read: Callable[[Path], Events]) -> Source:
    files = (raw,) if attributes is None else (raw, require_file(attributes))

    def read_both() -> Events:
        events = read(raw)
        if attributes is None:
            return events
        described = _attributes_from_json(attributes)
        return replace(events, attributes=described, attribute_file=attributes)

    return Source(name=raw.stem, files=files, read=read_both)


def _attributes_from_json(path: Path) -> dict[str, list[str]]:
    try:
        described = parse_json(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise_wrong_encoding(path, "utf-8", error)
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: holds no object; expected {{item: [attribute, ...], ...}}.")
    for item, attributes in described.items():
        if not isinstance(attributes, list) or not all(type(a) in (int, str) for a in attributes):
            raise InputError(
                f"{path}, item {item!r}: {attributes!r:.60}; expected a list of attribute ids."
            )
    names_by_item = {item: [str(a) for a in attributes] for item, attributes in described.items()}
    for name in {*names_by_item, *chain.from_iterable(names_by_item.values())}:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise InputError(
                f"{path}: {name!r:.60} has half of a surrogate pair; names must be valid Unicode."
            )
    return names_by_item


def _read_s3rec(path: Path) -> Events:
    values, lengths, lines = _integer_lines(path)
    short = np.flatnonzero(lengths < 2)
    if len(short):
        raise InputError(
            f"{path}, line {lines[short[0]]}: 1 field; expected a user and at least one item."
        )
    first = np.cumsum(lengths) - lengths
    users = values[first]
    order = np.argsort(users, kind="stable")
    repeated = np.flatnonzero(np.diff(users[order]) == 0)
    if len(repeated):
        before, after = order[repeated[0]], order[repeated[0] + 1]
        raise InputError(
            f"{path}, line {lines[after]}: user {users[after]} already has line "
            f"{lines[before]}; expected one line a user."
        )
    is_item = np.ones(len(values), dtype=np.bool_)
    is_item[first] = False
    return _integer_events(np.repeat(users, lengths - 1), values[is_item])


def _read_pairs(path: Path) -> Events:
    values, lengths, lines = _integer_lines(path)
    wrong = np.flatnonzero(lengths != 2)
    if len(wrong):
        hint = (
            " For times or ratings, use the csv or atomic format." if lengths[wrong[0]] > 2 else ""
        )
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: {lengths[wrong[0]]} field(s); expected 2 (user item)."
            + (hint if lengths[wrong[0]] > 2 else "")
        )
    return _integer_events(values[0::2], values[1::2])


def _integer_events(users: NDArray[np.int64], items: NDArray[np.int64]) -> Events:
    import pandas as pd

    user_codes, user_ids = pd.factorize(users, sort=True)
    item_codes, item_ids = pd.factorize(items, sort=True)
    return Events(
        users=user_codes.astype(np.int32),
        items=item_codes.astype(np.int32),
        user_names=[str(user) for user in user_ids.tolist()],
        item_names=[str(item) for item in item_ids.tolist()],
    )


def _integer_lines(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The integers of a text file, all int64: (all of them, their count per line, line numbers).

    Blank lines are left out; line numbers count from 1. Raises `InputError` for anything but
    non-negative integers.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    raw = path.read_bytes()
    data = np.frombuffer(raw, dtype=np.uint8)
    digit = (data >= ord("0")) & (data <= ord("9"))
    blank = (data == ord(" ")) | (data == ord("\t")) | (data == ord("\r")) | (data == ord("\n"))
    newlines = np.flatnonzero(data == ord("\n"))
    if not (digit | blank).all():
        _raise_not_integer(path, raw, int(np.flatnonzero(~(digit | blank))[0]))
    edges = np.diff(digit.view(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        raise InputError(f"{path}: holds no interactions.")
    longest = int((stops - starts).argmax())
    if stops[longest] - starts[longest] > _MAX_DIGITS:
        line = int(np.searchsorted(newlines, starts[longest])) + 1
        raise InputError(f"{path}, line {line}: an id of more than {_MAX_DIGITS} digits.")
    ends = np.append(np.searchsorted(starts, newlines), len(starts))
    lengths = np.diff(ends, prepend=0)
    lines = np.flatnonzero(lengths) + 1
    column = arrow_csv.read_csv(
        pa.BufferReader(raw.translate(bytes.maketrans(b" \t\r", b"\n\n\n"))),
        arrow_csv.ReadOptions(column_names=["id"]),
        convert_options=arrow_csv.ConvertOptions(column_types={"id": pa.int64()}),
    ).column("id")
    return column.to_numpy(), lengths[lines - 1], lines


def _raise_not_integer(path: Path, raw: bytes, position: int) -> NoReturn:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise_wrong_encoding(path, "utf-8", error)
    if "\0" in text:
        raise InputError(f"{path}: not utf-8 text (utf-8 was tried; it holds null bytes).")
    line = raw.count(b"\n", 0, position) + 1
    # Only these separate fields; any other kind of space belongs to the field that is wrong.
    fields = re.findall(r"[^ \t\r]+", text.split("\n")[line - 1])
    wrong_fields = [
        (i, text) for i, text in enumerate(fields, 1) if not re.fullmatch("[0-9]+", text)
    ]
    field_number, field = wrong_fields[0]
    raise InputError(
        f"{path}, line {line}, field {field_number}: {field!r:.60} is not an integer; this format "
        "allows only integers from 0 as ids. For other ids, use the csv or atomic format."
    )


def _read_csv(columns: ColumnNames, path: Path) -> Events:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    present = first_line(path, delimiter, quoted=True)
    kinds = _column_kinds(path, columns, present)
    layout = Layout(
        columns=tuple(present), kinds=kinds, delimiter=delimiter, header=True, quoted=True
    )
    return named_events(read_rows(path, layout), columns)


def _read_parquet(columns: ColumnNames, path: Path) -> Events:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            kinds = _column_kinds(path, columns, file.schema_arrow.names)
            table = file.read(columns=list(kinds))
        for place, column in enumerate(table.columns):
            # A dictionary in a file may hold a name twice, hold none, or hold numbers.
            if pa.types.is_dictionary(column.type):
                plain = column.cast(column.type.value_type)
                table = table.set_column(place, table.field(place).name, plain)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error!s:.300}).") from error
    return named_events(Rows(path, table, None), columns)


def _column_kinds(path: Path, columns: ColumnNames, present: Sequence[str]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {columns.user: "text", columns.item: "text"}
    if columns.timestamp is not None:
        kinds[columns.timestamp] = "time"
    if columns.rating is not None:
        kinds[columns.rating] = "number"
    for name in kinds:
        if list(present).count(name) != 1:
            raise InputError(
                f"{path}: column {name!r} occurs {list(present).count(name)} times; the columns "
                f"are {', '.join(present)}. Name yours with --user-column, --item-column, "
                "--timestamp-column (None: file order) and --rating-column."
            )
    return kinds
