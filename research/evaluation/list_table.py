"""The list table: the K best items of each user, and what list metrics need to know of them.

`lists.py` makes it, and a run folder keeps it beside the rank tables (`lists_file`). The list
metrics (`list_metrics.py`) are computed from it alone, so that a report needs no corpus. A file is
read as untrusted input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.table_file import json_value, reading_table, write_table

_COLUMNS = {
    "user": "int32", "place": "int32", "repeated": "bool", "history_popularity": "float64",
    "item": "int32", "item_count": "int32", "item_users": "int32",
    "attribute_offsets": "int64", "attribute_ids": "int32",
}  # fmt: skip
_SIZES = ("num_items", "num_users", "num_attributes")


@dataclass(frozen=True, eq=False)
class ListTable:
    """The K best items of each of U users, and I rows about the items that stand in any list."""

    user: NDArray[np.int32]
    """[U] dense user ids, ascending."""
    place: NDArray[np.int32]
    """[U, K] the row, in the columns of items, of each listed item, the best first; -1 after the
    end of a list that has fewer."""
    repeated: NDArray[np.bool_]
    """[U, K] whether the listed item stands in the user's history."""
    history_popularity: NDArray[np.float64]
    """[U] mean number of training interactions of the items of the user's history."""
    item: NDArray[np.int32]
    """[I] dense item ids, ascending."""
    item_count: NDArray[np.int32]
    """[I] training interactions of the item."""
    item_users: NDArray[np.int32]
    """[I] users who have the item in their training histories."""
    attribute_offsets: NDArray[np.int64]
    """[I + 1]: where in `attribute_ids` the attributes of each item begin, and the end."""
    attribute_ids: NDArray[np.int32]
    """[M] attribute ids, ascending within each item."""
    num_items: int
    """V, the number of items of the corpus, all of which could be listed."""
    num_users: int
    """Number of users who have a training history."""
    num_attributes: int
    """Number of attributes of the corpus; 0: it has none."""
    protocol: Mapping[str, object]
    """How the lists were made: fingerprint, split, part, seen policy."""

    def __len__(self) -> int:
        return len(self.user)

    def first(self, k: int) -> ListTable:
        """The table of the first k items of each list.

        `InputError` for more than the table has, unless it has all items.
        """
        length = self.place.shape[1]
        if k > length and length < self.num_items:
            raise InputError(
                f"the lists have {length} items, too few for a cutoff of {k}; make them anew: "
                f"`evaluate RUN --metrics coverage@{k} --save-lists`"
            )
        return replace(self, place=self.place[:, :k], repeated=self.repeated[:, :k])

    def save(self, path: Path) -> None:
        """Write the table as `.npz`; a crash leaves no partly written file at `path`."""
        sizes = {name: getattr(self, name) for name in _SIZES}
        texts = {"protocol": dict(self.protocol), "sizes": sizes}
        write_table(path, {name: getattr(self, name) for name in _COLUMNS}, texts)

    @staticmethod
    def load(path: Path) -> ListTable:
        """Read a table that `save` wrote; `InputError` for a file that is missing or damaged."""
        with reading_table(path, "list table") as stored:
            protocol, sizes = (json_value(stored[name]) for name in ("protocol", "sizes"))
            columns = {name: np.asarray(stored[name]) for name in _COLUMNS}
        types = {name: column.dtype.name for name, column in columns.items()}
        if types != _COLUMNS:
            raise InputError(f"{path} is not a list table (columns {types})")
        if not isinstance(protocol, dict):
            raise InputError(f"{path} is not a list table (its protocol is {protocol!r:.100})")
        if not isinstance(sizes, dict) or any(type(sizes.get(name)) is not int for name in _SIZES):
            raise InputError(f"{path} is not a list table (its sizes are {sizes!r:.100})")
        table = ListTable(
            **columns,
            num_items=sizes["num_items"],
            num_users=sizes["num_users"],
            num_attributes=sizes["num_attributes"],
            protocol=protocol,
        )
        if not (_has_shapes(table) and _is_possible(table)):
            raise InputError(f"{path} is not a list table (no ranking gives such lists)")
        return table


def lists_file(part: str, seen: str) -> str:
    """Where a run folder keeps the list table of a part, "validation" or "test", by seen policy."""
    return f"ranks/lists-{part}-{seen}.npz"


# What metrics are computed from, one way or the other.
Table = RankTable | ListTable


def _has_shapes(table: ListTable) -> bool:
    """Whether the columns have the shapes that the fields say, with U, K and I of at least 1."""
    if table.place.ndim != 2 or min(table.place.shape) == 0 or table.item.ndim != 1:
        return False
    rows, items = len(table.place), len(table.item)
    return (
        table.repeated.shape == table.place.shape
        and table.user.shape == table.history_popularity.shape == (rows,)
        and table.item_count.shape == table.item_users.shape == (items,)
        and table.attribute_offsets.shape == (items + 1,)
        and table.attribute_ids.ndim == 1
        and items > 0
    )


def _is_possible(table: ListTable) -> bool:
    """Whether the numbers of a table of the right shapes can come from a ranking."""
    counts, users, popularity = table.item_count, table.item_users, table.history_popularity
    if min(counts.min(), users.min()) < 0 or not (popularity >= 0).all():
        return False
    if not np.isfinite(popularity).all() or table.num_users < max(1, users.max()):
        return False
    ends = table.attribute_offsets
    if ends[0] != 0 or ends[-1] != len(table.attribute_ids) or (np.diff(ends) < 0).any():
        return False
    owner_M = np.repeat(np.arange(len(table.item)), np.diff(ends))
    same_owner_M = np.diff(owner_M) == 0
    if (np.diff(table.attribute_ids)[same_owner_M] <= 0).any():
        return False
    for ids, number in (
        (table.user, None),
        (table.item, table.num_items),
        (table.attribute_ids, table.num_attributes),
    ):
        if len(ids) and (ids.min() < 0 or (number is not None and ids.max() >= number)):
            return False
    if (np.diff(table.user) <= 0).any() or (np.diff(table.item) <= 0).any():
        return False
    is_listed = table.place >= 0
    if table.place.min() < -1 or table.place.max() >= len(table.item):
        return False
    # Nothing follows the end of a list, and no item is in it twice.
    ordered = np.sort(table.place, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    return not (twice.any() or (is_listed[:, 1:] & ~is_listed[:, :-1]).any())
