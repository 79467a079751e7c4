"""Files and folders that appear whole or not at all, whatever ends the process that writes them.

Each is filled under a hidden name beside its place, brought to the disk, and then renamed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from research.errors import naming


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to fill that becomes `path` when the block ends; until then the old one stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A new folder to fill, which is renamed to `folder` when the block ends.

    What already lies at `folder` is kept, and the new folder removed. With `replaces` the old one
    steps aside instead, as `.NAME.previous`, so that at every moment one of the two can be found.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir()
        yield partial
        for path in (*partial.rglob("*"), partial):
            flush(path)
        if replaces:
            _swap(partial, folder)
        else:
            _rename(partial, folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _swap(partial: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one.
    previous = folder.with_name(f".{folder.name}.previous")
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def flush(path: Path) -> None:
    """Bring a file, or the list of a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
