"""Files of raw ids and of histories: CSV, Parquet and JSON lines, compressed or not.

They are read by the readers of preparation, so an id is the one that `prepare` made of the same
cell, and what is wrong is named by its file and line. No cell but an empty one counts as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from research.annotations import did_you_mean
from research.data.preparation.arrow_columns import is_list
from research.data.preparation.compression import plain_suffix
from research.data.preparation.csv_files import read_csv
from research.data.preparation.delimited import utf8_lines
from research.data.preparation.headers import (
    SUFFIXES,
    TIMES,
    columns_like,
    columns_of_file,
    header_of_csv,
)
from research.data.preparation.ids import is_missing, read_ids
from research.data.preparation.json_columns import FieldKind
from research.data.preparation.json_lines import read_json_lines, require_any_value
from research.data.preparation.options import PrepareConfig
from research.data.preparation.parquet_files import read_parquet
from research.data.preparation.quotes import LONGEST_LINE
from research.data.preparation.raw_tables import ItemColumns, RawTable
from research.data.preparation.times import Where, read_times
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# The column of times where none is named.
TIMESTAMP = "timestamp"
OPTIONS = "--user-column, --item-column and --timestamp-column"


@dataclass(frozen=True, eq=False)
class HistoryFile:
    """The histories of a file, one a user, in the order in which users first appear."""

    names: list[str]
    """Raw id of each user."""
    histories: list[list[str]]
    """Raw ids of each user's items, oldest first; there may be none."""
    times: list[list[int]] | None
    """The time of each event, in seconds since 1970; None: the file has no times."""
    timestamp_column: str | None
    """The column of times, which histories are in the order of; None: they are as they stand."""


def read_id_file(path: Path, column: str) -> list[str]:
    """The raw ids of a file, each once, in their order.

    They are in the column (field) `column` of CSV, Parquet or JSON lines, or one a line in `.txt`,
    exactly as written. `InputError` for what cannot be read, another suffix and an empty cell.
    """
    if plain_suffix(path) == ".txt":
        _require_file(path)
        lines = utf8_lines(path, LONGEST_LINE, "Is there one id a line?")
        ids = (text.removesuffix("\n").removesuffix("\r") for _, text in lines)
        return list(dict.fromkeys(raw_id for raw_id in ids if raw_id))
    raw = _read(path, {column: "id"})
    cells = raw.table.column(column)
    _require_values(cells, column, raw.where)
    return read_ids(cells, column, raw.where)[1]


def own_column(path: Path, raw_column: object) -> str | None:
    """The column `raw_column` of a corpus's raw file, if the file `path` has it too; None: not."""
    present = columns_of_file(_config_of(path))
    return raw_column if isinstance(raw_column, str) and raw_column in present else None


def read_histories(
    path: Path,
    *,
    user_column: str = "user",
    item_column: str = "item",
    timestamp_column: str | None = None,
    time_format: str | None = None,
) -> HistoryFile:
    """The histories in a file of one row an event, or one row a user whose items are a list.

    Events are put in the order of their times (of equal ones, as they stand), whose form is
    `time_format` (of `strptime`; None: numbers or ISO 8601). They are in the column
    `timestamp_column`, or in `timestamp` if none is named. Without that they are oldest first as
    they stand, but it is an error if another column has a name of times, such as "date".
    Lists are in Parquet and JSON lines, of times as well as of items; an empty one is a history
    without events. `InputError` for a column that is not there, an empty cell, null in a list, and
    lists of different lengths in a row.
    """
    import pyarrow as pa

    named = [name for name in (user_column, item_column, timestamp_column) if name is not None]
    if len(set(named)) < len(named):
        raise InputError(f"{path}: a column is named for two purposes; {OPTIONS} must differ")
    wanted: dict[str, FieldKind] = dict.fromkeys(named, "events")
    wanted[user_column] = "id"
    by_default = timestamp_column is None and TIMESTAMP not in named
    raw = _read(path, wanted, TIMESTAMP if by_default else None)
    users = raw.table.column(user_column)
    _require_values(users, user_column, raw.where)
    user_R, names = read_ids(users, user_column, raw.where)
    rows, cells = _flat(raw, item_column)

    def where(event: int) -> str:
        return raw.where(int(rows[event]))

    items, item_names = read_ids(cells, item_column, where) if len(rows) else ([], [])
    user_N = user_R[rows].astype(np.int64)
    times = None
    if by_default and TIMESTAMP in raw.table.column_names:
        timestamp_column = TIMESTAMP
    if timestamp_column is not None:
        time_rows, time_cells = _flat(raw, timestamp_column)
        if not np.array_equal(time_rows, rows):
            raise InputError(
                f"{path}: columns {item_column!r} and {timestamp_column!r} hold lists of different "
                "lengths; each item needs a time"
            )
        if pa.types.is_dictionary(time_cells.type):
            time_cells = time_cells.cast(time_cells.type.value_type)
        times = read_times(time_cells, "auto", time_format, where) if len(rows) else None
    order = np.argsort(user_N, kind="stable")
    if times is not None:
        order = np.lexsort((times.exact, user_N))
    ends = np.cumsum(np.bincount(user_N, minlength=len(names)))
    texts = [item_names[code] for code in np.asarray(items, dtype=np.int64)[order].tolist()]
    seconds = None if times is None else times.seconds[order].tolist()
    bounds = list(zip([0, *ends.tolist()], ends.tolist()))
    return HistoryFile(
        names=names,
        histories=[texts[start:stop] for start, stop in bounds],
        times=None if seconds is None else [seconds[start:stop] for start, stop in bounds],
        timestamp_column=timestamp_column,
    )


def _read(path: Path, wanted: Mapping[str, FieldKind], optional: str | None = None) -> RawTable:
    """The wanted columns of a file, and the optional one if it is there; not yet interpreted.

    The kinds of the wanted columns are for JSON lines. `InputError` if the optional column, which
    is of times, is not there but another one that looks like times.
    """
    config = _config_of(path)
    if config.source == "jsonl":
        raw = _of_json_lines(path, wanted, optional)
        present = columns_of_file(config)
    elif config.source == "parquet":
        present = columns_of_file(config)
        raw = read_parquet(path, _columns(path, wanted, optional, present))
    else:
        delimiter, present = header_of_csv(path, config)
        config = replace(config, delimiter=delimiter)
        raw = read_csv(path, _columns(path, wanted, optional, present), config)
    times = [name for name in columns_like(TIMES, present) if name not in wanted]
    if optional is not None and optional not in raw.table.column_names and times:
        raise InputError(
            f"{path}: there is no column {optional!r}, but {' and '.join(times)} may hold times; "
            f"say so with --timestamp-column {times[0]}, or leave such columns out of the file if "
            "the events of a user stand oldest first"
        )
    return raw


def _config_of(path: Path) -> PrepareConfig:
    """How preparation would read a file; `InputError` if there is none, or for its ending."""
    _require_file(path)
    formats = [name for name, endings in SUFFIXES.items() if plain_suffix(path) in endings]
    if not formats:
        allowed = ", ".join(ending for endings in SUFFIXES.values() for ending in endings)
        raise InputError(f"{path}: only files that end in {allowed} are read here; write one")
    return PrepareConfig(
        source=formats[0], raw=str(path), quotes=True, quoted_newlines=True, missing_words=("",)
    )


def _of_json_lines(path: Path, wanted: Mapping[str, FieldKind], optional: str | None) -> RawTable:
    # The first lines do not tell which fields the others have.
    fields: dict[str, FieldKind] = {**wanted}
    if optional is not None:
        fields[optional] = "events"
    raw = read_json_lines(path, fields, id_options=OPTIONS)
    require_any_value([path], [raw], [*wanted], options=OPTIONS)
    absent = [name for name in fields if raw.table[name].null_count == raw.table.num_rows]
    return replace(raw, table=raw.table.drop_columns(absent))


def _columns(
    path: Path, wanted: Iterable[str], optional: str | None, present: Sequence[str]
) -> ItemColumns:
    """The columns to read of those in a file; `InputError` if a wanted one is not there."""
    for name in wanted:
        if name not in present:
            raise InputError(
                f"{path}: there is no column {name!r}; the columns are {', '.join(present)}"
                f"{did_you_mean(name, present) or '.'} Name yours with {OPTIONS}."
            )
    first, *others = wanted
    if optional is not None and optional in present:
        others.append(optional)
    return ItemColumns(item=first, about_items=tuple(others))


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file")


def _flat(raw: RawTable, column: str) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """The row of each value, int64 [N], and the values; those of lists one after the other.

    `InputError`, which names the row, for one without a value or list, and for null in a list.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = raw.table.column(column)
    _require_values(cells, column, raw.where)
    if not is_list(cells.type):
        return np.arange(len(cells), dtype=np.int64), cells
    lists = cells.combine_chunks()
    rows = np.asarray(pc.list_parent_indices(lists)).astype(np.int64)
    values = pa.chunked_array([pc.list_flatten(lists)])
    _require_values(values, column, lambda event: raw.where(int(rows[event])))
    return rows, values


def _require_values(cells: pa.ChunkedArray, column: str, where: Where) -> None:
    """`InputError`, which names the row, if a cell is empty."""
    missing = is_missing(cells, ("",))
    if missing.any():
        raise InputError(
            f"{where(int(np.argmax(missing)))}, column {column!r}: the cell is empty; every row "
            "needs a value there"
        )
