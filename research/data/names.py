"""What a corpus folder is made of: names as one block of bytes, mapped arrays, one JSON object.

A million Python strings would be loaded at every start; a UTF-8 blob and its offsets are mapped
into memory instead, and decoded one name at a time. The corpus reads, writes and checks its files
with the functions below; they treat what they read as a stranger's.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from tokenize import TokenError
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError, naming

# difflib compares about 100,000 names a second; more candidates would stall an error message.
_CANDIDATES_FOR_NEAR_NAMES = 20_000
_LONGEST_NEAR_NAME = 60
_HASHED_AT_ONCE = 1 << 24

# What numpy raises for a header that is damaged or hostile: it reads headers as Python literals.
_NO_ARRAY: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, OSError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)

Arrays = dict[str, NDArray[np.generic]]


@final
class Names:
    """An immutable sequence of strings: `blob` (uint8, UTF-8) cut at `offsets` (int64, n + 1)."""

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.blob = blob
        self.offsets = offsets
        self._positions: dict[str, int] | None = None

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> Names:
        """The names in the order given."""
        encoded = [string.encode("utf-8") for string in strings]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside {len(self)} names")
        position = index % len(self)
        start, stop = int(self.offsets[position]), int(self.offsets[position + 1])
        return self.blob[start:stop].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        blob = self.blob.tobytes()
        bounds: list[int] = self.offsets.tolist()
        return (blob[start:stop].decode("utf-8") for start, stop in pairwise(bounds))

    def __contains__(self, name: object) -> bool:
        return name in self._table()

    def index(self, name: str) -> int:
        """The position of `name` (the first one, where names repeat); InputError if unknown."""
        position = self._table().get(name)
        if position is None:
            raise InputError(f"{name!r} is not among the {len(self):,} names.{self._near(name)}")
        return position

    def _table(self) -> dict[str, int]:
        if self._positions is None:
            table: dict[str, int] = {}
            for position, name in enumerate(self):
                table.setdefault(name, position)
            self._positions = table
        return self._positions

    def _near(self, name: str) -> str:
        # Long names take too long to compare, and the time grows with the square.
        length = len(name) if len(name) <= _LONGEST_NEAR_NAME else -3
        alike = (known for known in self._table() if abs(len(known) - length) <= 2)
        candidates = list(islice(alike, _CANDIDATES_FOR_NEAR_NAMES))
        near = difflib.get_close_matches(name, candidates)
        label = "Near names" if near else "Names there are, for example"
        shown = ", ".join(repr(known) for known in near or islice(self._table(), 3))
        return f" {label}: {shown}." if shown else ""


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
