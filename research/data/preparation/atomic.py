"""The reader of RecBole's atomic files: text whose header names each column and its type.

`presplit.py` reads rows that are whole histories, and files that bring a split; `atomic_items.py`
reads what a `.item` file says about items.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.data.preparation.atomic_items import atomic_header, field_named, with_item_file
from research.data.preparation.compression import plain_stem, plain_suffix, without_compression
from research.data.preparation.delimited import Kind, Layout, first_line, read_delimited
from research.data.preparation.events import Events, Source
from research.data.preparation.headers import TIMES, columns_like
from research.data.preparation.options import PrepareConfig
from research.data.preparation.presplit import (
    PARTS,
    SplitPart,
    events_of_histories,
    events_of_parts,
)
from research.data.preparation.raw_files import find_beside, require_each_once, require_file
from research.data.preparation.raw_tables import ColumnNames, RawTable
from research.data.preparation.tables import events_of
from research.errors import InputError

_SUFFIX = ".inter"
# X and the part of the split in X.train.inter, X.valid.inter and X.test.inter.
_PART_NAME = re.compile(r"(.+)\.([^.]+)\.inter", re.IGNORECASE)
# RecBole adds this to a field's name where a row holds a user's whole history.
_LIST_SUFFIX = "_list"
_ITEM_ID = "item_id"
_ITEM_LIST = f"{_ITEM_ID}{_LIST_SUFFIX}"
# The defaults of options, which mean that a column is read only where it is.
_TIMESTAMP, _RATING = "timestamp", "rating"


def atomic_source(raw: Path, config: PrepareConfig, items: Path | None) -> Source:
    """The source of RecBole's atomic files: a `.inter` file, or a folder with exactly one.

    Files X.train.inter, X.valid.inter and X.test.inter are one source; each stands for all that are
    in its folder. `items` is the `.item` file with the attributes; None: the one of the same name
    beside the `.inter` file, if it exists. Each file may be compressed.
    """
    name, parts = _find_parts(raw)
    if items is None:
        items = find_beside(next(iter(parts.values())).with_name(f"{name}.item"))
    files = tuple(parts.values()) if items is None else (*parts.values(), require_file(items))
    return Source(name=name, files=files, read=partial(_read, parts, items, config))


def _find_parts(raw: Path) -> tuple[str, dict[str, Path]]:
    """The name of a source, and its files by their part of the split; "" is a file of no part.

    Raises `InputError` if a folder holds several sources, if a part is there twice, and for files
    X.OTHER.inter beside the parts of X.
    """
    if os.path.isdir(raw):
        inter_files = _inter_files(raw)
        named = [_name_and_part(path) for path in inter_files]
        names, found = {name for name, _ in named}, {part for _, part in named}
        are_parts = len(names) == 1 and "" not in found and bool(found & set(PARTS))
        if len(inter_files) != 1 and not are_parts:
            raise InputError(
                f"{raw}: {len(inter_files)} .inter files; exactly one is needed, or files "
                "X.train.inter, X.valid.inter and X.test.inter of one X. Name the one to read."
            )
        raw = inter_files[0]
    require_file(raw)
    name, part = _name_and_part(raw)
    if not part:
        return name, {"": raw}
    files = [(path, _name_and_part(path)) for path in _inter_files(raw.parent)]
    by_part = [(part, path) for path, (other, part) in files if other == name and part]
    parts = {part: path for part, path in by_part if part in PARTS}
    if not parts:
        return plain_stem(raw), {"": raw}
    require_each_once(raw.parent, [path for _, path in by_part])
    for part, path in by_part:
        if part not in PARTS:
            raise InputError(
                f"{path}: there is {next(iter(parts.values())).name} beside it, and {part} is not "
                f"one of the parts {', '.join(PARTS)}. Rename the file if it is one of them, or "
                "move it out of the folder."
            )
    return name, {part: require_file(parts[part]) for part in PARTS if part in parts}


def _inter_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if plain_suffix(path) == _SUFFIX and not path.name.startswith(".")
    ]


def _name_and_part(path: Path) -> tuple[str, str]:
    """X and train of a file X.train.inter, compressed or not; X and "" of X.inter."""
    match = _PART_NAME.fullmatch(without_compression(path).name)
    return (plain_stem(path), "") if match is None else (match[1], match[2])


def _read(parts: Mapping[str, Path], items: Path | None, config: PrepareConfig) -> Events:
    """The events of one or several `.inter` files, with what an `.item` file says about items."""
    types = {path: atomic_header(path) for path in parts.values()}
    columns = [_columns_of(path, types[path], config) for path in parts.values()]
    for path, other in zip(list(parts.values())[1:], columns[1:], strict=True):
        if other != columns[0]:
            raise InputError(
                f"{path}, line 1: has the fields {', '.join(types[path])}; the file beside it has "
                f"{', '.join(types[next(iter(parts.values()))])}. Give both the same fields."
            )
    lists_of_files = {_history_field(columns[0].item, of_file) for of_file in types.values()}
    lists = next((name for name in lists_of_files if name is not None), None)
    if len(lists_of_files) > 1:
        raise InputError(
            f"{', '.join(str(path) for path in parts.values())}: some have the field {lists}, "
            "which makes a row a whole history, and some do not; give all of them the same fields."
        )
    _refuse_other_lists(types, columns[0].item, lists)
    if lists is not None:
        events = _histories(parts, lists, columns[0], types, config)
        used = {lists, columns[0].user, columns[0].item}
    else:
        tables = [
            SplitPart(part, _read_inter(path, columns[0], types[path]))
            for part, path in parts.items()
        ]
        used = set(columns[0].names)
        if list(parts) == [""]:
            events = events_of(tables[0].raw, columns[0], config)
        else:
            events = events_of_parts(tables, columns[0], config)
    present = dict.fromkeys(name for of_file in types.values() for name in of_file)
    notes = {"interaction_columns_not_used": [name for name in present if name not in used]}
    events = replace(
        events,
        notes={**events.notes, **notes},
        warnings=events.warnings + _list_warnings(types, used),
    )
    return events if items is None else with_item_file(events, items, config)


def _history_field(item: str, types: Mapping[str, str]) -> str | None:
    """The field with the items before the row's item; None: a row is one event.

    It is that of the item's field, or `item_id_list` beside an item's field of another name.
    """
    if f"{item}{_LIST_SUFFIX}" in types:
        return f"{item}{_LIST_SUFFIX}"
    if _ITEM_LIST in types and _ITEM_ID not in types:
        return _ITEM_LIST
    return None


def _refuse_other_lists(
    types: Mapping[Path, Mapping[str, str]], item: str, lists: str | None
) -> None:
    """Raise `InputError` for a list that may be a history and is not read as one.

    RecBole writes a list for each field of an event, so that X_list beside X is no history of
    items, nor are timestamp_list and rating_list.
    """
    for path, of_file in types.items():
        for name, kind in of_file.items():
            field = name.removesuffix(_LIST_SUFFIX)
            is_list = field != name and kind.endswith("_seq") and name != lists
            beside = field != _ITEM_ID and field in (*of_file, _TIMESTAMP, _RATING)
            if is_list and not beside:
                raise InputError(
                    f"{path}, line 1: {name}:{kind} is a list that is not read, as the items are "
                    f"in the field {item}. If it is the history before that item, name it "
                    f"{item}{_LIST_SUFFIX}, or name the field of its items with --item-column; if "
                    "it is not, leave it out of the file."
                )


def _list_warnings(
    types: Mapping[Path, Mapping[str, str]], used: Collection[str]
) -> tuple[str, ...]:
    """A warning for lists of any other name, such as the words of a review."""
    lists = dict.fromkeys(
        name
        for of_file in types.values()
        for name, kind in of_file.items()
        if kind.endswith("_seq") and name not in used and not name.endswith(_LIST_SUFFIX)
    )
    if not lists:
        return ()
    return (
        f"the lists in the fields {', '.join(lists)} are not read; if one is the user's history, "
        f"name it {_ITEM_LIST}.",
    )


def read_atomic(path: Path, config: PrepareConfig) -> Events:
    """The events of one `.inter` file."""
    return _read({"": path}, None, config)


def _histories(
    parts: Mapping[str, Path],
    lists: str,
    columns: ColumnNames,
    types: Mapping[Path, Mapping[str, str]],
    config: PrepareConfig,
) -> Events:
    for path in parts.values():
        if types[path][lists] != "token_seq":
            raise InputError(f"{path}, line 1: {lists}:{types[path][lists]}; expected token_seq.")
    if config.timestamp_column not in (None, _TIMESTAMP):
        raise InputError(
            f"--timestamp-column {config.timestamp_column}: a row with {lists} is a whole history, "
            "whose order is that of the list. Leave the option out."
        )
    histories = ColumnNames(
        user=columns.user, item=columns.item, timestamp=None, rating=None, about_items=(lists,)
    )
    tables = [
        SplitPart(part, _read_inter(path, histories, types[path])) for part, path in parts.items()
    ]
    return events_of_histories(tables, histories, lists, config)


def _columns_of(path: Path, types: Mapping[str, str], config: PrepareConfig) -> ColumnNames:
    """The fields that the options name; times and ratings are read where they are by default."""
    user = field_named(config.user_column, "user", types)
    item = field_named(config.item_column, "item", types)
    for name, option in ((user, "--user-column"), (item, "--item-column")):
        if types.get(name) != "token":
            raise InputError(
                f"{path}, line 1: no field {name}:token; found {', '.join(types)}. Name yours with "
                f"{option}."
            )
    timestamp = config.timestamp_column
    if timestamp == _TIMESTAMP and timestamp not in types:
        _check_no_times(path, [name for name in types if name not in (user, item)], config)
        timestamp = None
    rating: str | None = config.rating_column
    if rating == _RATING and rating not in types:
        rating = None
    for field, option, allowed in (
        (timestamp, "--timestamp-column", ("float", "token")),
        (rating, "--rating-column", ("float",)),
    ):
        if field is not None and types.get(field) not in allowed:
            present = f"{field}:{types[field]}" if field in types else ", ".join(types)
            raise InputError(
                f"{path}, line 1: no field {field}:{' or '.join(allowed)}; found {present}. Name "
                f"yours with {option}."
            )
    return ColumnNames(user=user, item=item, timestamp=timestamp, rating=rating)


def _check_no_times(path: Path, others: Sequence[str], config: PrepareConfig) -> None:
    """Raise `InputError` if one of the other fields may hold times, or how times are read is given.

    A file without a field `timestamp` has its events in the order of time.
    """
    times = columns_like(TIMES, others)
    if times:
        raise InputError(
            f"{path}, line 1: no field {_TIMESTAMP}, but {' and '.join(times)} may hold times; say "
            f"so with --timestamp-column {times[0]}, or give --timestamp-column None if the events "
            "of a user stand oldest first."
        )
    if config.time_unit != "auto" or config.time_format is not None:
        raise InputError(
            f"{path}, line 1: no field {_TIMESTAMP} for --time-unit or --time-format; found "
            f"{', '.join(others)}. Name yours with --timestamp-column, or leave the option out."
        )


def _read_inter(path: Path, columns: ColumnNames, types: Mapping[str, str]) -> RawTable:
    kinds: dict[str, Kind] = {**columns.kinds}
    kinds |= dict.fromkeys(columns.about_items, "text")
    header_line, _ = first_line(path, "\t", quoted=False)
    layout = Layout(columns=tuple(types), kinds=kinds, delimiter="\t", header_line=header_line)
    return read_delimited(path, layout)
