"""Finds the raw files that a user means by a path: a file, a folder, or a pattern of names."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from research.data.preparation.compression import plain_suffix, without_compression
from research.errors import InputError


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


def find_files(raw: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    """The file `raw`; every file of the folder `raw` and of the folders in it; or what it matches.

    In a folder only files whose names end in one of `suffixes` count, apart from the ending of a
    compression, and none whose name, or whose folder's, begins with a dot or an underscore. A
    pattern has `*`, `?` or `[`. Files are in the order of their paths. Raises `InputError` if there
    is none, or if one is empty.
    """
    if os.path.isdir(raw):
        found = [
            path
            for path in sorted(raw.rglob("*"))
            if plain_suffix(path) in suffixes
            and path.is_file()
            and not any(part.startswith((".", "_")) for part in path.relative_to(raw).parts)
        ]
        if not found:
            raise InputError(f"{raw}: the folder holds no {' or '.join(suffixes)} file.")
        unpacked: dict[Path, Path] = {}
        for path in found:
            other = unpacked.setdefault(without_compression(path), path)
            if other != path:
                raise InputError(
                    f"{raw}: {other.name} and {path.name} would be one file if unpacked, and its "
                    "events would count twice. Remove one of them, or name the other."
                )
    elif any(letter in str(raw) for letter in "*?[") and not os.path.isfile(raw):
        found = [Path(name) for name in sorted(glob.glob(str(raw), recursive=True))]
        if not found:
            raise InputError(f"{raw}: no file matches this pattern.")
    else:
        found = [raw]
    return tuple(require_file(path) for path in found)
