"""Finds the raw files that a user means by a path: a file, a folder, or a pattern of names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from research.data.preparation.compression import (
    plain_suffix,
    with_compressions,
    without_compression,
)
from research.errors import InputError

# Endings of compressions and archives that are not unpacked here.
_NOT_UNPACKED = (".xz", ".lzma", ".lz4", ".br", ".lzo", ".sz", ".z", ".7z", ".rar", ".tar", ".tgz")
# Hadoop writes a checksum of this ending beside each file.
_CHECKSUM = ".crc"
_FILES_NAMED = 5


@final
@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """The files that a path stands for."""

    paths: tuple[Path, ...]
    """The files, in the order of their names; none is empty."""
    warnings: tuple[str, ...] = ()
    """Which files of the folder are not read."""

    def order_warnings(self, timestamp_column: str | None) -> tuple[str, ...]:
        """A warning if the files' names decide the order of events, as there are no times."""
        if timestamp_column is not None or len(self.paths) < 2:
            return ()
        return (
            f"no times are read, so the order of {len(self.paths):,} files decides the order of "
            f"events: first {self.paths[0].name}, last {self.paths[-1].name}.",
        )


def require_file(path: Path) -> Path:
    """The path itself; `InputError` unless it leads to a file that is not empty."""
    # Unlike the methods of Path, these functions do not raise for a name that no disk can have.
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder; a file is needed here.")
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty.")
    return path


def find_beside(path: Path) -> Path | None:
    """The file of this path or a compressed form of it; None if there is neither.

    Raises `InputError` if there are several.
    """
    found = with_compressions(path)
    if not found:
        return None
    require_each_once(path.parent, found)
    return require_file(found[0])


def find_files(raw: Path, suffixes: Sequence[str]) -> FoundFiles:
    """The file `raw`; every file of the folder `raw` and of the folders in it; or what it matches.

    In a folder only files whose names end in one of `suffixes` count, in small letters or capitals
    and apart from the ending of a compression, and none whose name, or whose folder's, begins with
    a dot or an underscore; a warning names the others. A pattern has `*`, `?` or `[`. Files are in
    the order of their paths, in which digits count as numbers: `part-2` is before `part-10`. Raises
    `InputError` if there is none, if one is empty, or if one is there twice or cannot be unpacked.
    """
    warnings: tuple[str, ...] = ()
    if os.path.isdir(raw):
        visible = [
            path
            for path in sorted(raw.rglob("*"), key=_natural_order)
            if path.is_file()
            and not any(part.startswith((".", "_")) for part in path.relative_to(raw).parts)
        ]
        found = [path for path in visible if plain_suffix(path) in suffixes]
        others = [path for path in visible if plain_suffix(path) not in suffixes]
        _require_unpacked(others, suffixes)
        if not found:
            raise InputError(f"{raw}: the folder holds no {' or '.join(suffixes)} file.")
        warnings = _not_read(raw, others, suffixes)
    elif any(letter in str(raw) for letter in "*?[") and not os.path.isfile(raw):
        matches = (Path(name) for name in glob.glob(str(raw), recursive=True))
        found = sorted(matches, key=_natural_order)
        if not found:
            raise InputError(f"{raw}: no file matches this pattern.")
    else:
        found = [raw]
    require_each_once(raw, found)
    return FoundFiles(paths=tuple(require_file(path) for path in found), warnings=warnings)


def _natural_order(path: Path) -> tuple[list[list[str | int]], Path]:
    """A key that sorts paths with the digits in them as numbers."""
    # Text and digits alternate, so that a number never meets a text.
    parts = [re.split("([0-9]+)", part) for part in path.parts]
    return [[int(text) if i % 2 else text for i, text in enumerate(part)] for part in parts], path


def require_each_once(raw: Path, paths: Sequence[Path]) -> None:
    """Raise `InputError` if two of the paths, which `raw` stands for, are one file if unpacked."""
    unpacked: dict[Path, Path] = {}
    for path in paths:
        other = unpacked.setdefault(without_compression(path), path)
        if other != path:
            raise InputError(
                f"{raw}: {other.name} and {path.name} would be one file if unpacked, and its "
                "events would count twice. Remove one of them, or name the other."
            )


def _require_unpacked(others: Sequence[Path], suffixes: Sequence[str]) -> None:
    for path in others:
        if path.suffix.lower() in _NOT_UNPACKED and Path(path.stem).suffix.lower() in suffixes:
            raise InputError(
                f"{path}: {path.suffix} is not unpacked here, and its events would be missing. "
                "Unpack the file, or move it out of the folder."
            )


def _not_read(raw: Path, others: Sequence[Path], suffixes: Sequence[str]) -> tuple[str, ...]:
    names = [str(path.relative_to(raw)) for path in others if path.suffix.lower() != _CHECKSUM]
    if not names:
        return ()
    more = f" and {len(names) - _FILES_NAMED:,} more" if len(names) > _FILES_NAMED else ""
    return (
        f"{len(names):,} files of the folder are not read, as their names do not end in "
        f"{' or '.join(suffixes)}: {', '.join(names[:_FILES_NAMED])}{more}.",
    )
