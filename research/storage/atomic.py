"""Atomic writes: a file or folder appears whole or not at all, even if the process is killed.

It is filled under a hidden name in the same folder, flushed to the disk, and then renamed. All that
runs, studies and checkpoints write goes through here, but for lines appended to a log.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from research.errors import path_in_errors


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for the block to fill; when the block ends, it becomes `path`.

    Until then an older file at `path` is untouched, and it stays if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with path_in_errors(path):
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
    """Make a new folder for the block to fill; when the block ends, it is renamed to `folder`.

    If `folder` exists by then, it is kept and the new one removed. With `replaces` the old folder
    is replaced: it is first renamed to `.NAME.previous`, so that at every moment one of the two is
    on the disk. If the block raises, the new folder is removed.
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
    # A folder cannot be renamed over one that is not empty.
    previous = folder.with_name(f".{folder.name}.previous")
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of entries, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with path_in_errors(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
