"""What is known of a public data set: its size, where it is, and the options that read it.

`datasets.py` holds all of them by name. What no source tells is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from research.data.preparation.options import PrepareConfig


@final
@dataclass(frozen=True, kw_only=True)
class Size:
    """The counts of a data set as a source tells them."""

    source: str
    """Where the counts are from."""
    users: int | None = None
    """Number of users, or of sessions where the data set has no users."""
    items: int | None = None
    """Number of items."""
    events: int | None = None
    """Number of interactions."""
    is_rounded: bool = False
    """Whether the source rounds the counts."""


@final
@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A public data set, and how to read it."""

    name: str
    """Name of the data set on the command line."""
    about: str
    """What it is, in one line."""
    page: str
    """Address of a page where a person finds the data set and its terms."""
    files: tuple[str, ...]
    """File names: the one that is read, then those that describe items or belong to it."""
    options: PrepareConfig
    """The format of the first file, and its options; `rating_column` holds where ratings are."""
    size: Size | None = None
    """Its counts; None: no source tells them."""
    attributes: str | None = None
    """What describes items, and in which file; None: nothing that is read."""
    license: str | None = None
    """Licence or terms as the source states them; None: the source states none, or could not be
    looked up."""
    archive: str | None = None
    """Address of the file, or of the archive with it; None: only the page is known."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Checksums by file name, as `algorithm:hexadecimal`."""
    is_downloaded: bool = False
    """Whether `prepare` downloads it; if not, a person must place the file."""
