"""The files of a corpus: arrays are written, mapped into memory, hashed and checked.

`research/data/corpus.py` knows which files a corpus has. A corpus is untrusted input: nothing is
unpickled, and each check raises an `InputError` that names the file.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from research.data.names import Names
from research.errors import InputError, path_in_errors

_HASHED_AT_ONCE = 1 << 24
# Rows of a matrix that are read at once.
ROWS_AT_ONCE = 1 << 14
# What numpy may raise for a damaged or hostile header, as it parses headers as Python literals.
READ_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, OSError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)
Arrays = dict[str, NDArray[np.generic]]


def canonical_json(value: object) -> str:
    """JSON text with sorted keys and no spaces; `ValueError` for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(text: str, arrays: Sequence[NDArray[np.generic]]) -> str:
    """SHA-256 (hex) of the text, followed by the bytes of each array in order."""
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        numbers = array.reshape(-1)
        for start in range(0, len(numbers), _HASHED_AT_ONCE):
            chunk = np.ascontiguousarray(numbers[start : start + _HASHED_AT_ONCE])
            digest.update(chunk.data)
    return digest.hexdigest()


def write_files(folder: Path, arrays: Arrays, manifest: Mapping[str, object]) -> None:
    """Write each array as NAME.npy and the manifest as manifest.json into `folder`."""
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with path_in_errors(path):
            np.save(path, array, allow_pickle=False)
    path = folder / "manifest.json"
    with path_in_errors(path):
        path.write_text(json.dumps(manifest, indent=2, allow_nan=False), encoding="utf-8")


def map_array(path: Path, dtype: str, dimensions: int = 1) -> NDArray[np.generic]:
    """The array of a .npy file of 1 or 2 dimensions, mapped into memory and not read.

    Raises `InputError` if the file is missing, is damaged or has another type or shape.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing. The corpus is incomplete; prepare it again.")
    try:
        # Unlike np.load this opens .npy files only, and neither archives nor pickles.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.lib.format.open_memmap(path, mode="r")
    except READ_ERRORS as error:
        raise InputError(
            f"{path}: not a complete .npy file ({error}). Prepare it again."
        ) from error
    if array.ndim != dimensions or array.dtype.str != dtype or not array.flags.c_contiguous:
        expected = "one dimension" if dimensions == 1 else "two dimensions, row by row"
        raise InputError(
            f"{path}: {array.ndim}-dimensional {array.dtype.str}; expected {expected}, {dtype}."
        )
    size = path.stat().st_size
    if array.offset + array.nbytes != size:
        raise InputError(f"{path}: {size} bytes, more than its header says. Prepare it again.")
    return array


def check_ends(path: Path, offsets: NDArray[np.generic], total: int) -> None:
    """Raise `InputError` unless the offsets begin with 0 and end with `total`."""
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != total:
        raise InputError(f"{path}: must run from 0 to {total}. Prepare the corpus again.")


def check_range(path: Path, ids: NDArray[np.int32], count: int) -> None:
    """Raise `InputError` unless every id is in 0..count - 1."""
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise InputError(f"{path}: ids from {ids.min()} to {ids.max()}; allowed 0 to {count - 1}.")


def check_finite(path: Path, vectors: NDArray[np.float32]) -> None:
    """Raise `InputError` unless every number of a matrix is finite."""
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        bad = np.flatnonzero(~np.isfinite(vectors[first : first + ROWS_AT_ONCE]).all(axis=1))
        if len(bad):
            raise InputError(f"{path}: row {first + int(bad[0])} has a number that is not finite.")


def check_offsets(path: Path, offsets: NDArray[np.int64]) -> None:
    """Raise `InputError` if an offset is smaller than the one before it."""
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        raise InputError(f"{path}: entry {falls[0] + 1} is smaller than the one before it.")


def check_ascending(
    path: Path,
    values: NDArray[np.generic],
    offsets: NDArray[np.int64],
    *,
    strictly: bool,
) -> None:
    """Raise `InputError` unless values ascend within each row of the CSR pair (values, offsets).

    Equal neighbours are allowed unless `strictly`.
    """
    falls = np.less_equal(values[1:], values[:-1])
    if not strictly:
        falls = np.less(values[1:], values[:-1])
    starts = offsets[(offsets > 0) & (offsets < len(values))]
    falls[starts - 1] = False
    if falls.any():
        raise InputError(
            f"{path}: entry {np.flatnonzero(falls)[0] + 1} is out of order in its row."
        )


def check_names(path: Path, names: Names, *, unique: bool) -> None:
    """Raise `InputError` unless every name is UTF-8 and, where `unique`, occurs only once."""
    try:
        decoded = list(names)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a name is not UTF-8 ({error}).") from error
    if unique and len(set(decoded)) != len(decoded):
        raise InputError(f"{path}: a name occurs twice.")
