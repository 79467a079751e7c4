"""The tidy events that every reader returns, and the parsing that readers share.

Delimited text goes through Arrow's parser; only when that fails does a slow pass over the lines
look for the one to blame. Ids leave here as positions in a list of names whose order becomes the
order of the corpus ids.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError

if TYPE_CHECKING:
    pass


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Interactions as they stand in the file, one row each."""

    users: NDArray[np.int32]
    """[N] positions in `user_names`."""
    items: NDArray[np.int32]
    """[N] positions in `item_names`."""
    user_names: Sequence[str]
    """Raw user ids, in the order that the corpus keeps."""
    item_names: Sequence[str]
    """Raw item ids, in the order that the corpus keeps."""
    timestamps: NDArray[np.int64] | None = None
    """[N]; None: no times, the order of the file is the order."""
    ratings: NDArray[np.float64] | None = None
    """[N]; None: the source has none, or nobody asked for them."""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Raw item id -> attribute names; items without events may stand here."""
    attribute_file: Path | None = None
    """Where the attributes come from; None: the source has none."""
    titles: Mapping[str, str] | None = None
    """Raw item id -> title; None: the source has none."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What the reader counted on its way, for the report."""


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Raw files that were found, and how to read them."""

    name: str
    """What the corpus is called."""
    files: tuple[Path, ...]
    """Every file that is read; their checksums go into the cache key."""
    read: Callable[[], Events]
    """Reads them."""


def need_file(path: Path) -> Path:
    """The path, if a file with something in it lies there."""
    # Unlike a Path's own, these questions have an answer for a name that no disk takes.
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder; a file is needed here.")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty.")
    return path
