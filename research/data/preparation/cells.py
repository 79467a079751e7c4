"""The cells of a column as text: distinct values and their positions, for single values and lists.

`items.py` makes attributes and titles of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.times import Where
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The values of a column; a cell that is a list has several."""

    rows: NDArray[np.int64]
    """[M]: the row of each value, from 0."""
    codes: NDArray[np.int64]
    """[M]: the position of each value in `texts`; -1 for null."""
    texts: list[str]
    """The distinct values."""
    in_lists: bool
    """Whether the cells are lists."""


def cells_of(column: pa.ChunkedArray, name: str, where: Where) -> Cells:
    """The values of a column of text, numbers, dates, true and false, or lists of these.

    Text is as written; lists in lists are one list. Raises `InputError` for other types.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = np.arange(len(values), dtype=np.int64)
    in_lists = False
    while is_list(values.type):
        in_lists = True
        rows = rows[np.asarray(pc.list_parent_indices(values)).astype(np.int64)]
        values = pc.list_flatten(values)
    if pa.types.is_nested(values.type):
        raise InputError(
            f"{where(0)}: column {name!r} holds {values.type}; allowed are text, numbers, dates, "
            "and lists of these. Name another with --attribute-columns or --title-column."
        )
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    if isinstance(values, pa.ChunkedArray):
        values = values.unify_dictionaries().combine_chunks()
    distinct = values.dictionary
    if pa.types.is_floating(distinct.type) or pa.types.is_decimal(distinct.type):
        texts = [None if v is None else _number_text(v) for v in distinct.to_pylist()]
    else:
        texts = _texts(distinct, name, where)
    codes = np.asarray(values.indices.fill_null(-1)).astype(np.int64)
    missing = np.array([text is None for text in texts], dtype=np.bool_)
    if missing.any():
        codes[codes >= 0] = np.where(missing[codes[codes >= 0]], -1, codes[codes >= 0])
    # A dictionary may hold a text twice.
    position: dict[str, int] = {}
    new = [position.setdefault(text or "", len(position)) for text in texts]
    if len(position) < len(texts):
        codes[codes >= 0] = np.array(new, dtype=np.int64)[codes[codes >= 0]]
    return Cells(rows=rows, codes=codes, texts=list(position), in_lists=in_lists)


def is_list(kind: pa.DataType) -> bool:
    """Whether Arrow's type is one of those of lists, apart from views."""
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _texts(distinct: pa.Array, name: str, where: Where) -> list[str | None]:
    import pyarrow as pa

    try:
        texts: list[str | None] = distinct.cast(pa.string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            f"{where(0)}: column {name!r} holds {distinct.type} that is no text ({error!s:.100})."
        ) from error
    return texts


def _number_text(value: object) -> str:
    """A number without the point of a whole one, so that 4.0 in one file is 4 in another."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return f"{value}"


def numbers_of(texts: Iterable[str]) -> dict[str, float]:
    """Those of the texts that are finite numbers, and their values."""
    numbers = {text: float(text) for text in texts if _NUMBER.fullmatch(text)}
    return {text: number for text, number in numbers.items() if math.isfinite(number)}
