"""What readers share: the `Source` that they return and the `Events` that it reads.

An id in `Events` is a position in a list of raw ids, whose order becomes that of the corpus's dense
ids. `prepare.py` filters the events and writes the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.items import Describe


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """The interactions of a source, in the order of the file, and what it says about items."""

    users: NDArray[np.int32]
    """[N]: the user of each interaction, as a position in `user_names`."""
    items: NDArray[np.int32]
    """[N]: the item of each interaction, as a position in `item_names`."""
    user_names: Sequence[str]
    """Raw user ids, in the order of the corpus's user ids."""
    item_names: Sequence[str]
    """Raw item ids, in the order of the corpus's item ids."""
    timestamps: NDArray[np.int64] | None = None
    """[N]: times in whole seconds; None: there are none, and the order of the file holds."""
    exact_times: NDArray[np.int64] | NDArray[np.float64] | None = None
    """[N]: numbers in the order of the times as the source gives them, which may be finer than
    seconds; None: that of `timestamps`."""
    ratings: NDArray[np.float64] | None = None
    """[N]: ratings; None: the source has none, or they were not asked for."""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute names by raw item id; items without interactions may be among them."""
    attribute_file: Path | None = None
    """The file that the attributes come from; None: the source has no attributes."""
    titles: Mapping[str, str] | None = None
    """Titles by raw item id; None: the source has no titles."""
    describe: Describe | None = None
    """What columns say about the items that are kept, in place of `attributes` and `titles` where
    it is not None; None: the source has no such columns."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """What the reader counted or left out, for the report of the corpus."""
    warnings: tuple[str, ...] = ()
    """What to tell the user, and to keep in the report."""


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """The raw files of a data set; nothing is parsed before `read` is called."""

    name: str
    """Name of the corpus."""
    files: tuple[Path, ...]
    """Every file that is read; their checksums enter the key of the corpus. None are for a source
    in memory."""
    read: Callable[[], Events]
    """Reads the files; raises `InputError` for what is wrong in them."""
    digest: str | None = None
    """A hash of what is read beside the content of files, for the key of the corpus: of columns in
    memory, of values in the names of folders. None: the files are all that is read."""
    warnings: tuple[str, ...] = ()
    """What to tell the user about the choice of files."""
