"""Files of raw ids and of histories: CSV, Parquet and JSON lines, compressed or not.

They are read by the readers of preparation, so an id is the one that `prepare` made of the same
cell, and what is wrong is named by its file and line. No cell but an empty one counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from research.annotations import did_you_mean
from research.data.preparation.arrow_columns import is_list, names_in
from research.data.preparation.compression import open_bytes, plain_suffix
from research.data.preparation.csv_files import read_csv
from research.data.preparation.delimited import first_line
from research.data.preparation.ids import is_missing, read_ids
from research.data.preparation.json_lines import read_json_lines
from research.data.preparation.options import PrepareConfig
from research.data.preparation.parquet_files import read_parquet
from research.data.preparation.raw_tables import ItemColumns, RawTable
from research.data.preparation.times import Where, read_times
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet", ".jsonl")
DELIMITERS = ",\t;|"


@dataclass(frozen=True, eq=False)
class HistoryFile:
    """The histories of a file, one a user, in the order in which users first appear."""

    names: list[str]
    """Raw id of each user."""
    histories: list[list[str]]
    """Raw ids of each user's items, oldest first; there may be none."""
    times: list[list[int]] | None
    """The time of each event, in seconds since 1970; None: the file has no times."""


def read_id_file(path: Path, column: str) -> list[str]:
    """The raw ids of a file, each once, in their order.

    They are in the column (field) `column` of CSV, Parquet or JSON lines, or one a line in `.txt`,
    exactly as written. `InputError` for what cannot be read, another suffix and an empty cell.
    """
    if path.suffix.lower() == ".txt":
        _require_file(path)
        with path.open(encoding="utf-8", newline="\n") as file:
            lines = [line.rstrip("\n").rstrip("\r") for line in file]
        return list(dict.fromkeys(line for line in lines if line))
    raw = _read(path, [column], "")
    cells = raw.table.column(column)
    _require_values(cells, column, raw.where)
    return read_ids(cells, column, raw.where)[1]


def read_histories(
    path: Path,
    *,
    user_column: str = "user",
    item_column: str = "item",
    timestamp_column: str = "timestamp",
) -> HistoryFile:
    """The histories in a file of one row an event, or one row a user whose items are a list.

    Where the file has the column of times, events are in the order of their times (of equal ones,
    as they stand), else oldest first as they stand. Lists are in Parquet and JSON lines, of times
    as well as of items; an empty one is a history without events, and null in one of JSON lines is
    no event. `InputError` for a column that is
    not there, an empty cell, and lists of different lengths in a row.
    """
    import pyarrow as pa

    wanted = [user_column, item_column]
    raw = _read(path, wanted, timestamp_column)
    users = raw.table.column(user_column)
    _require_values(users, user_column, raw.where)
    user_R, names = read_ids(users, user_column, raw.where)
    rows, cells = _flat(raw.table.column(item_column))

    def where(event: int) -> str:
        return raw.where(int(rows[event]))

    _require_values(cells, item_column, where)
    items, item_names = read_ids(cells, item_column, where) if len(rows) else ([], [])
    user_N = user_R[rows].astype(np.int64)
    times = None
    if timestamp_column in raw.table.column_names:
        time_rows, time_cells = _flat(raw.table.column(timestamp_column))
        if not np.array_equal(time_rows, rows):
            raise InputError(
                f"{path}: columns {item_column!r} and {timestamp_column!r} hold lists of different "
                "lengths; each item needs a time"
            )
        _require_values(time_cells, timestamp_column, where)
        if pa.types.is_dictionary(time_cells.type):
            time_cells = time_cells.cast(time_cells.type.value_type)
        times = read_times(time_cells, "auto", None, where) if len(rows) else None
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
    )


def _read(path: Path, wanted: Sequence[str], optional: str) -> RawTable:
    """The wanted columns of a file, and the optional one where it is there; not yet interpreted."""
    _require_file(path)
    suffix = plain_suffix(path)
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: only files that end in {', '.join(SUFFIXES)} are read here; write it as one "
            "of them"
        )
    present, delimiter = _columns_in(path, suffix)
    for name in wanted:
        if name not in present:
            raise InputError(
                f"{path}: there is no column {name!r}; the columns are {', '.join(present)}"
                f"{did_you_mean(name, present) or '.'}"
            )
    first, *others = wanted
    others += [optional] if optional in present else []
    columns = ItemColumns(item=first, about_items=tuple(others))
    if suffix == ".parquet":
        return read_parquet(path, columns)
    if suffix == ".csv":
        config = PrepareConfig(
            source="csv",
            delimiter=delimiter,
            quotes=True,
            quoted_newlines=True,
            missing_words=("",),
        )
        return read_csv(path, columns, config)
    return read_json_lines(path, {first: "id", **dict.fromkeys(others, "any")})


def _columns_in(path: Path, suffix: str) -> tuple[list[str], str]:
    """The names of the columns of a file, and what separates them in CSV."""
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return names_in(parquet.read_schema(path)), ""
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not readable as Parquet ({error!s:.300})") from error
    with open_bytes(path) as file:
        line = next((text for text in file if text.strip()), b"")
    if suffix == ".csv":
        delimiter = max(DELIMITERS, key=lambda each: line.count(each.encode()))
        return first_line(path, delimiter, quoted=True, newlines=True)[1], delimiter
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}: the first line is no JSON ({error})") from error
    return (list(entry), "") if isinstance(entry, dict) else ([], "")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file")


def _flat(cells: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """The row of each value, int64 [N], and the values; those of lists one after the other."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_list(cells.type):
        return np.arange(len(cells), dtype=np.int64), cells
    values = cells.combine_chunks()
    rows = np.asarray(pc.list_parent_indices(values)).astype(np.int64)
    return rows, pa.chunked_array([pc.list_flatten(values)])


def _require_values(cells: pa.ChunkedArray, column: str, where: Where) -> None:
    """`InputError`, which names the row, if a cell is empty."""
    missing = is_missing(cells, ("",))
    if missing.any():
        raise InputError(
            f"{where(int(np.argmax(missing)))}, column {column!r}: the cell is empty; every row "
            "needs a value there"
        )
