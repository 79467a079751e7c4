"""Tables of Arrow written to a file part by part, as CSV, Parquet or JSON lines by its suffix.

Few parts are in memory at a time, and the file appears whole, at the end, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from research.errors import InputError
from research.storage.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are gathered for a group of a Parquet file; many small groups are slow to read.
ROWS_OF_GROUP = 1 << 17
Write = Callable[["pa.Table"], object]


def check_suffix(path: Path) -> None:
    """`InputError` unless a table can be written to a file of this name."""
    if path.suffix not in _WRITERS:
        raise InputError(
            f"{path}: a table is written as {', '.join(_WRITERS)}; give the file one of these "
            "endings"
        )


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Yield a function that appends a table of this schema to the file `path`.

    The file is there when the block has ended; if it raises, an older file stays as it was. CSV has
    a header, and every text in quotes, which may hold commas, quotes and new lines. `InputError`
    for a suffix other than `.csv`, `.parquet` and `.jsonl`.
    """
    check_suffix(path)
    with replacing(path) as file, _WRITERS[path.suffix](file, schema) as write:
        yield write


@contextmanager
def _csv(file: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    from pyarrow import csv

    with csv.CSVWriter(file, schema) as writer:
        yield writer.write_table


@contextmanager
def _parquet(file: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    waiting: list[pa.Table] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def write(table: pa.Table) -> None:
            waiting.append(table)
            if sum(part.num_rows for part in waiting) >= ROWS_OF_GROUP:
                write_waiting()

        def write_waiting() -> None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()

        yield write
        write_waiting()


@contextmanager
def _json_lines(file: BinaryIO, schema: pa.Schema) -> Iterator[Write]:
    def write(table: pa.Table) -> None:
        assert table.schema == schema, "all parts have one schema"
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    yield write


_WRITERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines}
