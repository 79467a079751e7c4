"""The reader of Parquet: one file, or a folder of parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from research.data.preparation.events import Events, Source
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.raw_files import find_files
from research.data.preparation.tables import (
    ColumnNames,
    ItemColumns,
    RawTable,
    concatenated,
    events_of,
    require_columns,
)
from research.errors import InputError

SUFFIXES = (".parquet",)


def parquet_source(raw: Path, config: PrepareConfig, columns: ColumnNames) -> Source:
    """The source of Parquet: a file, the files of a folder, or those of a pattern."""
    files = find_files(raw, SUFFIXES)
    name = raw.stem if len(files) == 1 else raw.resolve().name
    return Source(name=name, files=files, read=partial(_read, files, config, columns))


def _read(files: Sequence[Path], config: PrepareConfig, columns: ColumnNames) -> Events:
    return events_of(concatenated([read_parquet(path, columns) for path in files]), columns, config)


def read_parquet(path: Path, columns: ColumnNames | ItemColumns) -> RawTable:
    """The wanted columns of one file; `InputError` if it cannot be read or lacks a column."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            require_columns(path, columns, file.schema_arrow.names)
            table = file.read(columns=columns.names)
        for number, column in enumerate(table.columns):
            # A dictionary in a file may hold a name twice, hold none, or hold numbers.
            if pa.types.is_dictionary(column.type):
                plain = column.cast(column.type.value_type)
                table = table.set_column(number, table.field(number).name, plain)
        # Text that is no utf-8 would end the program where it is used.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error!s:.300}).") from error
    return RawTable(table=table, where=lambda row: f"{path}, row {row + 1}")
