"""The reader of JSON lines: one object a line, written as JSON or as Python's `repr` writes it.

Arrow parses plain JSON. Only where it cannot, or where lines are not one object each, a slow pass
parses line by line with Python's own parser, which names the line and the field that is wrong.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, final

from research.annotations import did_you_mean
from research.data.preparation.compression import corpus_name, open_bytes, plain_suffix
from research.data.preparation.delimited import utf8_lines
from research.data.preparation.events import Events, Source
from research.data.preparation.json_columns import FieldKind, JsonColumn, Number, WrongValue
from research.data.preparation.options import PrepareConfig
from research.data.preparation.python_literals import json_of_literal
from research.data.preparation.raw_files import find_files
from research.data.preparation.raw_tables import ColumnNames, RawTable, concatenated
from research.data.preparation.tables import events_of
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jsonl", ".json", ".ndjson")
# In bytes; a longer line is taken for a file that is no JSON lines.
_LONGEST_LINE = 1 << 24
_LINES_COMPARED = 100
_ROWS_AT_ONCE = 1 << 16
_BLOCK = 1 << 20
_ID_OPTIONS = "--user-column, --item-column, --timestamp-column and so on"

Parse = Callable[[str], dict[str, object]]


def json_lines_source(raw: Path, config: PrepareConfig, columns: ColumnNames) -> Source:
    """The source of JSON lines: a file, the files of a folder, or those of a pattern."""
    found = find_files(raw, SUFFIXES)
    return Source(
        name=corpus_name(raw, SUFFIXES),
        files=found.paths,
        read=partial(_read, found.paths, config, columns),
        warnings=found.warnings + found.order_warnings(columns.timestamp),
    )


def _read(files: Sequence[Path], config: PrepareConfig, columns: ColumnNames) -> Events:
    fields: dict[str, FieldKind] = {**columns.kinds}
    fields |= dict.fromkeys(columns.about_items, "any")
    tables = [read_json_lines(path, fields) for path in files]
    require_any_value(files, tables, columns.about_items)
    return events_of(concatenated(tables, config.list_separator), columns, config)


def read_json_lines(
    path: Path, fields: Mapping[str, FieldKind], *, id_options: str = _ID_OPTIONS
) -> RawTable:
    """The wanted fields of each line, in the order of the file; no line is dropped or merged.

    A field in an object in the line has a dotted name, such as `user.id`. A missing field and null
    are null. Whole numbers are int64, or text where one does not fit; other numbers are text as
    written, those of kind "number" float64 where all are plain. A field of kind "any" may hold
    lists, which become lists of text; lists in lists are flattened, and nulls left out. One of kind
    "events" may hold lists too, but none with a null or a list. The file may be compressed (see
    `open_bytes`). Raises `InputError`, which names the line and the field, for a line that is no
    object or names a wanted field twice, for a value of another type than those before it, and for
    a field that no line has, whose message says that `id_options` name it. A field of kind "any"
    or "events" may be in no line, as another file may have it: see `require_any_value`.
    """
    parse, first_objects = _parser_of(path)
    table = None
    if parse is _parse_json:
        table = _read_fast(path, fields, first_objects)
    if table is None:
        table = _read_slowly(path, fields, parse)
    for name, kind in fields.items():
        if kind not in ("any", "events") and table.column(name).null_count == table.num_rows:
            _raise_no_field(path, name, first_objects, id_options)
    return RawTable(table=table, where=lambda row: _line_of(path, row))


def require_any_value(
    files: Sequence[Path],
    tables: Sequence[RawTable],
    names: Sequence[str],
    *,
    options: str = "--attribute-columns or --title-column",
) -> None:
    """Raise `InputError` for a field that no line of any of the files has.

    `tables` are those of the files; files of other formats than JSON lines may be among them. The
    message says that `options` name the field.
    """
    of_json = [path for path in files if plain_suffix(path) in SUFFIXES]
    for name in names:
        cells = [raw.table.column(name) for raw in tables]
        if of_json and all(column.null_count == len(column) for column in cells):
            _raise_no_field(of_json[0], name, _parser_of(of_json[0])[1], options)


def _raise_no_field(
    path: Path, name: str, first_objects: Sequence[Mapping[str, object]], options: str
) -> NoReturn:
    present = _names_in(first_objects)
    raise InputError(
        f"{path}: no line has the field {name!r}; those of the first lines are "
        f"{', '.join(present)}{did_you_mean(name, present) or '.'} Name yours with {options}."
    )


def first_fields(path: Path) -> list[str]:
    """The names of the fields of the first lines; `InputError` for a line that is no object."""
    return _names_in(_parser_of(path)[1])


def _names_in(objects: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for entry in objects for key in entry))


def _parser_of(path: Path) -> tuple[Parse, list[dict[str, object]]]:
    """The parser that can read the first line that is not blank, and the first objects."""
    lines = list(islice(_lines(path), _LINES_COMPARED))
    if not lines:
        raise InputError(f"{path}: every line is blank.")
    number, text = lines[0]
    parse: Parse = _parse_json
    try:
        _parse_json(text)
    except ValueError as fault:
        try:
            _parse_literal(text)
        except ValueError:
            raise InputError(
                f"{path}, line {number}: {fault}. Expected one JSON object a line, or one "
                "dictionary as Python writes it."
            ) from fault
        parse = _parse_literal
    return parse, [_parsed(path, number, text, parse) for number, text in lines]


def _read_fast(
    path: Path, fields: Mapping[str, FieldKind], first_objects: Sequence[Mapping[str, object]]
) -> pa.Table | None:
    """The fields as Arrow parses them; None where only the slow pass can tell what is right."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    types = {name: _type_of(name, kind, first_objects) for name, kind in fields.items()}
    if None in types.values():
        return None
    # A block must hold the longest line.
    read = arrow_json.ReadOptions(block_size=_LONGEST_LINE)
    parse = arrow_json.ParseOptions(
        explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
    )
    with open_bytes(path) as file:
        lines = _ObjectLines(file)
        try:
            table = arrow_json.read_json(pa.PythonFile(lines, mode="r"), read, parse)
            # Arrow does not check the encoding.
            table.validate(full=True)
        except pa.ArrowException:
            return None
    return table if lines.are_objects and table.num_rows == lines.count else None


def _type_of(
    name: str, kind: FieldKind, first_objects: Sequence[Mapping[str, object]]
) -> pa.DataType | None:
    """The type of a field by its first value; None if there is none, or it needs the slow pass."""
    import pyarrow as pa

    first = next((entry[name] for entry in first_objects if entry.get(name) is not None), None)
    if first is None:
        return None
    if type(first) is str:
        return pa.string()
    if kind == "number" and type(first) in (int, Number):
        return pa.float64()
    return pa.int64() if type(first) is int else None


@final
class _ObjectLines:
    """A binary file that looks at its line ends while a parser reads it.

    JSON has no line ends within text, and needs a comma between two objects in one value. So where
    all lines begin and end with a brace, no value runs over a line end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last = b""
        self._ends = 0
        self._ends_between_objects = 0
        self._begins_with_brace = False
        self.closed = False

    @property
    def count(self) -> int:
        """The number of lines; known when all is read."""
        return self._ends + (not self._last.endswith(b"\n"))

    @property
    def are_objects(self) -> bool:
        """Whether every line begins and ends with a brace; known when all is read."""
        ends = self._ends - self._last.endswith(b"\n")
        ends_with_brace = self._last.rstrip(b"\r\n").endswith(b"}")
        return self._begins_with_brace and ends_with_brace and ends == self._ends_between_objects

    def close(self) -> None:
        """The file itself is closed by who opened it."""
        self.closed = True

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most about `size`; empty at the end."""
        block = self._file.read(size if size > 0 else _BLOCK)
        if not block:
            return block
        if not self._last:
            self._begins_with_brace = block.removeprefix(codecs.BOM_UTF8).startswith(b"{")
        self._ends += block.count(b"\n")
        # What is looked for may begin in the block before.
        for between in (b"}\n{", b"}\r\n{"):
            text = self._last[1 - len(between) :] + block
            self._ends_between_objects += text.count(between)
        self._last = (self._last + block)[-3:]
        return block


def _read_slowly(path: Path, fields: Mapping[str, FieldKind], parse: Parse) -> pa.Table:
    """The fields line by line; raises `InputError` for the first line that is wrong."""
    import pyarrow as pa

    columns = {name: JsonColumn(kind) for name, kind in fields.items()}
    lines = _lines(path)
    while chunk := list(islice(lines, _ROWS_AT_ONCE)):
        entries = [_parsed(path, number, text, parse) for number, text in chunk]
        for name, column in columns.items():
            values = [entry[name] if name in entry else _inner(entry, name) for entry in entries]
            try:
                column.add(values)
            except WrongValue as fault:
                number = chunk[fault.row][0]
                raise InputError(f"{path}, line {number}, field {name!r}: {fault}.") from fault
    return pa.table({name: column.cells() for name, column in columns.items()})


def _inner(entry: Mapping[str, object], name: str) -> object:
    """The value of a field in objects in the entry, by its dotted name; None if there is none."""
    value: object = entry
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _parsed(path: Path, number: int, text: str, parse: Parse) -> dict[str, object]:
    try:
        return parse(text)
    except ValueError as fault:
        raise InputError(f"{path}, line {number}: {fault}.") from fault


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r:.60} occurs twice")
    return entry


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of, parse_float=Number, parse_constant=_constant
)


def _parse_json(text: str) -> dict[str, object]:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg}, at character {error.pos + 1})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{text.strip()!r:.60} is no object")
    return value


def _parse_literal(text: str) -> dict[str, object]:
    return _parse_json(json_of_literal(text))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number (from 1) and the text of each line that is not blank."""
    lines = utf8_lines(path, _LONGEST_LINE, "Is it JSON lines, with one object a line?")
    return ((number, text) for number, text in lines if text.strip(" \t\r\n"))


def _line_of(path: Path, row: int) -> str:
    """The file, and the number of the line with a row (from 0) of the table; slow."""
    number = next((number for number, _ in islice(_lines(path), row, None)), None)
    return str(path) if number is None else f"{path}, line {number}"
