"""The reader of Parquet as Spark, DuckDB, Polars and pandas write it: one file, or many parts.

Parts may differ in the order of columns and in compatible types. What a folder's name says, as in
`date=2020-01-01/part-0.parquet`, is a column of the files in it. A row may hold the list of all
items of a user. Only the columns that are wanted are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from research.data.corpus_files import canonical_json
from research.data.preparation.arrow_columns import (
    alike,
    column_of,
    is_text,
    names_in,
    one_row_an_event,
    plain,
)
from research.data.preparation.compression import corpus_name
from research.data.preparation.events import Events, Source
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import find_files
from research.data.preparation.raw_tables import (
    ColumnNames,
    ItemColumns,
    RawTable,
    concatenated,
    require_columns,
)
from research.data.preparation.tables import events_of
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet",)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def parquet_source(raw: Path, config: PrepareConfig, columns: ColumnNames) -> Source:
    """The source of Parquet: a file, the files of a folder, or those of a pattern."""
    found = find_files(raw, SUFFIXES)
    values = [
        {key: value for key, value in values_in(path).items() if key in columns.names}
        for path in found.paths
    ]
    digest = None
    if any(values):
        digest = hashlib.sha256(canonical_json(values).encode()).hexdigest()
    return Source(
        name=corpus_name(raw, SUFFIXES),
        files=found.paths,
        digest=digest,
        read=partial(_read, found.paths, config, columns),
        warnings=found.warnings + found.order_warnings(columns.timestamp),
    )


def values_in(path: Path) -> dict[str, str | None]:
    """What the names of a file's folders say in Hive's way: `{"date": "2020-01-01"}`."""
    pairs = [name.partition("=") for name in path.parts[:-1] if "=" in name]
    return {unquote(key): None if text == _NO_VALUE else unquote(text) for key, _, text in pairs}


def _read(files: Sequence[Path], config: PrepareConfig, columns: ColumnNames) -> Events:
    import pyarrow as pa

    parts = [read_parquet(path, columns) for path in files]
    try:
        whole = concatenated(alike(parts, columns), config.list_separator)
    except pa.ArrowException as error:
        raise InputError(
            f"{files[0]}: its columns cannot be read as one with those of the other {len(files)} "
            f"files ({error!s:.300})."
        ) from error
    return events_of(whole, columns, config)


def read_parquet(path: Path, columns: ColumnNames | ItemColumns) -> RawTable:
    """The wanted columns of one file; `InputError` if it cannot be read or lacks a column."""
    import pyarrow as pa

    try:
        table = _wanted(path, columns)
        # Text that is no utf-8 would end the program where it is used.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error!s:.300}).") from error

    raw = RawTable(table=table, where=lambda row: f"{path}, row {row + 1}")
    if isinstance(columns, ColumnNames):
        raw = one_row_an_event(raw, columns)
    cells = {
        name: plain(raw.table.column(name), name, raw.where) for name in raw.table.column_names
    }
    return replace(raw, table=pa.table(cells))


def _wanted(path: Path, columns: ColumnNames | ItemColumns) -> pa.Table:
    """The wanted columns as they are in the file and in the names of its folders."""
    import pyarrow as pa
    from pyarrow import parquet

    by_folder = values_in(path)
    with parquet.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
    in_file = names_in(schema)
    from_folder = [name for name in by_folder if name not in in_file]
    require_columns(path, columns, [*in_file, *from_folder])
    names = [name for name in columns.names if name not in from_folder]
    # Text that repeats itself, as ids do, takes a fraction of the memory in a dictionary.
    ids = (columns.user, columns.item) if isinstance(columns, ColumnNames) else ()
    repeated = [name for name in ids if name in schema.names and is_text(schema.field(name).type)]
    with parquet.ParquetFile(path, metadata=metadata, read_dictionary=repeated) as file:
        table = file.read(columns=names)
    cells = {name: column_of(table, name) for name in names}
    for name in from_folder:
        if name in columns.names:
            cells[name] = _repeated(by_folder[name], metadata.num_rows)
    return pa.table({name: cells[name] for name in columns.names})


def _repeated(value: str | None, rows: int) -> pa.ChunkedArray:
    """A column with one value in all rows."""
    import pyarrow as pa

    if value is None:
        return pa.chunked_array([pa.nulls(rows, pa.dictionary(pa.int32(), pa.string()))])
    indices = pa.array(np.zeros(rows, dtype=np.int32))
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, pa.array([value]))])
