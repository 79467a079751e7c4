"""The names of a corpus as a column of Arrow, without decoding them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research.data.names import Names

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_names(names: Names) -> pa.LargeStringArray:
    """The names as an array of Arrow on the same memory, which may be mapped from a file."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(names.offsets), pa.py_buffer(names.blob)]
    return pa.Array.from_buffers(pa.large_string(), len(names), buffers)
