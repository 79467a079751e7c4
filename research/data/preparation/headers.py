"""The names of a raw file's columns, read from its header alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

# Names by which a column is recognized, in small letters and without blanks, dashes and the like;
# an "id" at the end changes nothing.
USERS = ("user", "customer", "client", "visitor", "reviewer", "member", "account", "session")
ITEMS = (
    *("item", "product", "article", "movie", "film", "book", "track", "song", "asin", "sku"),
    *("business", "game", "video", "parentasin"),
)
TIMES = ("time", "timestamp", "date", "datetime", "ts", "unixtime", "unixreviewtime", "eventtime")


def columns_like(names: Sequence[str], present: Sequence[str]) -> list[str]:
    """Those of the columns `present` whose name is one of `names`, as `USERS`, or much like it."""
    return [column for column in present if _bare(column) in names]


def _bare(column: str) -> str:
    bare = re.sub(r"[\W_]+", "", column.casefold())
    return bare.removesuffix("id") or bare


def columns_of_file(config: PrepareConfig) -> list[str]:
    """The names of the columns of `config.raw`, or of the first file of several.

    `config.source` is csv (with a header), parquet or jsonl, whose fields are those of the first
    lines. Raises `InputError` where there is no such file, or it cannot be read.
    """
    assert config.raw is not None
    path = find_files(Path(config.raw), SUFFIXES[config.source]).paths[0]
    if config.source == "parquet":
        return _of_parquet(path)
    if config.source == "jsonl":
        return json_lines.first_fields(path)
    return header_of_csv(path, config)[1]


def header_of_csv(path: Path, config: PrepareConfig) -> tuple[str, list[str]]:
    """What separates the columns of a CSV file with a header, and their names.

    Without a `config.delimiter`, it is the one that gives the most columns. `InputError` where no
    delimiter gives a header.
    """
    delimiters = csv_files.DELIMITERS if config.delimiter is None else (config.delimiter,)
    if config.delimiter is None and plain_suffix(path) == ".tsv":
        delimiters = ("\t",)
    headers, faults = [], []
    for delimiter in delimiters:
        quoted = delimiter not in ("\t", "::") if config.quotes is None else config.quotes
        try:
            names = first_line(path, delimiter, quoted=quoted, newlines=config.quoted_newlines)[1]
        except InputError as fault:
            # A header in quotes may break the rules of quotes for all delimiters but its own.
            faults.append(fault)
        else:
            headers.append((delimiter, names))
    if not headers:
        raise faults[0]
    return max(headers, key=lambda header: len(header[1]))


def _of_parquet(path: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = names_in(parquet.read_schema(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error!s:.300}).") from error
    return list(dict.fromkeys([*names, *parquet_files.values_in(path)]))
