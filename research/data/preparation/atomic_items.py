"""RecBole's `.item` files: which columns are attributes and titles, and how lists are separated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.annotations import did_you_mean
from research.data.preparation.cells import cells_of
from research.data.preparation.delimited import (
    Layout,
    decade,
    first_line,
    read_delimited,
    require_text,
    rows_of_width,
)
from research.data.preparation.events import Events
from research.data.preparation.items import AttributeColumn, Describe, ItemDescriptions
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import require_file
from research.data.preparation.raw_tables import RawTable
from research.data.preparation.tables import items_of
from research.errors import InputError

_TYPES = ("token", "token_seq", "float", "float_seq")
# A column of years, which are made decades unless columns are named.
_YEARS = "release_year"
# What items are called in the names of their columns of names.
_THINGS = ("item", "product", "business", "movie", "book", "app", "game")


def atomic_header(path: Path) -> dict[str, str]:
    """The type of each column of an atomic file; `InputError` if the header is wrong."""
    types = {}
    line, fields = first_line(path, "\t", quoted=False)
    require_text(path, line, fields)
    for position, text in enumerate(fields, start=1):
        name, colon, kind = text.rpartition(":")
        if not colon or kind not in _TYPES or name in types:
            raise InputError(
                f"{path}, line {line}, field {position}: {text!r:.60}; expected NAME:TYPE, each "
                f"name once, with a type of {', '.join(_TYPES)}."
            )
        types[name] = kind
    return types


def field_named(option: str, default: str, types: Mapping[str, str]) -> str:
    """The name of a column of ids: "user" and "item", the options' defaults, mean RecBole's names.

    A file that has "user" or "item" itself, and not RecBole's name, is read by that.
    """
    if option == default and (f"{option}_id" in types or option not in types):
        return f"{option}_id"
    return option


def read_item_file(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The type of each column of an atomic `.item` file, and its rows as text by column.

    Raises `InputError` if the header is wrong or has no item_id, or if a line is too short or long.
    """
    types = atomic_header(require_file(path))
    if "item_id" not in types:
        raise InputError(f"{path}, line 1: no field item_id; found {', '.join(types)}.")
    rows = rows_of_width(path, "\t", len(types), header=True)
    return types, [dict(zip(types, fields, strict=True)) for fields in rows]


def with_item_file(events: Events, path: Path, config: PrepareConfig) -> Events:
    """The events with the attributes and titles of a `.item` file."""
    types = atomic_header(require_file(path))
    item = field_named(config.item_column, "item", types)
    if item not in types:
        raise InputError(
            f"{path}, line 1: no field {item}; found {', '.join(types)}. Name yours with "
            "--item-column."
        )
    names = _attribute_names(path, item, types, config)
    title = _title_name(path, item, types, config)
    years = _YEARS if config.attribute_columns is None and types.get(_YEARS) == "token" else None
    wanted = {name: None for name in (item, *names, title, years) if name is not None}
    layout = Layout(
        columns=tuple(types),
        kinds=dict.fromkeys(wanted, "id"),
        delimiter="\t",
        header_line=first_line(path, "\t", quoted=False)[0],
    )
    raw = read_delimited(path, layout)
    columns = [_attribute_column(raw, name, types[name], config) for name in names]
    describe = items_of(raw, item, columns, title, config)
    if years is not None:
        describe = partial(_with_decades, describe=describe, raw=raw, item=item, years=years)
    unused = {"item_columns_not_used": [name for name in types if name not in wanted]}
    return replace(
        events,
        describe=describe,
        attribute_file=path,
        notes={**events.notes, **unused},
    )


def _attribute_names(
    path: Path, item: str, types: Mapping[str, str], config: PrepareConfig
) -> Sequence[str]:
    """The columns that are named; by default those of lists of words, not of titles and names."""
    if config.attribute_columns is not None:
        for name in config.attribute_columns:
            _require_column(path, name, item, types, "--attribute-columns")
        return config.attribute_columns
    return [
        name
        for name, kind in types.items()
        if kind == "token_seq" and "title" not in name.lower() and "name" not in name.lower()
    ]


def _title_name(
    path: Path, item: str, types: Mapping[str, str], config: PrepareConfig
) -> str | None:
    """The column that is named; by default the first whose name says that it is a title.

    Such a name contains "title", or else is "name" or that of an item, such as item_name: a
    brand_name or a category_name is none. For items in X_id, X_name is the name of an item too.
    """
    if config.title_column is not None:
        _require_column(path, config.title_column, item, types, "--title-column")
        return config.title_column
    chosen = config.attribute_columns or ()
    names_of_items = {f"{thing}_name" for thing in (*_THINGS, item.lower().removesuffix("_id"))}
    with_title = [name for name in types if "title" in name.lower()]
    others = [name for name in types if name.lower() in {"name", *names_of_items}]
    for names in (with_title, others):
        for kind in ("token_seq", "token"):
            for name in names:
                if types[name] == kind and name not in (item, *chosen):
                    return name
    return None


def _require_column(
    path: Path, name: str, item: str, types: Mapping[str, str], option: str
) -> None:
    if name not in types or name == item:
        others = [other for other in types if other != item]
        raise InputError(
            f"{path}, line 1: {option} {name}: the columns about items are {', '.join(others)}"
            f"{did_you_mean(name, others) or '.'}"
        )


def _attribute_column(
    raw: RawTable, name: str, kind: str, config: PrepareConfig
) -> AttributeColumn:
    """The column with its separator; a `token` or a `float` is a single value."""
    separator = None
    if kind.endswith("_seq"):
        separator = config.list_separator
        if separator is None:
            separator = _separator_of(cells_of(raw.table.column(name), name, raw.where).texts)
    return AttributeColumn(name=name, separator=separator, bins=config.numeric_bins)


def _separator_of(cells: Sequence[str]) -> str:
    """A comma with a blank where most cells with a blank have it; else RecBole's own, a blank."""
    with_blank = [cell for cell in cells if " " in cell.strip()]
    with_comma = [cell for cell in with_blank if ", " in cell]
    return ", " if len(with_comma) > len(with_blank) / 2 else " "


def _with_decades(
    kept: Collection[str], describe: Describe, raw: RawTable, item: str, years: str
) -> ItemDescriptions:
    """The descriptions with the decade of each item's year as an attribute."""
    descriptions, kept = describe(kept), frozenset(kept)
    items = raw.table.column(item).to_pylist()
    decades = {
        name: decade(year)
        for name, year in zip(items, raw.table.column(years).to_pylist(), strict=True)
        if name in kept
    }
    columns = descriptions.notes.get("attribute_columns", {})
    assert isinstance(columns, dict)
    described = [names for names in decades.values() if names]
    note = {
        "distinct_values": len({name for names in described for name in names}),
        "items_described": len(described),
        "cells": "years, made decades",
    }
    return replace(
        descriptions,
        attributes={
            name: [*names, *decades.get(name, [])]
            for name, names in (descriptions.attributes or {}).items()
        },
        notes={**descriptions.notes, "attribute_columns": {**columns, years: note}},
    )
