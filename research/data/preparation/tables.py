"""From a table of raw cells to events: the one way in for CSV, Parquet, JSON lines and frames.

A reader makes a `RawTable`, in which no cell has been interpreted; `events_of` finds missing cells,
ids, times and ratings in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np
from numpy.typing import NDArray

from research.annotations import did_you_mean
from research.data.preparation.cells import is_list
from research.data.preparation.events import Events
from research.data.preparation.ids import is_missing, read_ids
from research.data.preparation.items import (
    AttributeColumn,
    Describe,
    ItemDescriptions,
    describe_items,
)
from research.data.preparation.options import FIXED_FORMATS, PrepareConfig
from research.data.preparation.times import Where, read_times
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

EventKind = Literal["id", "time", "number"]


@final
@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Names of the columns of a table; they differ from each other."""

    user: str
    """Column of raw user ids."""
    item: str
    """Column of raw item ids."""
    timestamp: str | None
    """Column of times; None: interactions are in the order of the file."""
    rating: str | None
    """Column of ratings; None: ratings are not read."""
    about_items: tuple[str, ...] = ()
    """Columns of attributes and titles, in which cells may be empty."""

    def __post_init__(self) -> None:
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"column {name!r} is named for two purposes; --user-column, --item-column, "
                    "--timestamp-column, --rating-column and --attribute-columns must differ."
                )

    @property
    def of_events(self) -> list[str]:
        """The columns that make an event, in which no value may be missing."""
        given = (self.user, self.item, self.timestamp, self.rating)
        return [name for name in given if name is not None]

    @property
    def kinds(self) -> dict[str, EventKind]:
        """The kind of value in each column that makes an event."""
        kinds: dict[str, EventKind] = {self.user: "id", self.item: "id"}
        if self.timestamp is not None:
            kinds[self.timestamp] = "time"
        if self.rating is not None:
            kinds[self.rating] = "number"
        return kinds

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [*self.of_events, *self.about_items]


@final
@dataclass(frozen=True, kw_only=True)
class ItemColumns:
    """Names of the columns of a table with one row an item."""

    item: str
    """Column of raw item ids."""
    about_items: tuple[str, ...]
    """Columns of attributes and titles."""

    def __post_init__(self) -> None:
        if self.item in self.about_items:
            raise InputError(
                f"column {self.item!r} has the ids of items (--items-column), so it can be neither "
                "an attribute nor a title."
            )

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return [self.item, *self.about_items]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RawTable:
    """Raw cells by column, one row an event, in the order of the source."""

    table: pa.Table
    """The wanted columns, of any type of Arrow."""
    where: Where
    """Names a row (from 0) in errors: its file, and its line or row from 1."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What the reader found, for the report of the corpus."""
    warnings: tuple[str, ...] = ()
    """What to tell the user."""


def require_columns(
    path: Path,
    columns: ColumnNames | ItemColumns,
    present: Sequence[str],
    *,
    has_header: bool | None = None,
) -> None:
    """Raise `InputError` unless each column that is read occurs once among those of the file.

    `has_header` says whether a text has a header; None: the format always names its columns.
    """
    for name in columns.names:
        number = list(present).count(name)
        if number == 1:
            continue
        if name in columns.about_items or isinstance(columns, ItemColumns):
            option = "--attribute-columns and --title-column"
            raise InputError(
                f"{path}: column {name!r} occurs {number} times; the columns are "
                f"{', '.join(present)}{did_you_mean(name, present) or '.'} Name yours with "
                f"{option if name in columns.about_items else '--items-column'}."
            )
        if has_header is False:
            raise InputError(
                f"{path}: there is no column {name!r}; without a header, columns are numbered from "
                f"1 to {len(present)}. Name yours with --user-column, --item-column, "
                "--timestamp-column (None: file order) and --rating-column."
            )
        without_header = "; without a header, say --header False" if has_header else ""
        raise InputError(
            f"{path}: column {name!r} occurs {number} times; the columns are {', '.join(present)}"
            f"{did_you_mean(name, present) or '.'} Name yours with --user-column, --item-column, "
            f"--timestamp-column (None: file order) and --rating-column{without_header}."
        )


def concatenated(tables: Sequence[RawTable], separator: str | None = None) -> RawTable:
    """The rows of several tables with the same columns, one table after the other.

    A column of unlike types is text. Where some tables have lists in it and others text, the text
    is cut into lists at `separator`, or is a list of one entry if that is None. Of the tables'
    notes, counts are added up. Raises `InputError`, which names two places, for types that do not
    go together.
    """
    import pyarrow as pa

    if len(tables) == 1:
        return tables[0]
    starts = np.cumsum([0, *(raw.table.num_rows for raw in tables)])

    def where(row: int) -> str:
        which = min(int(np.searchsorted(starts, row, side="right")) - 1, len(tables) - 1)
        return tables[which].where(row - int(starts[which]))

    return RawTable(
        table=pa.table(
            {name: _one_column(name, tables, separator) for name in tables[0].table.column_names}
        ),
        where=where,
        notes=_joined([raw.notes for raw in tables]),
        warnings=tuple(dict.fromkeys(warning for raw in tables for warning in raw.warnings)),
    )


def _joined(notes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The notes of several tables: the sum of counts, and the distinct values of others."""
    joined: dict[str, object] = {}
    for name in dict.fromkeys(name for of_table in notes for name in of_table):
        values = [of_table[name] for of_table in notes if name in of_table]
        counts = [value for value in values if type(value) is int]
        distinct = [value for place, value in enumerate(values) if value not in values[:place]]
        if len(counts) == len(values):
            joined[name] = sum(counts)
        else:
            joined[name] = distinct[0] if len(distinct) == 1 else distinct
    return joined


def _one_column(name: str, tables: Sequence[RawTable], separator: str | None) -> pa.ChunkedArray:
    """The cells of a column of all tables, with one type."""
    import pyarrow as pa

    columns = [raw.table.column(name) for raw in tables]
    kinds = {column.type for column in columns if not pa.types.is_null(column.type)}
    if len(kinds) > 1:
        kind = pa.list_(pa.string()) if any(map(is_list, kinds)) else pa.string()
    else:
        kind = kinds.pop() if kinds else pa.null()
    chunks: list[pa.Array] = []
    for raw, column in zip(tables, columns, strict=True):
        try:
            if is_list(kind) and not is_list(column.type):
                column = _in_lists(column, separator)
            chunks += column.cast(kind).chunks
        except pa.ArrowException as error:
            this = raw.table.column(name).type
            other = next(other for other in tables if other.table.column(name).type != this)
            raise InputError(
                f"{raw.where(0)}: column {name!r} holds {this}, but "
                f"{other.table.column(name).type} in {other.where(0)}, and these do not go "
                "together. Give all files the same type there."
            ) from error
    return pa.chunked_array(chunks, kind)


def _in_lists(column: pa.ChunkedArray, separator: str | None) -> pa.ChunkedArray:
    """The cells of a column as lists of text; null stays null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = column.cast(pa.string())
    if separator is not None:
        return pc.split_pattern(text, separator)
    lists = [None if cell is None else [cell] for cell in text.to_pylist()]
    return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])


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
