"""`Names`: the names of a corpus's users, items and attributes, as one block of UTF-8 bytes.

A million Python strings would have to be loaded at every start. The block and its offsets are
mapped into memory instead, and a name is decoded when it is used.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError

# difflib compares about 100,000 names a second; with more candidates an error message would stall.
_MAX_COMPARED_NAMES = 20_000
_MAX_COMPARED_LENGTH = 60


@final
class Names:
    """An immutable sequence of strings: `blob` (uint8, UTF-8) cut at `offsets` (int64, n + 1)."""

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.blob = blob
        self.offsets = offsets
        self._positions: dict[str, int] | None = None

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> Names:
        """The names `strings`, in their order."""
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
        return name in self._positions_by_name()

    def index(self, name: str) -> int:
        """The position of `name`, the first one if it repeats; `InputError` if there is none."""
        position = self._positions_by_name().get(name)
        if position is None:
            raise InputError(
                f"{name!r} is not among the {len(self):,} names.{self._suggestion(name)}"
            )
        return position

    def _positions_by_name(self) -> dict[str, int]:
        if self._positions is None:
            table: dict[str, int] = {}
            for position, name in enumerate(self):
                table.setdefault(name, position)
            self._positions = table
        return self._positions

    def _suggestion(self, name: str) -> str:
        # The time of a comparison grows with the square of the length, so no name is compared with
        # a long one (-3 is more than 2 away from every length).
        length = len(name) if len(name) <= _MAX_COMPARED_LENGTH else -3
        similar_length = (
            candidate
            for candidate in self._positions_by_name()
            if abs(len(candidate) - length) <= 2
        )
        candidates = list(islice(similar_length, _MAX_COMPARED_NAMES))
        close = difflib.get_close_matches(name, candidates)
        label = "Similar names" if close else "Existing names, for example"
        names = ", ".join(
            repr(candidate) for candidate in close or islice(self._positions_by_name(), 3)
        )
        return f" {label}: {names}." if names else ""
