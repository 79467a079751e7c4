"""A hash of columns in memory, which takes the place of the checksums of files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, final

import numpy as np

from research.data.preparation.arrow_columns import is_list, is_text

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 1 << 16


def digest_of_columns(table: pa.Table) -> str:
    """SHA-256 (hex) of the names, types and cells of the columns.

    It is the same for any chunks, and for text in any of Arrow's types. What a null covers does not
    enter.
    """
    digest = hashlib.sha256()
    for name in table.column_names:
        column = _ColumnDigest()
        # Only a slice at a time is copied.
        for batch in table.select([name]).to_batches(max_chunksize=_ROWS_AT_ONCE):
            column.add(batch.column(0))
        digest.update(repr((name, table.num_rows, column.parts())).encode())
    return digest.hexdigest()


@final
class _ColumnDigest:
    """Hashes of a column: of which cells are null, of lengths and of values, each by itself."""

    def __init__(self) -> None:
        self._hashes: dict[str, hashlib._Hash] = {}

    def parts(self) -> list[tuple[str, str]]:
        """What was hashed, and its hash."""
        return [(what, digest.hexdigest()) for what, digest in self._hashes.items()]

    def add(self, cells: pa.Array, inside: str = "") -> None:
        """Hash further cells."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = cells.type
        if pa.types.is_dictionary(kind):
            return self.add(cells.cast(kind.value_type), inside)
        self._update(f"{inside}null", np.asarray(cells.is_null()).astype(np.uint8))
        if is_list(kind):
            lengths = np.asarray(pc.list_value_length(cells).fill_null(0)).astype(np.int64)
            self._update(f"{inside}lengths", lengths)
            return self.add(pc.list_flatten(cells), f"{inside}list of ")
        if pa.types.is_temporal(kind):
            # Their integers, without a calendar.
            cells = cells.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        elif is_text(kind):
            cells = cells.cast(pa.large_string())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            cells = _as_text(cells)
        text = cells.drop_null()
        if not is_text(text.type):
            return self._update(f"{inside}{kind}", text.to_numpy(zero_copy_only=False))
        lengths = np.asarray(pc.binary_length(text)).astype(np.int64)
        self._update(f"{inside}text lengths", lengths)
        _, offsets, characters = text.buffers()
        if characters is None or not len(text):
            return None
        bounds = np.frombuffer(offsets, dtype=np.int64)
        start, stop = bounds[text.offset], bounds[text.offset + len(text)]
        return self._update(f"{inside}text", np.frombuffer(characters, np.uint8)[start:stop])

    def _update(self, what: str, values: np.ndarray) -> None:
        digest = self._hashes.setdefault(what, hashlib.sha256())
        digest.update(np.ascontiguousarray(values).data)


def _as_text(cells: pa.Array) -> pa.Array:
    import pyarrow as pa

    try:
        return cells.cast(pa.string()).cast(pa.large_string())
    except pa.ArrowNotImplementedError:
        # No column of structs or the like is ever read; who reads them says so, by name.
        texts = [None if value is None else str(value) for value in cells.to_pylist()]
        return pa.array(texts, pa.large_string())
