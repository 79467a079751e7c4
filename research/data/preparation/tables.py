"""From a table of raw cells to events: the one way in for CSV, Parquet, JSON lines and frames.

A reader makes a `RawTable`, in which no cell has been interpreted; `events_of` finds missing cells,
ids, times and ratings in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.events import Events
from research.data.preparation.ids import is_missing, read_ids
from research.data.preparation.items import (
    AttributeColumn,
    Describe,
    ItemDescriptions,
    describe_items,
)
from research.data.preparation.options import FIXED_FORMATS, PrepareConfig
from research.data.preparation.raw_tables import ColumnNames, RawTable
from research.data.preparation.times import Where, read_times
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

EventKind = Literal["id", "time", "number"]


def events_of(raw: RawTable, columns: ColumnNames, config: PrepareConfig) -> Events:
    """The events of a table; raw ids are in order of first appearance.

    Rows in which a column has no value raise `InputError`, or are dropped and counted, as
    `config.missing` says. Raises `InputError` for wrong values, and if no row is left.
    """
    import pyarrow as pa

    # The dictionaries of all blocks become one here, and not again in each step.
    raw = replace(raw, table=_with_one_dictionary(raw.table))
    raw, notes = without_missing(raw, columns.of_events, config)
    table, where = raw.table, raw.where
    users, user_names = read_ids(table.column(columns.user), columns.user, where)
    items, item_names = read_ids(table.column(columns.item), columns.item, where)
    times = None
    if columns.timestamp is not None:
        cells = table.column(columns.timestamp)
        if pa.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        times = read_times(
            cells,
            config.time_unit,
            config.time_format,
            lambda row: f"{where(row)}, column {columns.timestamp!r}",
        )
        notes["time_unit"] = times.unit
        if times.rounded_down:
            notes["timestamps_rounded_down"] = times.rounded_down
    ratings = None
    if columns.rating is not None:
        ratings = read_numbers(table.column(columns.rating), columns.rating, where)
    describe = None
    if columns.about_items:
        describe = partial(
            describe_items,
            items=items,
            item_names=item_names,
            table=table,
            columns=attribute_columns_of(config),
            title_column=config.title_column,
            missing_words=config.missing_words,
            where=where,
        )
    return Events(
        users=users,
        items=items,
        user_names=user_names,
        item_names=item_names,
        timestamps=None if times is None else times.seconds,
        exact_times=None if times is None or times.exact is times.seconds else times.exact,
        ratings=ratings,
        describe=describe,
        notes={**raw.notes, **notes},
        warnings=raw.warnings + (() if times is None else times.warnings),
    )


def items_of(
    raw: RawTable,
    item_column: str,
    attribute_columns: Sequence[AttributeColumn],
    title_column: str | None,
    config: PrepareConfig,
) -> Describe:
    """What a table with one row an item says about its items, each of which has an entry.

    Rows of an item that are equal in all columns that are read count as one. Raises `InputError`
    for an item with rows that differ, and for rows without an id unless `config.missing` says to
    drop them.
    """
    raw, notes = without_missing(raw, (item_column,), config)
    items, names = read_ids(raw.table.column(item_column), item_column, raw.where)
    repeats = _require_equal_rows(raw, items, names)
    if repeats:
        notes["rows_that_repeat_another"] = repeats

    def describe(kept: Collection[str]) -> ItemDescriptions:
        descriptions = describe_items(
            kept,
            items,
            names,
            raw.table,
            attribute_columns,
            title_column,
            missing_words=config.missing_words,
            where=raw.where,
        )
        attributes = descriptions.attributes or {}
        return replace(
            descriptions,
            attributes={name: attributes.get(name, ()) for name in names},
            notes={**descriptions.notes, **({"items_file": notes} if notes else {})},
            warnings=raw.warnings + descriptions.warnings,
        )

    return describe


def _require_equal_rows(raw: RawTable, items: NDArray[np.int32], names: Sequence[str]) -> int:
    """The number of rows beyond the first of their item; `InputError` where one differs from it."""
    first = np.full(len(names), len(items))
    np.minimum.at(first, items, np.arange(len(items)))
    repeats = np.flatnonzero(first[items] != np.arange(len(items)))
    originals = first[items[repeats]]
    # By their text, in which two NaN are equal.
    pairs = zip(
        map(repr, raw.table.take(repeats).to_pylist()),
        map(repr, raw.table.take(originals).to_pylist()),
        strict=True,
    )
    for (row, original), (cells, others) in zip(
        zip(repeats.tolist(), originals.tolist(), strict=True), pairs, strict=True
    ):
        if cells != others:
            raise InputError(
                f"{raw.where(row)}: item {names[items[row]]!r:.60} is described twice, before at "
                f"{raw.where(original)}. Leave one of the rows out."
            )
    return len(repeats)


def attribute_columns_of(config: PrepareConfig) -> list[AttributeColumn]:
    """The columns of attributes that the options name, with what is done to their cells."""
    return [
        AttributeColumn(name=name, separator=config.list_separator, bins=config.numeric_bins)
        for name in config.attribute_columns or ()
    ]


def columns_about_items(config: PrepareConfig) -> tuple[str, ...]:
    """The columns of attributes and of titles that the options name, each once."""
    title = () if config.title_column is None else (config.title_column,)
    return tuple(dict.fromkeys((*(config.attribute_columns or ()), *title)))


def read_numbers(cells: pa.ChunkedArray, column: str, where: Where) -> NDArray[np.float64]:
    """float64 [N]: the cells as finite numbers; `InputError` with `where` for other cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if pa.types.is_dictionary(kind):
        cells = cells.cast(kind.value_type)
        kind = cells.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        trimmed = pc.utf8_trim(cells, " \t")
        try:
            cells = trimmed.cast(pa.float64())
        except pa.ArrowInvalid:
            _raise_not_a_number(trimmed, column, where)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise InputError(f"{where(0)}, column {column!r} holds {kind}, no numbers.")
    numbers = np.asarray(cells.cast(pa.float64(), safe=False)).astype(np.float64)
    infinite = ~np.isfinite(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise InputError(f"{where(row)}, column {column!r}: {numbers[row]} is not finite.")
    return numbers


def _raise_not_a_number(cells: pa.ChunkedArray, column: str, where: Where) -> None:
    import pyarrow as pa

    for row, text in enumerate(cells.to_pylist()):
        try:
            pa.scalar(text).cast(pa.float64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{where(row)}, column {column!r}: {text!r:.60} is not a number."
            ) from error


def _with_one_dictionary(table: pa.Table) -> pa.Table:
    """The table with one chunk, and so one dictionary, in each column that has dictionaries."""
    import pyarrow as pa

    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            combined = table.column(number).unify_dictionaries().combine_chunks()
            table = table.set_column(number, column, combined)
    return table


def without_missing(
    raw: RawTable, names: Sequence[str], config: PrepareConfig
) -> tuple[RawTable, dict[str, object]]:
    """The rows with a value in all columns `names`, and what was dropped, for the report.

    Raises `InputError` if a value is missing where `config.missing` does not say to drop its row,
    and if no row is left.
    """
    import pyarrow as pa

    table = raw.table
    if table.num_rows == 0:
        raise InputError(f"{raw.where(0)}: there are no interactions.")
    missing = {name: is_missing(table.column(name), config.missing_words) for name in names}
    counts = {name: int(mask.sum()) for name, mask in missing.items()}
    if not any(counts.values()):
        return raw, {}
    lacks = np.logical_or.reduce(list(missing.values()))
    told = ", ".join(f"{count:,} in column {name!r}" for name, count in counts.items() if count)
    if config.missing == "error":
        row = int(np.argmax(lacks))
        first = next(name for name in names if missing[name][row])
        cell = table.column(first)[row].as_py()
        shown = (
            "the cell is empty"
            if cell is None or cell == ""
            else f"{cell!r:.60} stands for no value"
        )
        options = (
            ""
            if config.source in FIXED_FORMATS
            else ", or leave such rows out with --missing drop; if one of the words is a real id, "
            "name those that are not with --missing-words"
        )
        raise InputError(
            f"{raw.where(row)}, column {first!r}: {shown}. Cells without a value: {told}. Correct "
            f"them{options}."
        )
    kept = np.flatnonzero(~lacks)
    if not len(kept):
        raise InputError(f"{raw.where(0)}: no row has all values; missing are {told}.")
    original = raw.where
    rest = replace(
        raw,
        table=table.filter(pa.array(~lacks)),
        where=lambda row: original(int(kept[row])),
        warnings=(
            *raw.warnings,
            f"{int(lacks.sum()):,} rows are left out, as values are missing: {told}.",
        ),
    )
    return rest, {"rows_dropped_as_missing": int(lacks.sum()), "missing_cells": counts}
