"""The reader of RecBole's atomic files: text whose header names each column and its type."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.data.preparation.delimited import (
    Kind,
    Layout,
    decade,
    first_line,
    read_delimited,
    rows_of_width,
)
from research.data.preparation.events import Events, Source
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.raw_files import require_file
from research.data.preparation.tables import ColumnNames, events_of
from research.errors import InputError

_ATOMIC_TYPES = ("token", "token_seq", "float", "float_seq")


def atomic_source(raw: Path, config: PrepareConfig, items: Path | None) -> Source:
    """The source of RecBole's atomic files: a `.inter` file, or a folder with exactly one.

    `items` is the `.item` file with the attributes; None: the one of the same name beside the
    `.inter` file, if it exists.
    """
    if os.path.isdir(raw):
        inter_files = sorted(raw.glob("*.inter"))
        if len(inter_files) != 1:
            raise InputError(f"{raw}: {len(inter_files)} .inter files; exactly one is needed.")
        raw = inter_files[0]
    require_file(raw)
    if items is None and raw.with_suffix(".item").is_file():
        items = raw.with_suffix(".item")
    files = (raw,) if items is None else (raw, require_file(items))
    return Source(name=raw.stem, files=files, read=partial(read_atomic, raw, items, config))


def read_item_file(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The type of each column of an atomic `.item` file, and its rows as text by column.

    Raises `InputError` if the header is wrong or has no item_id, or if a line is too short or long.
    """
    types = _atomic_header(require_file(path))
    if "item_id" not in types:
        raise InputError(f"{path}, line 1: no field item_id; found {', '.join(types)}.")
    rows = rows_of_width(path, "\t", len(types), header=True)
    return types, [dict(zip(types, fields, strict=True)) for fields in rows]


def _atomic_header(path: Path) -> dict[str, str]:
    types = {}
    line, fields = first_line(path, "\t", quoted=False)
    for position, text in enumerate(fields, start=1):
        name, colon, kind = text.rpartition(":")
        if not colon or kind not in _ATOMIC_TYPES or name in types:
            raise InputError(
                f"{path}, line {line}, field {position}: {text!r:.60}; expected NAME:TYPE, each "
                f"name once, with a type of {', '.join(_ATOMIC_TYPES)}."
            )
        types[name] = kind
    return types


def read_atomic(path: Path, items: Path | None, config: PrepareConfig) -> Events:
    """The events of a `.inter` file, with what an `.item` file says about items."""
    types = _atomic_header(path)
    for name, kind in (("user_id", "token"), ("item_id", "token")):
        if types.get(name) != kind:
            raise InputError(f"{path}, line 1: no field {name}:{kind}; found {', '.join(types)}.")
    for name in ("rating", "timestamp"):
        if types.get(name, "float") != "float":
            raise InputError(f"{path}, line 1: {name}:{types[name]}; expected {name}:float.")
    kinds: dict[str, Kind] = {"user_id": "id", "item_id": "id"}
    if "rating" in types:
        kinds["rating"] = "number"
    if "timestamp" in types:
        kinds["timestamp"] = "time"
    header_line, _ = first_line(path, "\t", quoted=False)
    layout = Layout(columns=tuple(types), kinds=kinds, delimiter="\t", header_line=header_line)
    names = ColumnNames(
        user="user_id",
        item="item_id",
        timestamp="timestamp" if "timestamp" in types else None,
        rating="rating" if "rating" in types else None,
    )
    events = events_of(read_delimited(path, layout), names, config)
    return events if items is None else _with_item_file(events, items)


def _with_item_file(events: Events, path: Path) -> Events:
    types, rows = read_item_file(path)
    sequences = [name for name, kind in types.items() if kind == "token_seq"]
    titles = [name for name in sequences if "title" in name]
    attributes: dict[str, list[str]] = {}
    for row in rows:
        names = [
            f"{name}:{token}"
            for name in sequences
            if name not in titles
            for token in row[name].split(" ")
            if token
        ]
        year = decade(row["release_year"]) if types.get("release_year") == "token" else []
        attributes.setdefault(row["item_id"], []).extend(names + year)
    used = {"item_id", "release_year", *sequences}
    return replace(
        events,
        attributes=attributes,
        attribute_file=path,
        titles={row["item_id"]: row[titles[0]] for row in rows} if titles else None,
        notes={**events.notes, "item_columns_not_used": [n for n in types if n not in used]},
    )
