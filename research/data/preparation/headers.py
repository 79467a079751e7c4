"""The names of a raw file's columns, read from its header alone."""

from __future__ import annotations

from pathlib import Path

from research.data.preparation import csv_files, json_lines, parquet_files
from research.data.preparation.arrow_columns import names_in
from research.data.preparation.compression import plain_suffix
from research.data.preparation.delimited import first_line
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import find_files
from research.errors import InputError

# Endings of the files of each format that names its columns.
SUFFIXES = {
    "csv": csv_files.SUFFIXES,
    "parquet": parquet_files.SUFFIXES,
    "jsonl": json_lines.SUFFIXES,
}


def columns_of_file(config: PrepareConfig) -> list[str]:
    """The names of the columns of `config.raw`, or of the first file of several.

    `config.source` is csv (with a header), parquet or jsonl, whose fields are those of the first
    lines. Without a `config.delimiter`, the delimiter of CSV is the one that gives the most
    columns. Raises `InputError` where there is no such file, or it cannot be read.
    """
    assert config.raw is not None
    path = find_files(Path(config.raw), SUFFIXES[config.source]).paths[0]
    if config.source == "parquet":
        return _of_parquet(path)
    if config.source == "jsonl":
        return json_lines.first_fields(path)
    delimiters = csv_files.DELIMITERS if config.delimiter is None else (config.delimiter,)
    if config.delimiter is None and plain_suffix(path) == ".tsv":
        delimiters = ("\t",)
    headers = [
        first_line(
            path,
            delimiter,
            quoted=delimiter not in ("\t", "::") if config.quotes is None else config.quotes,
            newlines=config.quoted_newlines,
        )[1]
        for delimiter in delimiters
    ]
    return max(headers, key=len)


def _of_parquet(path: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = names_in(parquet.read_schema(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error!s:.300}).") from error
    return list(dict.fromkeys([*names, *parquet_files.values_in(path)]))
