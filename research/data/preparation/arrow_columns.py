"""Columns of Arrow in the few types that `tables.events_of` reads; Parquet and frames use it.

Programs write one and the same text in six types of Arrow, and integers, times and lists in
several. Here each kind becomes one, parts of a data set with different types become alike, and rows
that hold lists become one row an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from research.data.preparation.ids import is_missing, read_ids
from research.data.preparation.raw_tables import ColumnNames, RawTable
from research.data.preparation.times import EXACT_IN_FLOAT, Where
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")


def names_in(schema: pa.Schema) -> list[str]:
    """The names of all columns; a struct's fields follow it, as `actor.id` for `id` in `actor`."""
    names = []
    fields = [(field.name, field.type) for field in reversed(list(schema))]
    while fields:
        name, kind = fields.pop()
        names.append(name)
        fields += [(f"{name}.{field.name}", field.type) for field in reversed(_fields_of(kind))]
    return names


def _fields_of(kind: pa.DataType) -> list[pa.Field]:
    import pyarrow as pa

    return [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []


def column_of(table: pa.Table | pa.RecordBatch, name: str) -> pa.ChunkedArray | pa.Array:
    """The column `name`, which may be a field of a struct; the name must be in `names_in`."""
    import pyarrow.compute as pc

    if name in table.schema.names:
        return table.column(name)
    parent, _, field = name.rpartition(".")
    return pc.struct_field(column_of(table, parent), [field])


def is_text(kind: pa.DataType) -> bool:
    """Whether Arrow's type is one of those of text."""
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether Arrow's type is one of those of lists."""
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def plain(cells: pa.ChunkedArray, column: str, where: Where) -> pa.ChunkedArray:
    """The cells with text as text or as a dictionary of text, and other values as themselves.

    Bytes become text; raises `InputError`, which names the row, for bytes that are no utf-8.
    """
    import pyarrow as pa

    kind = cells.type
    if isinstance(kind, pa.BaseExtensionType):
        stored = pa.chunked_array([chunk.storage for chunk in cells.chunks], kind.storage_type)
        if kind.extension_name != "arrow.uuid":
            return plain(stored, column, where)
        texts = [None if value is None else str(UUID(bytes=value)) for value in stored.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_dictionary(kind):
        # Arrow does not unify dictionaries that hold a null.
        if is_text(kind.value_type) and not any(c.dictionary.null_count for c in cells.chunks):
            return cells.cast(pa.dictionary(pa.int32(), pa.string()))
        return plain(cells.cast(kind.value_type), column, where)
    if pa.types.is_string_view(kind):
        return cells.cast(pa.large_string())
    if not (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    ):
        return cells
    # Some programs write text to Parquet without saying that it is text.
    try:
        return cells.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid as error:
        row = next(row for row, value in enumerate(cells.to_pylist()) if not _is_utf8(value))
        raise InputError(
            f"{where(row)}, column {column!r}: {cells[row].as_py()!r:.60} is not utf-8 text."
        ) from error


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def one_row_an_event(raw: RawTable, columns: ColumnNames) -> RawTable:
    """The table with a row for each entry of the lists in the column of items, in their order.

    Times and ratings are lists as long as that of the items, or one value for all of them. Raises
    `InputError`, which names the row, for lists of different lengths, and for lists in other
    columns. A table whose items are no lists stays as it is.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table, where = raw.table, raw.where
    lists = [name for name in columns.of_events if is_list(table.schema.field(name).type)]
    if columns.user in lists or (lists and columns.item not in lists):
        kind = table.schema.field(lists[0]).type
        raise InputError(
            f"{where(0)}, column {lists[0]!r} holds {kind}; lists are read where the column of "
            "items holds them, one list a user, and times and ratings may be lists beside it."
        )
    if not lists:
        return raw
    lengths = _lengths(table, columns.item)
    for name in lists:
        differ = _lengths(table, name) != lengths
        if differ.any():
            row = int(np.argmax(differ))
            raise InputError(
                f"{where(row)}: {lengths[row]} entries in column {columns.item!r}, but "
                f"{_lengths(table, name)[row]} in column {name!r}; their lists must be equally "
                "long."
            )
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.cumsum(lengths)

    def where_of_entry(entry: int) -> str:
        row = int(np.searchsorted(offsets, entry, side="right"))
        if row >= len(offsets):
            return where(0)
        return f"{where(row)}, entry {entry - int(offsets[row] - lengths[row]) + 1}"

    parents = pa.array(rows)
    exploded = {
        name: pc.list_flatten(table.column(name))
        if name in lists
        else _without_views(table.column(name)).combine_chunks().take(parents)
        for name in table.column_names
    }
    empty = int((lengths == 0).sum())
    return replace(
        raw,
        table=pa.table(exploded),
        where=where_of_entry,
        notes={**raw.notes, "lists_read": len(lengths), "lists_without_items": empty},
    )


def _without_views(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells in a type from which Arrow can take rows, which views of text or bytes are not."""
    import pyarrow as pa

    if pa.types.is_string_view(cells.type):
        return cells.cast(pa.large_string())
    if pa.types.is_binary_view(cells.type):
        return cells.cast(pa.large_binary())
    return cells


def _lengths(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(table.column(name)).fill_null(0)).astype(np.int64)


def alike(parts: Sequence[RawTable], columns: ColumnNames) -> list[RawTable]:
    """The same parts with the same type for a column in all of them, without loss.

    Integers stay integers; floats and decimals that are whole numbers become integers where another
    part has integers; times get the finest unit. Raises `InputError` for ids that are neither text
    nor whole numbers. What remains different is for `tables.concatenated`.
    """
    tables = [part.table for part in parts]
    for number, name in enumerate(tables[0].column_names):
        cells = [table.column(name) for table in tables]
        if len({column.type for column in cells}) > 1:
            if name in (columns.user, columns.item):
                for part in parts:
                    _check_ids(part, name)
            cells = _of_one_type(cells)
            tables = [
                table.set_column(number, name, column) for table, column in zip(tables, cells)
            ]
    return [replace(part, table=table) for part, table in zip(parts, tables)]


def _check_ids(part: RawTable, name: str) -> None:
    """Raise `InputError` unless what this part holds are ids."""
    cells = part.table.column(name)
    present = np.flatnonzero(~is_missing(cells, ()))
    if len(present):
        read_ids(cells.take(present), name, lambda row: part.where(int(present[row])))


def _of_one_type(cells: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    import pyarrow as pa

    is_temporal = all(
        pa.types.is_temporal(column.type) or pa.types.is_null(column.type) for column in cells
    )
    if is_temporal:
        return _of_one_unit(cells)
    kinds = {column.type for column in cells if not pa.types.is_null(column.type)}
    if any(map(is_list, kinds)):
        return list(cells)
    if all(pa.types.is_dictionary(kind) or is_text(kind) for kind in kinds):
        return [column.cast(pa.dictionary(pa.int32(), pa.string())) for column in cells]
    if not all(pa.types.is_floating(kind) for kind in kinds):
        cells = [_as_integers(column) for column in cells]
        kinds = {column.type for column in cells if not pa.types.is_null(column.type)}
    if all(pa.types.is_integer(kind) for kind in kinds):
        # A decimal holds each integer of 64 bits, with a sign or without.
        target = pa.decimal128(20) if pa.uint64() in kinds and len(kinds) > 1 else pa.int64()
        target = pa.uint64() if kinds == {pa.uint64()} else target
    elif all(pa.types.is_floating(kind) for kind in kinds):
        target = pa.float64()
    else:
        target = pa.string()
    return [column.cast(target) for column in cells]


def _as_integers(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats and decimals as integers if they all are whole numbers, otherwise the cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_decimal(cells.type):
        try:
            return cells.cast(pa.int64())
        except pa.ArrowInvalid:
            return cells
    if not pa.types.is_floating(cells.type):
        return cells
    values = np.asarray(cells.cast(pa.float64()).drop_null())
    values = values[~np.isnan(values)]
    if (values != np.floor(values)).any() or (np.abs(values) >= EXACT_IN_FLOAT).any():
        return cells
    cells = cells.cast(pa.float64())
    return pc.if_else(pc.is_nan(cells), pa.scalar(None, pa.float64()), cells).cast(pa.int64())


def _of_one_unit(cells: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Times and dates as times in the finest unit, in UTC if all have a zone."""
    import pyarrow as pa

    kinds = {column.type for column in cells if not pa.types.is_null(column.type)}
    times = [kind for kind in kinds if pa.types.is_timestamp(kind)]
    if len(times) < len(kinds) and not all(pa.types.is_date(kind) for kind in kinds - set(times)):
        return [column.cast(pa.string()) for column in cells]
    unit = max((kind.unit for kind in times), key=_UNITS.index, default="s")
    in_utc = [
        column.cast(pa.timestamp(unit, "UTC"))
        if pa.types.is_timestamp(column.type)
        else column.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, "UTC"))
        for column in cells
    ]
    if len(times) == len(kinds) and all(kind.tz for kind in times):
        return in_utc
    # Without a zone, so that the user is told that such times are read as UTC.
    return [column.cast(pa.timestamp(unit)) for column in in_utc]
