"""Raw cells by column, before any is interpreted: which columns are read, and tables joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import numpy as np

from research.annotations import did_you_mean
from research.data.preparation.cells import is_list
from research.data.preparation.times import Where
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


def occurrence_of(name: str, number: int) -> str:
    """What is wrong with a column that occurs `number` times, not once, in words for a message."""
    return f"column {name!r} occurs {number} times" if number else f"there is no column {name!r}"


def require_columns(
    path: Path,
    columns: ColumnNames | ItemColumns,
    present: Sequence[str],
    *,
    has_header: bool | None = None,
    delimiter: str | None = None,
) -> None:
    """Raise `InputError` unless each column that is read occurs once among those of the file.

    `has_header` says whether a text has a header; None: the format always names its columns.
    `delimiter` is what separates the columns of a text.
    """
    named = ", ".join(present)
    if delimiter is not None and len(present) == 1:
        named += f" (separated by {delimiter!r}; --delimiter says by what else)"
    for name in columns.names:
        number = list(present).count(name)
        if number == 1:
            continue
        if name in columns.about_items or isinstance(columns, ItemColumns):
            option = "--attribute-columns and --title-column"
            raise InputError(
                f"{path}: {occurrence_of(name, number)}; the columns are "
                f"{named}{did_you_mean(name, present) or '.'} Name yours with "
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
            f"{path}: {occurrence_of(name, number)}; the columns are {named}"
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
