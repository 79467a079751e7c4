"""Readers of text whose ids are whole numbers: S3-Rec's one line a user, and pairs.

Attributes of items come from a JSON file, which may stand beside other formats too.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.compression import open_bytes, plain_stem
from research.data.preparation.delimited import raise_wrong_encoding
from research.data.preparation.events import Events, Source
from research.data.preparation.raw_files import find_beside, require_file
from research.errors import InputError
from research.storage.untrusted import parse_json

# 18 digits always fit into int64.
_MAX_DIGITS = 18


def s3rec_source(raw: Path, attributes: Path | None) -> Source:
    """S3-Rec's text: one line per user, `user item item ...`, the oldest item first.

    The attributes are in the JSON file `attributes`; None: in `X_item2attributes.json` beside the
    file `X.txt`, if that exists. Each file may be compressed.
    """
    require_file(raw)
    name = plain_stem(raw)
    if attributes is None:
        attributes = find_beside(raw.with_name(f"{name}_item2attributes.json"))
    source = Source(name=name, files=(raw,), read=partial(_read_s3rec, raw))
    return with_json_attributes(source, attributes)


def pairs_source(raw: Path, attributes: Path | None) -> Source:
    """Text with one interaction `user item` per line; the lines of users may be interleaved."""
    require_file(raw)
    source = Source(name=plain_stem(raw), files=(raw,), read=partial(_read_pairs, raw))
    return with_json_attributes(source, attributes)


def with_json_attributes(source: Source, attributes: Path | None) -> Source:
    """The source, with the attributes of a JSON file `{item: [attribute, ...]}` if one is given."""
    if attributes is None:
        return source
    require_file(attributes)

    def read_both() -> Events:
        described = _attributes_from_json(attributes)
        return replace(source.read(), attributes=described, attribute_file=attributes)

    return replace(source, files=(*source.files, attributes), read=read_both)


def _attributes_from_json(path: Path) -> dict[str, list[str]]:
    with open_bytes(path) as file:
        content = file.read()
    try:
        # An item that is named twice would keep its last attributes alone.
        described = parse_json(content.decode(), names_may_repeat=False)
    except UnicodeDecodeError as error:
        raise_wrong_encoding(path, "utf-8", error)
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: holds no object; expected {{item: [attribute, ...], ...}}.")
    for item, attributes in described.items():
        if not isinstance(attributes, list) or not all(type(a) in (int, str) for a in attributes):
            raise InputError(
                f"{path}, item {item!r}: {attributes!r:.60}; expected a list of attribute ids."
            )
    names_by_item = {item: [str(a) for a in attributes] for item, attributes in described.items()}
    for name in {*names_by_item, *chain.from_iterable(names_by_item.values())}:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise InputError(
                f"{path}: {name!r:.60} has half of a surrogate pair; names must be valid Unicode."
            )
    return names_by_item


def _read_s3rec(path: Path) -> Events:
    values, lengths, lines, texts = _integer_lines(path)
    short = np.flatnonzero(lengths < 2)
    if len(short):
        raise InputError(
            f"{path}, line {lines[short[0]]}: 1 field; expected a user and at least one item."
        )
    first = np.cumsum(lengths) - lengths
    users = values[first]
    order = np.argsort(users, kind="stable")
    repeated = np.flatnonzero(np.diff(users[order]) == 0)
    if len(repeated):
        before, after = order[repeated[0]], order[repeated[0] + 1]
        raise InputError(
            f"{path}, line {lines[after]}: user {_name(users[after], texts)} already has line "
            f"{lines[before]}; expected one line a user."
        )
    is_item = np.ones(len(values), dtype=np.bool_)
    is_item[first] = False
    return _integer_events(np.repeat(users, lengths - 1), values[is_item], texts)


def _read_pairs(path: Path) -> Events:
    values, lengths, lines, texts = _integer_lines(path)
    wrong = np.flatnonzero(lengths != 2)
    if len(wrong):
        hint = (
            " For times or ratings, use the csv or atomic format." if lengths[wrong[0]] > 2 else ""
        )
        raise InputError(
            f"{path}, line {lines[wrong[0]]}: {lengths[wrong[0]]} field(s); expected 2 (user item)."
            + (hint if lengths[wrong[0]] > 2 else "")
        )
    return _integer_events(values[0::2], values[1::2], texts)


def _integer_events(
    users: NDArray[np.int64], items: NDArray[np.int64], texts: list[str] | None
) -> Events:
    import pandas as pd

    user_codes, user_ids = pd.factorize(users, sort=True)
    item_codes, item_ids = pd.factorize(items, sort=True)
    return Events(
        users=user_codes.astype(np.int32),
        items=item_codes.astype(np.int32),
        user_names=[_name(user, texts) for user in user_ids.tolist()],
        item_names=[_name(item, texts) for item in item_ids.tolist()],
    )


def _name(value: int, texts: list[str] | None) -> str:
    """The raw id as it is written in the file."""
    return str(value) if texts is None else texts[value]


def _integer_lines(
    path: Path,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[str] | None]:
    """The ids of a text file, all int64: (all of them, their count per line, line numbers, texts).

    Blank lines are left out; line numbers count from 1. An id is its value; where some are written
    with leading zeros, so that 007 and 7 are two, it is its position in `texts`, which are in the
    order of their values; otherwise `texts` is None. Raises `InputError` for anything but
    non-negative integers.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    with open_bytes(path) as file:
        raw = file.read().removeprefix(codecs.BOM_UTF8)
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = np.frombuffer(raw, dtype=np.uint8)
    digit = (data >= ord("0")) & (data <= ord("9"))
    blank = (data == ord(" ")) | (data == ord("\t")) | (data == ord("\n"))
    newlines = np.flatnonzero(data == ord("\n"))
    if not (digit | blank).all():
        _raise_not_integer(path, raw, int(np.flatnonzero(~(digit | blank))[0]))
    edges = np.diff(digit.view(np.int8), prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        raise InputError(f"{path}: holds no interactions.")
    longest = int((stops - starts).argmax())
    if stops[longest] - starts[longest] > _MAX_DIGITS:
        line = int(np.searchsorted(newlines, starts[longest])) + 1
        raise InputError(f"{path}, line {line}: an id of more than {_MAX_DIGITS} digits.")
    ends = np.append(np.searchsorted(starts, newlines), len(starts))
    lengths = np.diff(ends, prepend=0)
    lines = np.flatnonzero(lengths) + 1
    has_leading_zero = bool(((data[starts] == ord("0")) & (stops - starts > 1)).any())
    column = arrow_csv.read_csv(
        pa.BufferReader(raw.translate(bytes.maketrans(b" \t", b"\n\n"))),
        arrow_csv.ReadOptions(column_names=["id"]),
        convert_options=arrow_csv.ConvertOptions(
            column_types={"id": pa.string() if has_leading_zero else pa.int64()}, null_values=[]
        ),
    ).column("id")
    if not has_leading_zero:
        return column.to_numpy(), lengths[lines - 1], lines, None
    distinct, positions = np.unique(np.asarray(column).astype(np.str_), return_inverse=True)
    texts: list[str] = distinct.tolist()
    order = sorted(range(len(texts)), key=lambda position: (int(texts[position]), texts[position]))
    values = np.empty(len(texts), dtype=np.int64)
    values[order] = np.arange(len(texts))
    ordered = [texts[position] for position in order]
    return values[positions], lengths[lines - 1], lines, ordered


def _raise_not_integer(path: Path, raw: bytes, position: int) -> NoReturn:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise_wrong_encoding(path, "utf-8", error)
    if "\0" in text:
        raise InputError(f"{path}: not utf-8 text (utf-8 was tried; it holds null bytes).")
    line = raw.count(b"\n", 0, position) + 1
    # Only these separate fields; any other kind of space belongs to the field that is wrong.
    fields = re.findall(r"[^ \t]+", text.split("\n")[line - 1])
    wrong_fields = [
        (i, text) for i, text in enumerate(fields, 1) if not re.fullmatch("[0-9]+", text)
    ]
    field_number, field = wrong_fields[0]
    raise InputError(
        f"{path}, line {line}, field {field_number}: {field!r:.60} is not an integer; this format "
        "allows only integers from 0 as ids. For other ids, use the csv or atomic format."
    )
