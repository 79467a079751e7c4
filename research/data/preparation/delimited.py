"""Reads delimited text into columns; the readers of CSV, MovieLens and atomic files use it.

Arrow parses the text. As it accepts quotes that others would not, and then takes several lines for
one, every block of text is checked while Arrow reads it: see `QuoteCheck`. Only after a fault does
a slow pass over the lines look for the bad one.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, final

from research.data.preparation.compression import open_bytes
from research.data.preparation.quotes import (
    LONGEST_LINE,
    TOO_LONG,
    UNCLOSED,
    QuoteCheck,
    QuoteFault,
    split_part,
)
from research.data.preparation.raw_tables import RawTable
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["id", "number", "time", "text"]
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]{1,18}[ \t]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_NUMBER = re.compile(r"[ \t]*[+-]?[0-9]+(\.[0-9]*)?[ \t]*")
# A row of several lines that is longer than this, in characters, has a quote that never ends.
_LONGEST_ROW = 1 << 22
# Bytes that Arrow parses at a time. No row may be longer than a block, so that a file with a longer
# one is read again in blocks that hold any two lines.
_BLOCK = 1 << 22
_LARGE_BLOCK = 2 * LONGEST_LINE
# Stands for a delimiter of two characters while Arrow, which knows none, parses.
_REPLACEMENT = "\x1f"


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
    """Number of the last line of the header, from 1; 0: there is none."""
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

    if layout.header_line:
        require_text(path, layout.header_line, layout.kinds)
    first = next((fields for _, fields in text_fields(path, layout)), None)
    if first is None:
        raise InputError(f"{path}: holds no interactions.")
    typed = {
        name: _type_of(kind, first[layout.columns.index(name)])
        for name, kind in layout.kinds.items()
        if layout.columns.index(name) < len(first)
    }
    text = {name: _type_of(kind, None) for name, kind in layout.kinds.items()}
    table = None
    # Numbers are read at once where the first line has one. One that is none, or that text would
    # not have been read as, costs a second pass.
    if typed != text and len(typed) == len(text):
        with contextlib.suppress(pa.ArrowInvalid, QuoteFault):
            table = _parse(path, layout, typed, _BLOCK)
    if table is None:
        try:
            table = _parse(path, layout, text, _BLOCK)
        except (pa.ArrowInvalid, QuoteFault):
            find_bad_line(path, layout)
    if table is None:
        try:
            table = _parse(path, layout, text, _LARGE_BLOCK)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: {error}") from error
        except QuoteFault as fault:
            raise InputError(f"{path}, {fault}") from fault
    assert table is not None
    return RawTable(table=table, where=lambda row: _line_of(path, layout, row))


def _type_of(kind: Kind, cell: str | None) -> pa.DataType:
    import pyarrow as pa

    # A float cannot hold every large time, nor every decimal, exactly.
    if cell is not None and kind == "time" and _INTEGER.fullmatch(cell):
        return pa.int64()
    if cell is not None and kind == "number" and _NUMBER.fullmatch(cell):
        return pa.float64()
    return pa.string()


def _parse(
    path: Path, layout: Layout, types: Mapping[str, pa.DataType], block_size: int
) -> pa.Table | None:
    """The wanted columns; None if a number may have been read as one that its text is not."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    single = len(layout.delimiter) == 1
    # Names of columns that are not wanted may be any text, and repeat.
    numbers = {name: str(layout.columns.index(name)) for name in layout.kinds}
    with open_bytes(path) as file:
        check = QuoteCheck(
            file,
            delimiter=layout.delimiter,
            quoted=layout.quoted,
            newlines=layout.newlines,
            replacement=None if single else _REPLACEMENT,
        )
        table = arrow_csv.read_csv(
            pa.PythonFile(check, mode="r"),
            arrow_csv.ReadOptions(
                column_names=[str(number) for number in range(len(layout.columns))],
                skip_rows=layout.header_line,
                block_size=block_size,
            ),
            arrow_csv.ParseOptions(
                delimiter=layout.delimiter if single else _REPLACEMENT,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.newlines,
            ),
            arrow_csv.ConvertOptions(
                include_columns=list(numbers.values()),
                column_types={numbers[name]: kind for name, kind in types.items()},
                null_values=[],
            ),
        ).rename_columns(list(numbers))
    for name, kind in types.items():
        if pa.types.is_integer(kind) and check.has_hexadecimal:
            return None
        if pa.types.is_floating(kind) and pc.any(pc.is_nan(table.column(name))).as_py():
            return None
    if not layout.newlines:
        blank_in_head = max(layout.header_line - 1, 0)
        rows = check.lines - check.blank_lines - layout.header_line + blank_in_head
    elif check.irregular:
        rows = sum(1 for _ in text_fields(path, layout))
    else:
        # A line end within quotes ends no row; where quotes are regular, Arrow takes it so too.
        rows = table.num_rows
    if rows != table.num_rows or not check.ended:
        raise InputError(
            f"{path}: {table.num_rows:,} events were read from {rows:,} lines that are not "
            "blank; the file is not read, so that none is lost. Is it delimited text?"
        )
    # One dictionary of all ids; Arrow's own way makes one a block and then has to join them.
    for name in (name for name, kind in layout.kinds.items() if kind == "id"):
        ids = table.column(name).dictionary_encode().combine_chunks()
        table = table.set_column(table.column_names.index(name), name, ids)
    return table


def require_text(path: Path, line: int, names: Iterable[str]) -> None:
    """Raise `InputError` if a name of a column, from the header in a line, is not utf-8 text."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}, line {line}: the name of a column, '{_shown(name):.60}', is not utf-8 "
                "text (utf-8 was tried). Convert the file to utf-8."
            ) from error


def _shown(text: str) -> str:
    """The text with bytes that are not utf-8 written as `\\xff`."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


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
                raise InputError(
                    f"{path}, line {number}, column {name!r}: '{_shown(field):.60}' is not utf-8 "
                    "text (utf-8 was tried). Convert the file to utf-8."
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
    """The number and fields of the first line that is not blank; `InputError` if every line is.

    Where its fields run over several lines, the number is that of the last one.
    """
    layout = Layout(columns=(), kinds={}, delimiter=delimiter, quoted=quoted, newlines=newlines)
    for number, fields in text_fields(path, layout):
        if any("\0" in field for field in fields):
            raise InputError(f"{path}: not utf-8 text (utf-8 was tried; it holds null bytes).")
        return number + sum(len(_LINE_END.findall(field)) for field in fields), fields
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
        # Of a row that is not complete: its fields so far, and the parts of the one in quotes.
        fields: list[str] = []
        parts: list[str] = []
        begins_at = length = 0
        try:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
                if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
                    raise InputError(f"{path}, line {number}: {TOO_LONG}")
                text = line.removeprefix("\ufeff") if number == 1 else line
                content = text.removesuffix("\n").removesuffix("\r")
                if number <= layout.header_line or not (parts or content):
                    continue
                if not layout.quoted:
                    yield number, content.split(layout.delimiter)
                    continue
                begins_at = begins_at if parts else number
                try:
                    more, is_open = split_part(content, layout.delimiter, within_quotes=bool(parts))
                except QuoteFault as fault:
                    raise InputError(f"{path}, line {begins_at}, {fault}") from fault
                if parts and (len(more) > 1 or not is_open):
                    fields.append("".join(parts) + more[0])
                    more, parts = more[1:], []
                if not is_open:
                    yield begins_at, fields + more
                    fields, length = [], 0
                    continue
                if not layout.newlines:
                    raise InputError(f"{path}, line {begins_at}: {UNCLOSED}")
                length += len(line)
                if length > _LONGEST_ROW:
                    raise InputError(f"{path}, line {begins_at}: {_NEVER_ENDS}")
                fields += more[:-1]
                parts += [more[-1], text[len(content) :]]
        except UnicodeDecodeError as error:
            raise_wrong_encoding(path, encoding, error)
        if parts:
            raise InputError(f"{path}, line {begins_at}: {_NEVER_ENDS}")


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


_NEVER_ENDS = (
    f"a quote opens a field that never ends, or that makes a row of more than {_LONGEST_ROW:,} "
    "characters. If quotes in this file are plain text, say --quotes False."
)


def raise_wrong_encoding(
    path: Path, encoding: str, error: UnicodeDecodeError, line: int | None = None
) -> NoReturn:
    """Raise the `InputError` for text, or its line `line`, that is not in the encoding tried."""
    place = f"{path}" if line is None else f"{path}, line {line}"
    raise InputError(
        f"{place}: not {encoding} text ({encoding} was tried; {error.reason} at byte "
        f"{error.start}). Convert the file to {encoding}."
    ) from error


def utf8_lines(path: Path, longest: int, question: str) -> Iterator[tuple[int, str]]:
    """The number (from 1) and the text of each line, up to and with its `\\n`.

    A byte-order mark at the beginning is no text. The file may be compressed (see `open_bytes`).
    `InputError` for a line that is not UTF-8, and for one of more than `longest` bytes, whose
    message ends in a `question`.
    """
    number = 0
    with open_bytes(path) as file:
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise InputError(
                    f"{path}, line {number}: more than {longest:,} bytes without a line end. "
                    f"{question}"
                )
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                raise_wrong_encoding(path, "utf-8", error, number)


def decade(year: str) -> list[str]:
    """`["decade:1990s"]` for a year between 1800 and 2099, otherwise nothing."""
    return [f"decade:{year[:3]}0s"] if re.fullmatch(r"(18|19|20)[0-9]{2}", year) else []
