"""The reader of CSV and the like: one file or several, with or without a header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from research.data.preparation.compression import corpus_name, plain_suffix
from research.data.preparation.delimited import (
    Kind,
    Layout,
    first_line,
    read_delimited,
    text_fields,
)
from research.data.preparation.events import Events, Source
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import find_files
from research.data.preparation.raw_tables import (
    ColumnNames,
    ItemColumns,
    RawTable,
    concatenated,
    require_columns,
)
from research.data.preparation.tables import events_of
from research.errors import InputError

SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = (",", "\t", ";", "|")
_LINES_COMPARED = 20


def csv_source(raw: Path, config: PrepareConfig, columns: ColumnNames) -> Source:
    """The source of delimited text: a file, the files of a folder, or those of a pattern."""
    found = find_files(raw, SUFFIXES)
    return Source(
        name=corpus_name(raw, SUFFIXES),
        files=found.paths,
        read=partial(_read, found.paths, config, columns),
        warnings=found.warnings + found.order_warnings(columns.timestamp),
    )


def _read(files: Sequence[Path], config: PrepareConfig, columns: ColumnNames) -> Events:
    tables = [read_csv(path, columns, config) for path in files]
    return events_of(concatenated(tables, config.list_separator), columns, config)


def read_csv(path: Path, columns: ColumnNames | ItemColumns, config: PrepareConfig) -> RawTable:
    """The wanted columns of one file; `InputError` names what is wrong in it."""
    delimiter = config.delimiter
    if delimiter is None:
        delimiter = _find_delimiter(path, columns, config)
    # As a shell hands it over in single quotes.
    delimiter = "\t" if delimiter == "\\t" else delimiter
    is_character = len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\n\r\0'
    if not is_character and delimiter != "::":
        raise InputError(
            f"delimiter {delimiter!r}: one ASCII character but a double quote is allowed, or `::`."
        )
    quoted = config.quotes if config.quotes is not None else delimiter not in ("\t", "::")
    if quoted and not is_character:
        raise InputError("--quotes True: no quotes are read where `::` separates columns.")
    if config.quoted_newlines and not quoted:
        raise InputError(
            f"--quoted-newlines True: where {delimiter!r} separates columns, quotes are plain text "
            "unless --quotes True is given."
        )
    number, fields = first_line(path, delimiter, quoted=quoted, newlines=config.quoted_newlines)
    present = fields if config.header else [str(i) for i in range(1, len(fields) + 1)]
    require_columns(path, columns, present, has_header=config.header, delimiter=delimiter)
    kinds: dict[str, Kind] = dict.fromkeys(columns.names, "id")
    # Of what is a number its text is needed where words for nothing look like numbers, and where
    # dates of a given form may begin with a zero.
    as_text = any(_is_number(word) for word in config.missing_words)
    if isinstance(columns, ColumnNames) and columns.timestamp is not None:
        kinds[columns.timestamp] = "text" if as_text or config.time_format else "time"
    if isinstance(columns, ColumnNames) and columns.rating is not None:
        kinds[columns.rating] = "text" if as_text else "number"
    layout = Layout(
        columns=tuple(present),
        kinds=kinds,
        delimiter=delimiter,
        header_line=number if config.header else 0,
        quoted=quoted,
        newlines=config.quoted_newlines,
    )
    return read_delimited(path, layout)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _find_delimiter(path: Path, columns: ColumnNames | ItemColumns, config: PrepareConfig) -> str:
    """The delimiter of a file by its header, or where it has none by its first lines.

    Raises `InputError` where no header tells which of several it is.
    """
    if plain_suffix(path) == ".tsv":
        return "\t"
    for num_lines in (_LINES_COMPARED, 1):
        fitting = [
            delimiter
            for delimiter in DELIMITERS
            if _fits(path, delimiter, columns, config, num_lines)
        ]
        if len(fitting) > 1:
            raise InputError(
                f"{path}: {' and '.join(map(repr, fitting))} can both separate columns. Say which "
                "with --delimiter."
            )
        if fitting:
            return fitting[0]
    # Read with the one that gives the most columns, so that the error tells what is in its header.
    return max(DELIMITERS, key=partial(_columns_in_header, path, config))


def _columns_in_header(path: Path, config: PrepareConfig, delimiter: str) -> int:
    """How many columns the first line has, read with a delimiter; 0 if it cannot be read."""
    quoted = config.quotes if config.quotes is not None else delimiter != "\t"
    try:
        return len(first_line(path, delimiter, quoted=quoted, newlines=config.quoted_newlines)[1])
    except InputError:
        return 0


def _fits(
    path: Path,
    delimiter: str,
    columns: ColumnNames | ItemColumns,
    config: PrepareConfig,
    num_lines: int,
) -> bool:
    """Whether the first lines, read with the delimiter, have the columns that are wanted."""
    quoted = config.quotes if config.quotes is not None else delimiter != "\t"
    layout = Layout(columns=(), kinds={}, delimiter=delimiter, quoted=quoted, newlines=True)
    try:
        lines = [fields for _, fields in islice(text_fields(path, layout), num_lines)]
    except InputError:
        return False
    if not lines:
        return False
    if config.header:
        return set(columns.names) <= set(lines[0])
    numbers = {str(number + 1) for number in range(len(lines[0]))}
    return set(columns.names) <= numbers and len({len(fields) for fields in lines}) == 1
