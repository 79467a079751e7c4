"""The reader of CSV and the like: one file or several, with or without a header."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from research.data.preparation.compression import plain_suffix
from research.data.preparation.delimited import (
    Kind,
    Layout,
    first_line,
    read_delimited,
    text_fields,
)
from research.data.preparation.events import Events, Source
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.raw_files import find_files
from research.data.preparation.tables import (
    ColumnNames,
    RawTable,
    concatenated,
    events_of,
    require_columns,
)
from research.errors import InputError

SUFFIXES = (".csv", ".tsv", ".txt")
_DELIMITERS = (",", "\t", ";", "|")
_LINES_COMPARED = 20


def csv_source(raw: Path, config: PrepareConfig, columns: ColumnNames) -> Source:
    """The source of delimited text: a file, the files of a folder, or those of a pattern."""
    files = find_files(raw, SUFFIXES)
    name = raw.name.partition(".")[0] if len(files) == 1 else raw.resolve().name
    return Source(name=name, files=files, read=partial(_read, files, config, columns))


def _read(files: Sequence[Path], config: PrepareConfig, columns: ColumnNames) -> Events:
    tables = [read_csv(path, columns, config) for path in files]
    return events_of(concatenated(tables), columns, config)


def read_csv(path: Path, columns: ColumnNames, config: PrepareConfig) -> RawTable:
    """The wanted columns of one file; `InputError` names what is wrong in it."""
    delimiter = config.delimiter or _find_delimiter(path, columns, config)
    if delimiter in ('"', "\n", "\r") or (len(delimiter) != 1 and delimiter != "::"):
        raise InputError(f"delimiter {delimiter!r}: one character is allowed, or `::`.")
    quoted = config.quotes if config.quotes is not None else delimiter not in ("\t", "::")
    number, fields = first_line(path, delimiter, quoted=quoted)
    present = fields if config.header else [str(i) for i in range(1, len(fields) + 1)]
    require_columns(path, columns, present, has_header=config.header)
    kinds: dict[str, Kind] = {columns.user: "id", columns.item: "id"}
    if columns.timestamp is not None:
        kinds[columns.timestamp] = "time"
    if columns.rating is not None:
        kinds[columns.rating] = "number"
    layout = Layout(
        columns=tuple(present),
        kinds=kinds,
        delimiter=delimiter,
        header_line=number if config.header else 0,
        quoted=quoted,
        newlines=config.quoted_newlines,
    )
    return read_delimited(path, layout)


def _find_delimiter(path: Path, columns: ColumnNames, config: PrepareConfig) -> str:
    """The delimiter of a file by its header, or where it has none by its first lines."""
    if plain_suffix(path) == ".tsv":
        return "\t"
    fitting = [delimiter for delimiter in _DELIMITERS if _fits(path, delimiter, columns, config)]
    # A file that none fits is read with commas, so that the error tells what is in its header.
    return fitting[0] if fitting else ","


def _fits(path: Path, delimiter: str, columns: ColumnNames, config: PrepareConfig) -> bool:
    quoted = config.quotes if config.quotes is not None else delimiter != "\t"
    layout = Layout(columns=(), kinds={}, delimiter=delimiter, quoted=quoted, newlines=True)
    try:
        lines = [fields for _, fields in islice(text_fields(path, layout), _LINES_COMPARED)]
    except InputError:
        return False
    if config.header:
        return bool(lines) and set(columns.names) <= set(lines[0])
    counts = {len(fields) for fields in lines}
    return len(counts) == 1 and counts.pop() > 1
