"""The one exception for a user's mistake, and what is said of a disk.

Every other exception is ours: it means a bug. The command line catches this one, prints its
message and exits with 2.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or ask for a larger quota",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "ask for the right to write there",
    errno.EPERM: "ask for the right to write there",
}


class InputError(Exception):
    """A user's mistake; the message says what was given, what is allowed and what to do."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk within names this file if it names none, as those of writing do not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        said = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, said, str(path)) from error


@contextmanager
def needing(packages: tuple[str, ...], what: str, remedy: str) -> Iterator[None]:
    """Turn a missing package of `packages`, imported within, into an `InputError` that names it.

    Its message is "`what` needs NAME, which is not installed; `remedy`".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        raise InputError(f"{what} needs {error.name}, which is not installed; {remedy}") from error


def said_of(error: OSError) -> str:
    """An error of the disk, with what to do about it."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error}; {remedy}, and do the same command again" if remedy else str(error)
