"""The rank table: one row for each held-out item, with its rank among the candidates.

`ranking.py` makes it, and a run folder keeps it as `.npz`. All metrics, slices and tests are
computed from it. A file is read as untrusted input.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.storage.atomic import replacing
from research.storage.untrusted import parse_json

# Unpacked size in bytes that is always allowed, and the compression ratio above which a larger
# table is refused (a zip bomb).
_ALWAYS_ALLOWED = 1 << 26
_MAX_COMPRESSION = 100
_COLUMNS = {
    "user": "int32", "item": "int32", "rank": "float64",
    "ties": "int32", "history_length": "int32", "item_count": "int32",
}  # fmt: skip
# What numpy and zipfile raise for a file that is damaged or is not a rank table.
_READ_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, MemoryError, OverflowError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)


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

    def __len__(self) -> int:
        return len(self.rank)

    def save(self, path: Path) -> None:
        """Write the table as `.npz`; a crash leaves no partly written file at `path`."""
        with replacing(path) as file:
            np.savez_compressed(
                file,
                user=self.user,
                item=self.item,
                rank=self.rank,
                ties=self.ties,
                history_length=self.history_length,
                item_count=self.item_count,
                protocol=np.array(json.dumps(dict(self.protocol), sort_keys=True)),
            )

    @staticmethod
    def load(path: Path) -> RankTable:
        """Read a table that `save` wrote.

        `InputError` for a file that is missing, damaged, or holds numbers that no ranking gives.
        """
        try:
            _check_sizes(path)
            with (
                path.open("rb") as file,
                warnings.catch_warnings(),
                np.load(file, allow_pickle=False) as stored,
            ):
                warnings.simplefilter("error")
                # numpy makes a str of any numbers, even of invalid code points; `decode` refuses
                # those.
                text = np.asarray(stored["protocol"]).astype("<U", casting="equiv", copy=False)
                protocol = parse_json(text.tobytes().decode("utf-32-le").rstrip("\0"))
                if set(_COLUMNS) - set(stored.files) == {"item_count"}:
                    raise InputError(
                        f"{path} was written by an earlier version and does not say how often its "
                        "items were trained on (item_count); `evaluate` cannot add it: remove the "
                        "run's folder and do the run again"
                    )
                columns = {name: np.asarray(stored[name]) for name in _COLUMNS}
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist") from error
        except _READ_ERRORS as error:
            raise InputError(f"{path} is not a rank table ({error!s:.300})") from error
        shapes = {column.shape for column in columns.values()}
        types = {name: column.dtype.name for name, column in columns.items()}
        if types != _COLUMNS or shapes != {(len(columns["rank"]),)}:
            raise InputError(f"{path} is not a rank table (columns {types} of shapes {shapes})")
        if not isinstance(protocol, dict):
            raise InputError(f"{path} is not a rank table (its protocol is {protocol!r:.100})")
        table = RankTable(**columns, protocol=protocol)
        if not _is_possible(table):
            raise InputError(f"{path} is not a rank table (no ranking gives such ranks or counts)")
        return table


def _check_sizes(path: Path) -> None:
    """Raise `InputError` for a path that is no file, and for a zip bomb."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a rank table (it is not a file)")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        compression_methods = {member.compress_type for member in archive.infolist()}
    if size > max(_ALWAYS_ALLOWED, _MAX_COMPRESSION * path.stat().st_size):
        raise InputError(f"{path} is not a rank table (it unpacks to {size:,} bytes)")
    if not compression_methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(f"{path} is not a rank table (it is compressed by another method)")


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
    # A user's held-out items that share a mean rank take places around it, none before place 1.
    order = np.lexsort((table.rank, table.user))
    ranks, users = table.rank[order], table.user[order]
    starts = group_starts(users, ranks)
    sizes = np.diff(np.r_[starts, len(ranks)])
    return bool((ranks[starts] - (sizes - 1) / 2 >= 1.0).all())
