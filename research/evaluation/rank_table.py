"""The rank table: one row for each held-out item, with its rank among the candidates.

`ranking.py` makes it, and a run folder keeps it as `.npz`. All metrics, slices and tests are
computed from it. A file is read as untrusted input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.table_file import json_value, reading_table, write_table

_COLUMNS = {
    "user": "int32", "item": "int32", "rank": "float64",
    "ties": "int32", "history_length": "int32", "item_count": "int32",
}  # fmt: skip
# Columns that slices alone need; a table that an earlier version wrote lacks them.
_OPTIONAL_COLUMNS = {"since_last": "int64", "attribute_bits": "int64"}
# Most attributes that `attribute_bits` has room for.
MAX_ATTRIBUTES = 62


@dataclass(frozen=True, eq=False)
class RankTable:
    """One row for each of Q held-out items: its rank among the candidates of one set."""

    user: NDArray[np.int32]
    """[Q] dense user ids."""
    item: NDArray[np.int32]
    """[Q] held-out items, dense ids."""
    rank: NDArray[np.float64]
    """[Q] 1-based, tied candidates at their mean rank; infinite for an excluded item (a miss)."""
    ties: NDArray[np.int32]
    """[Q] other candidates with exactly the score of the held-out item."""
    history_length: NDArray[np.int32]
    """[Q] items in the history that the ranker was given."""
    item_count: NDArray[np.int32]
    """[Q] training interactions of the held-out item; 0: a cold item."""
    protocol: Mapping[str, object]
    """What was evaluated, and how: fingerprint, split, candidates, seen policy, rank of ties."""
    since_last: NDArray[np.int64] | None = None
    """[Q] seconds from the newest event of the history to the held-out one; None: not known: the
    corpus has no times, or numbers that only order events, or an earlier version wrote this."""
    attribute_bits: NDArray[np.int64] | None = None
    """[Q] bit a is set where the held-out item has attribute `attribute_names[a]`; None: not
    known."""
    attribute_names: tuple[str, ...] = ()
    """The attributes that most held-out items have, the most frequent first."""

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def ranking(self) -> NDArray[np.int64]:
        """int64 [Q]: which ranking of items each held-out item was looked up in, user * 2^32 +
        length of the history: the items after one history of a user are ranked once."""
        return (self.user.astype(np.int64) << 32) + self.history_length

    def has_attribute(self, place: int) -> NDArray[np.bool_]:
        """bool [Q]: whether the held-out item has attribute `attribute_names[place]`."""
        assert self.attribute_bits is not None, "a table without bits names no attribute"
        has_Q: NDArray[np.bool_] = (self.attribute_bits >> place) & 1 > 0
        return has_Q

    def select(self, selected_Q: NDArray[np.bool_]) -> RankTable:
        """The table with only the held-out items where `selected_Q` is true."""
        columns = ((name, getattr(self, name)) for name in (*_COLUMNS, *_OPTIONAL_COLUMNS))
        return replace(
            self,
            **{name: column[selected_Q] for name, column in columns if column is not None},
        )

    def save(self, path: Path) -> None:
        """Write the table as `.npz`; a crash leaves no partly written file at `path`."""
        texts: dict[str, object] = {"protocol": dict(self.protocol)}
        if self.attribute_names:
            texts["attribute_names"] = self.attribute_names
        columns = (*_COLUMNS, *_OPTIONAL_COLUMNS)
        write_table(path, {name: getattr(self, name) for name in columns}, texts)

    @staticmethod
    def load(path: Path) -> RankTable:
        """Read a table that `save` wrote.

        `InputError` for a file that is missing, damaged, or holds numbers that no ranking gives.
        """
        with reading_table(path, "rank table") as stored:
            protocol = json_value(stored["protocol"])
            if set(_COLUMNS) - set(stored.files) == {"item_count"}:
                raise InputError(
                    f"{path} was written by an earlier version and does not say how often its "
                    "items were trained on (item_count); `evaluate` cannot add it: remove the "
                    "run's folder and do the run again"
                )
            optional = {
                name: kind for name, kind in _OPTIONAL_COLUMNS.items() if name in stored.files
            }
            expected = {**_COLUMNS, **optional}
            columns = {name: np.asarray(stored[name]) for name in expected}
            has_names = "attribute_names" in stored.files
            names = json_value(stored["attribute_names"]) if has_names else []
        shapes = {column.shape for column in columns.values()}
        types = {name: column.dtype.name for name, column in columns.items()}
        if types != expected or shapes != {(len(columns["rank"]),)}:
            raise InputError(f"{path} is not a rank table (columns {types} of shapes {shapes})")
        if not isinstance(protocol, dict):
            raise InputError(f"{path} is not a rank table (its protocol is {protocol!r:.100})")
        most_names = MAX_ATTRIBUTES if "attribute_bits" in columns else 0
        if not _are_texts(names, most_names):
            raise InputError(f"{path} is not a rank table (its attributes are {names!r:.100})")
        table = RankTable(**columns, protocol=protocol, attribute_names=tuple(names))
        if not _is_possible(table):
            raise InputError(f"{path} is not a rank table (no ranking gives such ranks or counts)")
        return table


def _are_texts(names: object, most: int) -> TypeGuard[list[str]]:
    """Whether `names` is a list of at most `most` texts."""
    if not isinstance(names, list) or len(names) > most:
        return False
    return all(isinstance(name, str) for name in names)


def group_starts(*sorted_columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """The first row of each group of rows that are equal in all of the columns: int64 [G].

    The columns, [N] each, are sorted so that equal rows are neighbours.
    """
    changes = [column[1:] != column[:-1] for column in sorted_columns]
    begins = np.ones(len(sorted_columns[0]), dtype=bool)
    begins[1:] = np.logical_or.reduce(changes)
    return np.flatnonzero(begins)


def _is_possible(table: RankTable) -> bool:
    """Whether the numbers of a table can come from a ranking, as the metrics assume."""
    if len(table) == 0 or not (table.rank >= 1.0).all():
        return False
    if min(column.min() for column in (table.user, table.item, table.ties)) < 0:
        return False
    if min(table.history_length.min(), table.item_count.min()) < 0:
        return False
    # A group of tied candidates begins at a whole place, 1 or later.
    first = (table.rank - table.ties / 2)[np.isfinite(table.rank)]
    if not ((first >= 1.0) & (first == np.floor(first))).all():
        return False
    # Held-out items that share a mean rank in a ranking take places around it, none before place 1.
    ranking = table.ranking
    order = np.lexsort((table.rank, ranking))
    ranks = table.rank[order]
    starts = group_starts(ranking[order], ranks)
    sizes = np.diff(np.r_[starts, len(ranks)])
    return bool((ranks[starts] - (sizes - 1) / 2 >= 1.0).all())
