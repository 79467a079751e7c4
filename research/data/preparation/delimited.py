"""Reads delimited text into columns; the readers of CSV, MovieLens and atomic files use it.

Arrow parses the file. Only where that fails does a slow pass over the lines look for the first bad
one, so that the `InputError` names its line and field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["text", "integer", "number", "time"]
_INT64 = np.iinfo(np.int64)
_INTEGER = re.compile(r"[+-]?[0-9]+")


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
    header: bool
    """Whether the first line names the columns."""
    quoted: bool = False
    """Whether a field may be enclosed in double quotes."""


@final
class Rows:
    """The wanted columns of a file.

    Each method returns a column and raises `InputError` if it has an empty cell or a wrong value.
    """

    def __init__(self, path: Path, table: pa.Table, layout: Layout | None) -> None:
        self._path = path
        self._table = table
        self._layout = layout
        if table.num_rows == 0:
            raise InputError(f"{path}: holds no interactions.")

    def codes(self, column: str) -> tuple[NDArray[np.int32], list[str]]:
        """The position of each cell in the names (int32 [N]), and the names.

        Names are in order of first appearance. Integers become text.
        """
        import pandas as pd
        import pyarrow as pa

        values = self._complete_column(column)
        if pa.types.is_integer(values.type):
            codes, values_found = pd.factorize(_to_numpy(values))
            return codes.astype(np.int32), [str(value) for value in values_found.tolist()]
        if not pa.types.is_dictionary(values.type):
            if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
                raise InputError(
                    f"{self._path}: column {column!r} holds {values.type}; ids must be integers "
                    "or text."
                )
            values = values.dictionary_encode()
        combined = values.unify_dictionaries().combine_chunks()
        try:
            names: list[str] = combined.dictionary.to_pylist()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._path}: column {column!r} holds no utf-8 ({error})."
            ) from error
        positions = combined.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        if "" in names:
            self._raise_if(column, positions == names.index(""), "is empty")
        return positions, names

    def numbers(self, column: str) -> NDArray[np.float64]:
        """float64 [N]: the column as finite numbers."""
        import pyarrow as pa

        values = self._complete_column(column)
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            raise InputError(f"{self._path}: column {column!r} holds {values.type}, no numbers.")
        numbers = _to_numpy(values).astype(np.float64)
        self._raise_if(column, ~np.isfinite(numbers), "is not finite")
        return numbers

    def times(self, column: str) -> tuple[NDArray[np.int64], int]:
        """Times in the unit of the column (int64 [N]), and how many of them were rounded down."""
        import pyarrow as pa

        values = self._complete_column(column)
        if pa.types.is_temporal(values.type):
            width = pa.int32() if values.type.bit_width == 32 else pa.int64()
            values = values.cast(width)
        raw = _to_numpy(values)
        if raw.dtype.kind in "iu" and raw.dtype != np.uint64:
            return raw.astype(np.int64), 0
        if raw.dtype.kind not in "fu":
            raise InputError(f"{self._path}: column {column!r} holds {values.type}, not times.")
        times = raw.astype(np.float64)
        self._raise_if(column, ~np.isfinite(times), "is not finite")
        # 2.0 ** 63 is exact in float64; the maximum of int64 is not.
        self._raise_if(column, (times < -(2.0**63)) | (times >= 2.0**63), "does not fit into int64")
        floors = np.floor(times)
        return floors.astype(np.int64), int((floors != times).sum())

    def _complete_column(self, column: str) -> pa.ChunkedArray:
        values = self._table.column(column)
        if values.null_count:
            self._raise_if(column, _to_numpy(values.is_null()).astype(np.bool_), "is empty")
        return values

    def _raise_if(self, column: str, wrong: NDArray[np.bool_], reason: str) -> None:
        if not wrong.any():
            return
        if self._layout is not None:
            find_bad_line(self._path, self._layout)
        row = int(np.flatnonzero(wrong)[0])
        value = self._table.column(column)[row].as_py()
        raise InputError(f"{self._path}, row {row + 1}, column {column!r}: {value!r} {reason}.")


def read_rows(path: Path, layout: Layout) -> Rows:
    """The wanted columns of a delimited file; `InputError` names the first bad line."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    # A float cannot hold every large time exactly, so integers are tried first.
    for time_type in (pa.int64(), pa.float64()):
        types = {
            "text": pa.dictionary(pa.int32(), pa.string()),
            "integer": pa.int64(),
            "number": pa.float64(),
            "time": time_type,
        }
        single = len(layout.delimiter) == 1
        source: str | pa.BufferReader = str(path)
        if not single:
            source = pa.BufferReader(path.read_bytes().replace(layout.delimiter.encode(), b"\t"))
        try:
            table = arrow_csv.read_csv(
                source,
                arrow_csv.ReadOptions(
                    column_names=list(layout.columns), skip_rows=1 if layout.header else 0
                ),
                arrow_csv.ParseOptions(
                    delimiter=layout.delimiter if single else "\t",
                    quote_char='"' if layout.quoted else False,
                ),
                arrow_csv.ConvertOptions(
                    include_columns=list(layout.kinds),
                    column_types={name: types[kind] for name, kind in layout.kinds.items()},
                    null_values=[],
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            failure = str(error)
        else:
            return Rows(path, table, layout)
        if "time" not in layout.kinds.values():
            break
    find_bad_line(path, layout)
    raise InputError(f"{path}: {failure}")


def find_bad_line(path: Path, layout: Layout) -> None:
    """Raise `InputError` for the first line that does not fit the layout; slow."""
    for number, fields in text_fields(path, layout):
        if len(fields) != len(layout.columns):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields; expected {len(layout.columns)} "
                f"({layout.delimiter.join(layout.columns)})."
            )
        for name, kind in layout.kinds.items():
            position = layout.columns.index(name)
            fault = _fault(fields[position], kind)
            if fault:
                raise InputError(
                    f"{path}, line {number}, field {position + 1} ({name}): "
                    f"{fields[position]!r:.60} {fault}."
                )


def text_fields(
    path: Path, layout: Layout, encoding: str = "utf-8-sig"
) -> Iterator[tuple[int, list[str]]]:
    """The number (from 1) and the fields of each line that is neither blank nor the header.

    Raises `InputError` for text that is not in the encoding or that the csv module cannot parse.
    """
    try:
        with path.open(encoding=encoding, newline="") as file:
            if layout.quoted:
                reader = csv.reader(file, delimiter=layout.delimiter)
                lines = ((reader.line_num, fields) for fields in reader)
            else:
                lines = (
                    (number, line.rstrip("\r\n").split(layout.delimiter))
                    for number, line in enumerate(file, start=1)
                )
            for position, (number, fields) in enumerate(lines):
                if fields and fields != [""] and not (position == 0 and layout.header):
                    yield number, fields
    except UnicodeDecodeError as error:
        raise_wrong_encoding(path, encoding, error)
    except csv.Error as error:
        raise InputError(f"{path}: {error}.") from error


def raise_wrong_encoding(path: Path, encoding: str, error: UnicodeDecodeError) -> NoReturn:
    """Raise the `InputError` for text that is not in the encoding that was tried."""
    name = encoding.removesuffix("-sig")
    raise InputError(
        f"{path}: not {name} text ({name} was tried; {error.reason} at byte {error.start}). "
        f"Convert the file to {name}."
    ) from error


def decade(year: str) -> list[str]:
    """`["decade:1990s"]` for a year between 1800 and 2099, otherwise nothing."""
    return [f"decade:{year[:3]}0s"] if re.fullmatch(r"(18|19|20)[0-9]{2}", year) else []


def _to_numpy(values: pa.ChunkedArray) -> NDArray[np.generic]:
    array: NDArray[np.generic] = values.to_numpy()
    return array


def _fault(text: str, kind: Kind) -> str | None:
    if kind == "text":
        return None if text else "is empty"
    digits = text.strip(" \t")
    if kind == "integer" or (kind == "time" and _INTEGER.fullmatch(digits)):
        if not _INTEGER.fullmatch(digits):
            return "is not an integer"
        fits = len(digits) < 30 and _INT64.min <= int(digits) <= _INT64.max
        return None if fits else "does not fit into int64"
    try:
        number = float(text)
    except ValueError:
        return "is not a number"
    if not np.isfinite(number):
        return "is not finite"
    if kind == "time" and not -(2.0**63) <= number < 2.0**63:
        return "does not fit into int64"
    return None
