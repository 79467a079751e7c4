"""Attributes and titles from a table with one row an item, beside the file of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from research.data.preparation import csv_files, json_lines, parquet_files
from research.data.preparation.compression import plain_suffix
from research.data.preparation.csv_files import read_csv
from research.data.preparation.events import Events, Source
from research.data.preparation.items import Describe
from research.data.preparation.json_columns import FieldKind
from research.data.preparation.json_lines import read_json_lines, require_any_value
from research.data.preparation.options import PrepareConfig
from research.data.preparation.parquet_files import read_parquet
from research.data.preparation.raw_files import find_files
from research.data.preparation.raw_tables import ItemColumns, RawTable, concatenated
from research.data.preparation.tables import attribute_columns_of, columns_about_items, items_of
from research.errors import InputError

_SUFFIXES = (*csv_files.SUFFIXES, *parquet_files.SUFFIXES, *json_lines.SUFFIXES)


def check_items_options(config: PrepareConfig) -> None:
    """Raise `InputError` for options on attributes and titles that do not go together."""
    is_named = bool(columns_about_items(config))
    if config.items_file is None and config.items_column is not None:
        raise InputError("--items-column is for --items-file; give that, or leave it out.")
    if config.items_file is not None and not is_named:
        raise InputError(
            f"--items-file {config.items_file}: name what to read of it with --attribute-columns "
            "or --title-column."
        )
    if config.source in ("s3rec", "pairs") and is_named and config.items_file is None:
        raise InputError(
            f"--attribute-columns and --title-column: the {config.source} format has no columns; "
            "name the table that has them with --items-file."
        )
    if config.source != "atomic" and config.attribute_columns is None:
        for option, is_given in (
            ("--list-separator", config.list_separator is not None),
            ("--numeric-bins", config.numeric_bins != 0),
        ):
            if is_given:
                raise InputError(
                    f"{option} is for --attribute-columns; give that, or leave it out."
                )
    if config.source != "atomic" and config.attributes and config.attribute_columns:
        raise InputError(
            "--attributes and --attribute-columns both name attributes; leave one of them out."
        )
    if config.list_separator == "":
        raise InputError("--list-separator is empty; leave it out where a cell is one value.")
    if config.numeric_bins < 0 or config.numeric_bins == 1:
        raise InputError(f"--numeric-bins {config.numeric_bins}: 0 (no bins), or 2 or more.")
    if len(set(config.attribute_columns or ())) < len(config.attribute_columns or ()):
        raise InputError(
            f"--attribute-columns {' '.join(config.attribute_columns or ())}: name a column once."
        )


def with_items_file(source: Source, config: PrepareConfig) -> Source:
    """The source with the attributes and titles of `config.items_file`, if that is given.

    Attributes of that file take the place of those that the source has from another file. Raises
    `InputError` if there is no such file.
    """
    if config.items_file is None:
        return source
    found = find_files(Path(config.items_file), _SUFFIXES)

    def read_both() -> Events:
        events = source.read()
        describe = read_items(found.paths, config)
        if config.attribute_columns is None and events.attribute_file is not None:
            return replace(events, describe=lambda kept: replace(describe(kept), attributes=None))
        warnings = events.warnings
        if events.attribute_file is not None:
            warnings += (
                f"the attributes in {events.attribute_file} are not used, as --attribute-columns "
                f"names others, of {config.items_file}.",
            )
        return replace(
            events,
            describe=describe,
            attribute_file=Path(config.items_file or ""),
            warnings=warnings,
        )

    return replace(
        source,
        files=(*source.files, *found.paths),
        read=read_both,
        warnings=source.warnings + found.warnings,
    )


def read_items(files: Sequence[Path], config: PrepareConfig) -> Describe:
    """What a table says about its items, each of which has one row; all of them have an entry.

    Raises `InputError` for an item that has two rows that differ.
    """
    columns = ItemColumns(
        item=config.items_column or config.item_column, about_items=columns_about_items(config)
    )
    tables = [_read_table(path, columns, config) for path in files]
    require_any_value(files, tables, columns.about_items)
    raw = concatenated(tables, config.list_separator)
    return items_of(raw, columns.item, attribute_columns_of(config), config.title_column, config)


def _read_table(path: Path, columns: ItemColumns, config: PrepareConfig) -> RawTable:
    """The wanted columns of one file, whose name tells its format."""
    suffix = plain_suffix(path)
    if suffix in parquet_files.SUFFIXES:
        return read_parquet(path, columns)
    if suffix in csv_files.SUFFIXES:
        return read_csv(path, columns, config)
    if suffix in json_lines.SUFFIXES:
        fields: dict[str, FieldKind] = dict.fromkeys(columns.about_items, "any")
        return read_json_lines(path, {columns.item: "id", **fields}, id_options="--items-column")
    raise InputError(
        f"{path}: the name of an items file ends in one of {', '.join(_SUFFIXES)}, which tells its "
        "format."
    )
