"""The files of a corpus: arrays that are mapped into memory, checked, and hashed."""

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
from research.errors import InputError, naming

_HASHED_AT_ONCE = 1 << 24
# What numpy raises for a header that is damaged or hostile: it reads headers as Python literals.
_NO_ARRAY: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, OSError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)
Arrays = dict[str, NDArray[np.generic]]


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces; a NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(text: str, arrays: Sequence[NDArray[np.generic]]) -> str:
    """SHA-256 (hex) of the text and then the bytes of each array."""
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        for start in range(0, len(array), _HASHED_AT_ONCE):
            chunk = np.ascontiguousarray(array[start : start + _HASHED_AT_ONCE])
            digest.update(chunk.data)
    return digest.hexdigest()


def write_files(folder: Path, arrays: Arrays, manifest: Mapping[str, object]) -> None:
    """One .npy file an array and manifest.json."""
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with naming(path):
            np.save(path, array, allow_pickle=False)
    path = folder / "manifest.json"
    with naming(path):
        path.write_text(json.dumps(manifest, indent=2, allow_nan=False), encoding="utf-8")


def map_array(path: Path, dtype: str) -> NDArray[np.generic]:
    """The one-dimensional array of a .npy file, mapped, not read; InputError names the file."""
    if not path.is_file():
        raise InputError(f"{path}: missing. The corpus is incomplete; prepare it again.")
    try:
        # Unlike np.load this reads nothing but .npy: no archive, no pickle.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.lib.format.open_memmap(path, mode="r")
    except _NO_ARRAY as error:
        raise InputError(f"{path}: not a whole .npy file ({error}). Prepare it again.") from error
    if array.ndim != 1 or array.dtype.str != dtype:
        raise InputError(
            f"{path}: {array.ndim}-dimensional {array.dtype.str}; expected one dimension, {dtype}."
        )
    size = path.stat().st_size
    if array.offset + array.nbytes != size:
        raise InputError(f"{path}: {size} bytes, more than its header says. Prepare it again.")
    return array


def check_ends(path: Path, offsets: NDArray[np.generic], total: int) -> None:
    """InputError unless the offsets start at 0 and end at `total`."""
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != total:
        raise InputError(f"{path}: must run from 0 to {total}. Prepare the corpus again.")


def check_range(path: Path, ids: NDArray[np.int32], count: int) -> None:
    """InputError unless every id is in 0 ... count - 1."""
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise InputError(f"{path}: ids from {ids.min()} to {ids.max()}; allowed 0 to {count - 1}.")


def check_offsets(path: Path, offsets: NDArray[np.int64]) -> None:
    """InputError unless the offsets never fall."""
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
    """InputError unless the values ascend within every row of the CSR pair (values, offsets)."""
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
    """InputError unless every name is UTF-8 and, where asked, stands only once."""
    try:
        known = list(names)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a name is not UTF-8 ({error}).") from error
    if unique and len(set(known)) != len(known):
        raise InputError(f"{path}: a name stands twice.")
