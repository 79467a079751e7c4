"""Cells with a list of items: a user's history before the row's item, as RecBole writes it.

`presplit.py` puts the histories of a user together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_tables import RawTable
from research.errors import InputError


def entries(text: str) -> list[str]:
    """The items of a list; blanks separate them, and no other kind of space does."""
    return [name for name in text.split(" ") if name]


def without_missing_entries(raw: RawTable, lists: str, config: PrepareConfig) -> RawTable:
    """The rows whose list has no word for nothing in it; notes tell how many were dropped.

    Raises `InputError` for such a row where `config.missing` does not say to drop it, and if no row
    is left.
    """
    import pyarrow as pa

    words = set(config.missing_words)
    texts: list[str] = raw.table.column(lists).to_pylist()
    lacks = np.array([not words.isdisjoint(entries(text)) for text in texts], dtype=np.bool_)
    if not lacks.any():
        return raw
    number, row = int(lacks.sum()), int(np.argmax(lacks))
    if config.missing == "error":
        word = next(name for name in entries(texts[row]) if name in words)
        raise InputError(
            f"{raw.where(row)}, column {lists!r}: the list has {word!r:.60}, which stands for no "
            f"value; {number:,} lists have such words. Correct them, or leave such rows out with "
            "--missing drop; if one of the words is a real id, name those that are not with "
            "--missing-words."
        )
    if lacks.all():
        raise InputError(f"{raw.where(0)}: in every row the list {lists!r} lacks values.")
    kept, original = np.flatnonzero(~lacks), raw.where
    return replace(
        raw,
        table=raw.table.filter(pa.array(~lacks)),
        where=lambda row: original(int(kept[row])),
        notes={**raw.notes, "rows_dropped_for_their_list": number},
        warnings=(
            *raw.warnings,
            f"{number:,} rows are left out, as values are missing in their list {lists!r}.",
        ),
    )
