"""`InputError`, the exception for a user's mistake, and the messages of disk errors.

The command line catches `InputError`, prints its message and exits with 2. An error of the disk
(`OSError`) is shown with a remedy. Any other exception means a bug of ours.
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
def path_in_errors(path: Path) -> Iterator[None]:
    """Add this path to an `OSError` raised within that names no file, as errors of writing do."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


@contextmanager
def optional_import(packages: tuple[str, ...], what: str, remedy: str) -> Iterator[None]:
    """Raise `InputError` where an import within fails because one of `packages` is missing.

    Its message is "`what` needs NAME, which is not installed; `remedy`".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        raise InputError(f"{what} needs {error.name}, which is not installed; {remedy}") from error


def extra_remedy(extra: str) -> str:
    """How the packages of an optional part are installed: an extra of the project's metadata.

    The project is installed from its checkout or from a wheel, so that a name alone finds nothing.
    """
    return (
        f"install the extra {extra}: pip install '.[{extra}]' in the checkout, or the wheel that "
        f"was installed, once more, as 'FILE.whl[{extra}]'"
    )


def disk_error_message(error: OSError) -> str:
    """The message of a disk error, with what to do about it where that is known."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error}; {remedy}, and run the same command again" if remedy else str(error)
