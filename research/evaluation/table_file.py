"""Files of arrays with a protocol (`.npz`), which rank tables and list tables are kept in.

They are read as untrusted input: nothing is unpickled, and a file that unpacks to far more than its
size is refused. What the arrays may hold, the tables check themselves.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from research.errors import InputError
from research.storage.atomic import replacing
from research.storage.untrusted import parse_json

# Unpacked size in bytes that is always allowed, and the compression ratio above which a larger
# table is refused (a zip bomb).
_ALWAYS_ALLOWED = 1 << 26
_MAX_COMPRESSION = 100
# What numpy and zipfile raise for a file that is damaged or is not a table.
_READ_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, MemoryError, OverflowError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)


def write_table(
    path: Path, arrays: Mapping[str, NDArray[np.generic] | None], texts: Mapping[str, object]
) -> None:
    """Write arrays (without those that are None), and values as JSON text, as `.npz`.

    A crash leaves no partly written file.
    """
    stored = {name: array for name, array in arrays.items() if array is not None}
    stored |= {name: np.array(json.dumps(value, sort_keys=True)) for name, value in texts.items()}
    with replacing(path) as file:
        # The stubs take a name of an array for an option.
        save: Callable[..., None] = np.savez_compressed
        save(file, **stored)


@contextmanager
def reading_table(path: Path, what: str) -> Iterator[NpzFile]:
    """The arrays of a file that `write_table` wrote, by name; `json_value` reads a text of it.

    `InputError` for a file that is missing or damaged, and for an array that is missing; `what`
    says in the message what the file should be.
    """
    try:
        _check_sizes(path, what)
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            np.load(file, allow_pickle=False) as stored,
        ):
            warnings.simplefilter("error")
            yield stored
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except _READ_ERRORS as error:
        raise InputError(f"{path} is not a {what} ({error!s:.300})") from error


def json_value(text: NDArray[np.generic]) -> object:
    """The value of a JSON text as a file holds it, an array of no axis; `ValueError` if damaged."""
    # numpy makes a str of any numbers, even of invalid code points; `decode` refuses those.
    checked = np.asarray(text).astype("<U", casting="equiv", copy=False)
    return parse_json(checked.tobytes().decode("utf-32-le").rstrip("\0"))


def _check_sizes(path: Path, what: str) -> None:
    """Raise `InputError` for a path that is no file, and for a zip bomb."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a {what} (it is not a file)")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        compression_methods = {member.compress_type for member in archive.infolist()}
    if size > max(_ALWAYS_ALLOWED, _MAX_COMPRESSION * path.stat().st_size):
        raise InputError(f"{path} is not a {what} (it unpacks to {size:,} bytes)")
    if not compression_methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(f"{path} is not a {what} (it is compressed by another method)")
