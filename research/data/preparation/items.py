"""Attributes and titles of items from the columns of a table: of events, or of an items file.

An attribute is named `column:value`. An item has the attributes of all its rows, and the first
title that is not blank. `tables.py`, `items_file.py` and `atomic.py` give the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.cells import Cells, cells_of, numbers_of
from research.data.preparation.times import Where
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

# What may separate the values of a cell, and how often it must be seen before it is pointed out:
# in this share of the distinct cells.
_SEPARATORS = ("|", ";", ", ", ",")
_SEPARATOR_SHARE = 0.2
# From how many items on a column in which no two items share a value is taken for an id or a title.
_ITEMS_FOR_AN_ID = 10


@final
@dataclass(frozen=True, kw_only=True)
class AttributeColumn:
    """A column whose values become attributes."""

    name: str
    """Name of the column."""
    separator: str | None = None
    """What separates the values in a cell of text; None: a cell is one value."""
    bins: int = 0
    """Number of quantile bins of a column of numbers; 0: a number's text is the value."""


@final
@dataclass(frozen=True, kw_only=True)
class ItemDescriptions:
    """What the columns of a table say about items."""

    attributes: Mapping[str, Sequence[str]] | None = None
    """Attribute names by raw item id; None: no column of attributes was named."""
    titles: Mapping[str, str] | None = None
    """Titles by raw item id; None: no column of titles was named."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What was done with each column, for the report of the corpus."""
    warnings: tuple[str, ...] = ()
    """What to tell the user."""


# From the raw ids of a corpus's items to what a source says about them. It is called after the
# filters, so that bins and counts are those of the items that are kept.
Describe = Callable[[Collection[str]], ItemDescriptions]


def describe_items(
    kept: Collection[str],
    items: NDArray[np.int32],
    item_names: Sequence[str],
    table: pa.Table,
    columns: Sequence[AttributeColumn],
    title_column: str | None,
    *,
    missing_words: Sequence[str],
    where: Where,
) -> ItemDescriptions:
    """The attributes and titles in a table whose row r is about `item_names[items[r]]`.

    Only items whose raw ids are in `kept` are described, and count in bins and notes. Blank cells
    and those of `missing_words` say nothing. Raises `InputError` for a column whose values cannot
    be written as text, and for bins where no column has numbers.
    """
    import pyarrow as pa

    kept = frozenset(kept)
    is_kept = np.array([name in kept for name in item_names], dtype=np.bool_)[items]
    if not is_kept.all():
        names = [column.name for column in columns]
        names += [] if title_column is None else [title_column]
        table = table.select(list(dict.fromkeys(names))).filter(pa.array(is_kept))
        items = items[is_kept]
    attributes: dict[str, list[str]] = {}
    column_notes: dict[str, object] = {}
    warnings: list[str] = []
    for column in columns:
        cells = cells_of(table.column(column.name), column.name, where)
        values = _Values(column, cells, items, missing_words)
        for item, values_of_item in values.names_by_item():
            attributes.setdefault(item_names[item], []).extend(values_of_item)
        column_notes[column.name] = values.note()
        warnings += values.warnings()
    if len(items):
        _require_numbers(columns, column_notes, where)
    notes: dict[str, object] = {"attribute_columns": column_notes} if columns else {}
    titles = None
    if title_column is not None:
        titles, notes["title_column"] = _titles(
            items, item_names, table, title_column, missing_words, where
        )
    return ItemDescriptions(
        attributes=attributes if columns else None,
        titles=titles,
        notes=notes,
        warnings=tuple(warnings),
    )


def _require_numbers(
    columns: Sequence[AttributeColumn], column_notes: Mapping[str, object], where: Where
) -> None:
    if not any(column.bins for column in columns):
        return
    if not any(isinstance(note, dict) and "bins" in note for note in column_notes.values()):
        raise InputError(
            f"{where(0)}: --numeric-bins is given, but none of the columns "
            f"{', '.join(column_notes)} holds numbers alone. Leave it out, or name a column of "
            "numbers with --attribute-columns."
        )


@final
class _Values:
    """The values that a column gives to items."""

    def __init__(
        self,
        column: AttributeColumn,
        cells: Cells,
        items: NDArray[np.int32],
        missing_words: Sequence[str],
    ) -> None:
        self._column = column
        self._in_lists = cells.in_lists
        separator = None if cells.in_lists else column.separator
        self._tokens = [_tokens(text, separator, missing_words) for text in cells.texts]
        filled = np.array([bool(tokens) for tokens in self._tokens], dtype=np.bool_)
        is_value = cells.codes >= 0
        is_value[is_value] = filled[cells.codes[is_value]]
        # Each pair of an item and a distinct cell once.
        pairs = np.unique(
            items[cells.rows[is_value]].astype(np.int64) * max(len(cells.texts), 1)
            + cells.codes[is_value]
        )
        self._items, self._codes = np.divmod(pairs, max(len(cells.texts), 1))
        used = np.zeros(len(cells.texts), dtype=np.bool_)
        used[self._codes] = True
        self._texts = [cells.texts[code] for code in np.flatnonzero(used).tolist()]
        self._distinct = {token for code in np.flatnonzero(used) for token in self._tokens[code]}
        self._labels = self._bins() if column.bins else None

    def names_by_item(self) -> list[tuple[int, list[str]]]:
        """Positions of items with names of attributes; an item may occur more than once."""
        prefix, labels = self._column.name, self._labels
        names = {
            code: [
                f"{prefix}:{token if labels is None else labels[token]}"
                for token in self._tokens[code]
            ]
            for code in np.unique(self._codes).tolist()
        }
        pairs = zip(self._items.tolist(), self._codes.tolist(), strict=True)
        return [(item, names[code]) for item, code in pairs]

    def _bins(self) -> dict[str, str] | None:
        """The name of the quantile bin of each value; None if a value is no number.

        Every item counts as often as it has values; equal values are never in two bins.
        """
        numbers = numbers_of(self._distinct)
        if not numbers or len(numbers) < len(self._distinct):
            return None
        lists = [self._tokens[code] for code in self._codes.tolist()]
        values = np.sort(np.array([numbers[token] for tokens in lists for token in tokens]))
        shares = np.arange(1, self._column.bins) / self._column.bins
        edges = np.quantile(values, shares, method="inverted_cdf")
        bins = np.searchsorted(edges, values)
        names = {}
        for number in np.unique(bins).tolist():
            low, high = (float(v) for v in values[bins == number][[0, -1]])
            names[number] = _plain(low) if low == high else f"{_plain(low)} to {_plain(high)}"
        return {t: names[int(np.searchsorted(edges, value))] for t, value in numbers.items()}

    def _num_items(self) -> int:
        return len(np.unique(self._items))

    def _num_items_with_several(self) -> int:
        """Number of items with more than one distinct cell, where a cell holds one value."""
        if self._in_lists or self._column.separator is not None:
            return 0
        return int((np.unique(self._items, return_counts=True)[1] > 1).sum())

    def note(self) -> dict[str, object]:
        """What was done, for the report."""
        note: dict[str, object] = {
            "distinct_values": len(self._distinct),
            "items_described": self._num_items(),
            "cells": "lists" if self._in_lists else "single values",
        }
        if not self._in_lists and self._column.separator is not None:
            note["cells"] = f"values separated by {self._column.separator!r}"
        if self._labels is not None:
            note["bins"] = sorted(set(self._labels.values()), key=_first_number)
        if self._num_items_with_several():
            note["items_with_several_values"] = self._num_items_with_several()
        return note

    def warnings(self) -> list[str]:
        """What seems to be wrong with the column."""
        name, distinct, described = self._column.name, len(self._distinct), self._num_items()
        warnings = []
        several = self._num_items_with_several()
        if several:
            warnings.append(
                f"column {name!r}: {several:,} of {described:,} items have different values in "
                "different rows; they get all of them."
            )
        if several and len(self._items) == distinct * described:
            warnings.append(
                f"column {name!r}: every item has every value, as if it described events; it tells "
                "no item from another, as an attribute or in a filter. Leave it out."
            )
        ending = sorted(token for token in self._distinct if token.endswith((",", ";")))
        if ending:
            warnings.append(
                f"column {name!r}: {len(ending):,} of {distinct:,} values end in a comma or a "
                f"semicolon, such as {ending[0]!r:.60}; the separator seems to be another. Give "
                "yours with --list-separator."
            )
        if self._labels is None and (
            distinct > described or (described >= _ITEMS_FOR_AN_ID and not self._any_is_shared())
        ):
            warnings.append(
                f"column {name!r} has {distinct:,} values for {described:,} items; is it an id or "
                "a title? Values that items do not share say nothing as attributes."
            )
        return warnings + self._separator_warning() + self._mixed_warning()

    def _any_is_shared(self) -> bool:
        counts: dict[str, int] = {}
        for code in self._codes.tolist():
            for token in self._tokens[code]:
                counts[token] = counts.get(token, 0) + 1
        return any(count > 1 for count in counts.values())

    def _separator_warning(self) -> list[str]:
        if self._in_lists:
            return []
        is_cut = self._column.separator is not None
        texts, kind = (sorted(self._distinct), "values") if is_cut else (self._texts, "cells")
        for separator in _SEPARATORS:
            cut = [text for text in texts if separator in text]
            if len(cut) < max(2, _SEPARATOR_SHARE * len(texts)):
                continue
            tokens = [token.strip() for text in texts for token in text.split(separator)]
            words = [token for token in tokens if token and not token.isdecimal()]
            if len(set(words)) < len(words):
                return [
                    f"column {self._column.name!r}: {len(cut):,} of {len(texts):,} distinct "
                    f"{kind} contain {separator!r}, such as {cut[0]!r:.60}, and are taken whole. "
                    f"If they are lists, give --list-separator {separator!r}."
                ]
        return []

    def _mixed_warning(self) -> list[str]:
        if not self._column.bins or self._labels is not None:
            return []
        numbers = numbers_of(self._distinct)
        others = sorted(self._distinct - numbers.keys())
        if len(numbers) <= len(others):
            return []
        return [
            f"column {self._column.name!r} is not put into bins: {len(others):,} of "
            f"{len(self._distinct):,} values are no numbers, such as {others[0]!r:.60}. If they "
            "stand for no value, name them with --missing-words."
        ]


def _tokens(text: str, separator: str | None, missing_words: Sequence[str]) -> list[str]:
    """The distinct values in a cell."""
    parts = [text] if separator is None else text.split(separator)
    tokens = (part.strip() for part in parts)
    return list(dict.fromkeys(token for token in tokens if token and token not in missing_words))


def _titles(
    items: NDArray[np.int32],
    item_names: Sequence[str],
    table: pa.Table,
    column: str,
    missing_words: Sequence[str],
    where: Where,
) -> tuple[dict[str, str], dict[str, object]]:
    """The first title of each item that is not missing, by raw id, and a note on them."""
    cells = cells_of(table.column(column), column, where)
    if cells.in_lists:
        raise InputError(
            f"{where(0)}: column {column!r} holds lists; a title is text. Name another column with "
            "--title-column."
        )
    words = {"", *missing_words}
    filled = np.array([text.strip() not in words for text in cells.texts], dtype=np.bool_)
    rows = np.flatnonzero(cells.codes >= 0)
    rows = rows[filled[cells.codes[rows]]]
    described, first = np.unique(items[cells.rows[rows]], return_index=True)
    titles = {
        item_names[item]: cells.texts[code]
        for item, code in zip(described.tolist(), cells.codes[rows[first]].tolist(), strict=True)
    }
    pairs = np.unique(
        items[cells.rows[rows]].astype(np.int64) * max(len(cells.texts), 1) + cells.codes[rows]
    )
    return titles, {
        "column": column,
        "items_described": len(titles),
        "titles_that_differ_from_the_first": len(pairs) - len(titles),
    }


def _plain(number: float) -> str:
    """The shortest text of a number, without a point where it is whole."""
    return repr(number).removesuffix(".0")


def _first_number(label: str) -> float:
    return float(label.split(" to ")[0])
