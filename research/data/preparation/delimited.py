"""Reads delimited text into columns; the readers of CSV, MovieLens and atomic files use it.

Arrow parses the text. As it accepts quotes that others would not, and then takes several lines for
one, every block of text is checked while Arrow reads it: see `QuoteCheck`. Only after a fault does
a slow pass over the lines look for the bad one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, final

from research.data.preparation.compression import open_bytes
from research.data.preparation.quotes import (
    UNCLOSED,
    QuoteCheck,
    QuoteFault,
    UnclosedQuote,
    split_fields,
)
from research.data.preparation.tables import RawTable
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["id", "number", "time", "text"]
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]{1,18}[ \t]*")
_NUMBER = re.compile(r"[ \t]*[+-]?[0-9]+(\.[0-9]*)?[ \t]*")
# A field in quotes that is longer than this, in characters, is taken for one that never ends.
_LONGEST_RECORD = 1 << 22


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """The form of a delimited file's lines."""

    columns: tuple[str, ...]
    """Names of all columns, in the order of the file."""
    kinds: Mapping[str, Kind]
    """The kind of value in each column that is wanted, by the column's name."""
    delimiter: str
    """What separates fields: one character, or `::`."""
    header_line: int = 0
    """Number of the line that names the columns, from 1; 0: there is none."""
    quoted: bool = False
    """Whether a field may be enclosed in double quotes."""
    newlines: bool = False
    """Whether a field in quotes may run over several lines."""


def read_delimited(path: Path, layout: Layout) -> RawTable:
    """The wanted columns of a delimited file, as Arrow's text, or as numbers where all are.

    The file may be compressed (see `open_bytes`). No line is dropped, merged or cut: raises
    `InputError`, which names the line, where a line has too few or too many fields, text follows a
    closing quote, or a quote is not closed on its line and `layout.newlines` is False.
    """
    import pyarrow as pa

    first = next((fields for _, fields in text_fields(path, layout)), None)
    if first is None:
        raise InputError(f"{path}: holds no interactions.")
    typed = {
        name: _type_of(kind, first[layout.columns.index(name)])
        for name, kind in layout.kinds.items()
        if layout.columns.index(name) < len(first)
    }
    text = {name: _type_of(kind, None) for name, kind in layout.kinds.items()}
    failure = "it could not be parsed"
    # Numbers are read at once where the first line has one; one that is none costs a second pass.
    for types in (typed, text) if typed != text else (text,):
        if len(types) < len(text):
            continue
        try:
            table, rows = _parse(path, layout, types)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            failure = str(error)
        except QuoteFault as fault:
            raise InputError(f"{path}, {fault}") from fault
        else:
            if rows is None:
                rows = sum(1 for _ in text_fields(path, layout))
            if rows != table.num_rows:
                raise InputError(
                    f"{path}: {table.num_rows:,} events were read from {rows:,} lines that are not "
                    "blank; the file is not read, so that none is lost. Is it delimited text?"
                )
            return RawTable(table=table, where=lambda row: _line_of(path, layout, row))
    find_bad_line(path, layout)
    raise InputError(f"{path}: {failure}")


def _type_of(kind: Kind, cell: str | None) -> pa.DataType:
    import pyarrow as pa

    if kind == "id":
        return pa.dictionary(pa.int32(), pa.string())
    # A float cannot hold every large time, nor every decimal, exactly.
    if cell is not None and kind == "time" and _INTEGER.fullmatch(cell):
        return pa.int64()
    if cell is not None and kind == "number" and _NUMBER.fullmatch(cell):
        return pa.float64()
    return pa.string()


def _parse(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType]
) -> tuple[pa.Table, int | None]:
    """The table, and the number of rows that it must have; None if that is not known yet."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    single = len(layout.delimiter) == 1
    with open_bytes(path) as file:
        check = QuoteCheck(
            file,
            delimiter=layout.delimiter,
            quoted=layout.quoted,
            newlines=layout.newlines,
            replacement=None if single else "\t",
        )
        table = arrow_csv.read_csv(
            pa.PythonFile(check, mode="r"),
            arrow_csv.ReadOptions(column_names=list(layout.columns), skip_rows=layout.header_line),
            arrow_csv.ParseOptions(
                delimiter=layout.delimiter if single else "\t",
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.newlines,
            ),
            arrow_csv.ConvertOptions(
                include_columns=list(layout.kinds), column_types=dict(types), null_values=[]
            ),
        )
    if layout.newlines:
        # A line end within quotes ends no row; where quotes are regular, Arrow takes it so too.
        return table, None if check.irregular else table.num_rows
    blank_in_head = max(layout.header_line - 1, 0)
    return table, check.lines - check.blank_lines - layout.header_line + blank_in_head


def find_bad_line(path: Path, layout: Layout) -> None:
    """Raise `InputError` for the first line that does not fit the layout; slow."""
    for number, fields in text_fields(path, layout):
        if len(fields) != len(layout.columns):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields; expected {len(layout.columns)} "
                f"({layout.delimiter.join(layout.columns)})."
            )
        for name in layout.kinds:
            field = fields[layout.columns.index(name)]
            try:
                field.encode()
            except UnicodeEncodeError as error:
                shown = field.encode(errors="surrogateescape").decode(errors="backslashreplace")
                raise InputError(
                    f"{path}, line {number}, column {name!r}: '{shown:.60}' is not utf-8 text "
                    "(utf-8 was tried). Convert the file to utf-8."
                ) from error


def _line_of(path: Path, layout: Layout, row: int) -> str:
    """The file, and the number of the line with a row (from 0) of the table; slow."""
    for position, (number, _) in enumerate(text_fields(path, layout)):
        if position == row:
            return f"{path}, line {number}"
    return str(path)


def first_line(
    path: Path, delimiter: str, *, quoted: bool, newlines: bool = False
) -> tuple[int, list[str]]:
    """The number and fields of the first line that is not blank; `InputError` if every line is."""
    layout = Layout(columns=(), kinds={}, delimiter=delimiter, quoted=quoted, newlines=newlines)
    for number, fields in text_fields(path, layout):
        if any("\0" in field for field in fields):
            raise InputError(f"{path}: not utf-8 text (utf-8 was tried; it holds null bytes).")
        return number, fields
    raise InputError(f"{path}: every line is blank.")


def text_fields(
    path: Path, layout: Layout, encoding: str = "utf-8", *, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The number (from 1) and the fields of each line after the header that is not blank.

    A row whose fields run over several lines has the number of the first. Bytes that are not in the
    encoding become halves of surrogate pairs; with `strict` they raise `InputError`, as quotes do
    that break the rules of `quotes.py`.
    """
    errors = "strict" if strict else "surrogateescape"
    with open_bytes(path) as binary:
        file = io.TextIOWrapper(binary, encoding, errors=errors, newline="")
        record, begins_at = "", 0
        try:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix("\ufeff") if number == 1 else line
                if number <= layout.header_line or (not record and not text.strip("\r\n")):
                    continue
                begins_at = begins_at if record else number
                is_inside = bool(record) and '"' not in text
                record += text
                if is_inside and len(record) < _LONGEST_RECORD:
                    continue
                content = record.removesuffix("\n").removesuffix("\r")
                try:
                    fields = split_fields(content, layout.delimiter, quoted=layout.quoted)
                except UnclosedQuote as fault:
                    if layout.newlines and len(record) < _LONGEST_RECORD:
                        continue
                    raise InputError(f"{path}, line {begins_at}: {UNCLOSED}") from fault
                except QuoteFault as fault:
                    raise InputError(f"{path}, line {begins_at}, {fault}") from fault
                record = ""
                yield begins_at, fields
        except UnicodeDecodeError as error:
            raise_wrong_encoding(path, encoding, error)
        if record:
            raise InputError(
                f"{path}, line {begins_at}: a quote opens a field that never ends. If quotes in "
                "this file are plain text, say --quotes False."
            )


def rows_of_width(
    path: Path,
    delimiter: str,
    width: int,
    *,
    encoding: str = "utf-8",
    header: bool = False,
    quoted: bool = False,
) -> Iterator[list[str]]:
    """The fields of each line that is not blank, after the header if there is one.

    Raises `InputError` for a line that has not `width` fields, and for other encodings and quotes.
    """
    header_line = first_line(path, delimiter, quoted=quoted)[0] if header else 0
    layout = Layout(
        columns=(), kinds={}, delimiter=delimiter, header_line=header_line, quoted=quoted
    )
    for number, fields in text_fields(path, layout, encoding, strict=True):
        if len(fields) != width:
            raise InputError(f"{path}, line {number}: {len(fields)} fields; expected {width}.")
        yield fields


def raise_wrong_encoding(
    path: Path, encoding: str, error: UnicodeDecodeError, line: int | None = None
) -> NoReturn:
    """Raise the `InputError` for text, or its line `line`, that is not in the encoding tried."""
    place = f"{path}" if line is None else f"{path}, line {line}"
    raise InputError(
        f"{place}: not {encoding} text ({encoding} was tried; {error.reason} at byte "
        f"{error.start}). Convert the file to {encoding}."
    ) from error


def decade(year: str) -> list[str]:
    """`["decade:1990s"]` for a year between 1800 and 2099, otherwise nothing."""
    return [f"decade:{year[:3]}0s"] if re.fullmatch(r"(18|19|20)[0-9]{2}", year) else []
