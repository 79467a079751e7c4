"""Raw ids from a column of cells: text exactly as it was written, and whole numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.times import EXACT_IN_FLOAT, Where
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def read_ids(
    cells: pa.ChunkedArray, column: str, where: Where
) -> tuple[NDArray[np.int32], list[str]]:
    """The position of each cell in the ids (int32 [N]), and the ids in order of first appearance.

    No cell is missing. Integers, and floats and decimals without a fraction, become text without a
    point. Raises `InputError` with `where` for any other value.
    """
    import pandas as pd
    import pyarrow as pa

    kind = cells.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        cells = _whole_numbers(cells, column, where)
        kind = cells.type
    if pa.types.is_integer(kind):
        codes, distinct = pd.factorize(cells.to_numpy())
        return codes.astype(np.int32), [str(value) for value in distinct.tolist()]
    if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
        return read_ids(cells.cast(kind.value_type), column, where)
    if not pa.types.is_dictionary(kind):
        cells = as_text(cells, column, where).dictionary_encode()
    combined = cells.unify_dictionaries().combine_chunks()
    try:
        names: list[str] = combined.dictionary.to_pylist()
    except UnicodeDecodeError as error:
        raise InputError(f"{where(0)}, column {column!r} holds no utf-8 ({error}).") from error
    codes = combined.indices.to_numpy(zero_copy_only=False)
    if len(set(names)) < len(names):
        places = {name: place for place, name in reversed(list(enumerate(names)))}
        codes = np.array([places[name] for name in names])[codes]
    # A filtered column keeps the whole dictionary, and a dictionary of a file may hold any order.
    order, distinct = pd.factorize(codes)
    if len(distinct) == len(names) and (distinct == np.arange(len(names))).all():
        return codes.astype(np.int32), names
    return order.astype(np.int32), [names[code] for code in distinct.tolist()]


def as_text(cells: pa.ChunkedArray, column: str, where: Where) -> pa.ChunkedArray:
    """The cells of a column of text, in Arrow's plainest type; `InputError` for other columns."""
    import pyarrow as pa

    kind = cells.type
    is_text = (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if is_text:
        return cells if not pa.types.is_string_view(kind) else cells.cast(pa.string())
    if not is_bytes:
        raise InputError(
            f"{where(0)}, column {column!r} holds {kind}; ids must be integers or text."
        )
    # Some programs write text to Parquet without saying that it is text.
    try:
        return cells.cast(pa.string() if pa.types.is_binary(kind) else pa.large_string())
    except pa.ArrowInvalid as error:
        raise InputError(f"{where(0)}, column {column!r} holds no utf-8 ({error}).") from error


def is_missing(cells: pa.ChunkedArray, words: Sequence[str]) -> NDArray[np.bool_]:
    """bool [N]: cells that are null, not a number, or one of `words` apart from blanks around.

    Cells that are numbers are compared with the numbers that the words stand for.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if pa.types.is_dictionary(kind):
        combined = cells.unify_dictionaries().combine_chunks()
        wrong_words = is_missing(pa.chunked_array([combined.dictionary]), words)
        missing: NDArray[np.bool_] = np.asarray(combined.is_null()).astype(np.bool_)
        if wrong_words.any():
            codes = combined.indices.fill_null(0).to_numpy(zero_copy_only=False)
            missing |= wrong_words[codes]
        return missing
    missing = np.asarray(cells.is_null(nan_is_null=True)).astype(np.bool_)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        for number in _numbers_of(words):
            missing |= _equals(cells, number)
        return missing
    if pa.types.is_string_view(kind):
        cells, kind = cells.cast(pa.string()), pa.string()
    if words and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        trimmed = pc.utf8_trim_whitespace(cells)
        listed = pc.is_in(trimmed, value_set=pa.array(words, type=kind))
        missing |= np.asarray(listed).astype(np.bool_)
    return missing


def _numbers_of(words: Sequence[str]) -> list[Decimal]:
    """The finite numbers among the words."""
    numbers = []
    for word in words:
        try:
            number = Decimal(word)
        except InvalidOperation:
            continue
        if number.is_finite():
            numbers.append(number)
    return numbers


def _equals(cells: pa.ChunkedArray, number: Decimal) -> NDArray[np.bool_]:
    """bool [N]: the cells, of a type of numbers, that are the number; false where one is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    is_whole = number.copy_abs() < 2**64 and number == number.to_integral_value()
    if pa.types.is_integer(kind) and not is_whole:
        return np.zeros(len(cells), dtype=np.bool_)
    if pa.types.is_floating(kind):
        # As the column holds it, which may be less exact than 64 bits.
        value = np.array(float(number)).astype(kind.to_pandas_dtype()).item()
        kind, cells = pa.float64(), cells.cast(pa.float64())
    else:
        value = int(number) if pa.types.is_integer(kind) else number
    try:
        scalar = pa.scalar(value, kind)
    except (OverflowError, pa.ArrowInvalid):
        # The column cannot hold this number.
        return np.zeros(len(cells), dtype=np.bool_)
    return np.asarray(pc.equal(cells, scalar).fill_null(False)).astype(np.bool_)


def _whole_numbers(cells: pa.ChunkedArray, column: str, where: Where) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_decimal(cells.type):
        try:
            return cells.cast(pa.int64())
        except pa.ArrowInvalid:
            # It has a fraction, or more digits than an integer of 64 bits.
            fault = "has a fraction, so it is no id"
        texts = [f"{value:f}" for value in cells.to_pylist()]
        wrong = [text.partition(".")[2].strip("0") != "" for text in texts]
        values = [text.partition(".")[0] for text in texts]
        whole = pa.chunked_array([pa.array(values, pa.string())])
    else:
        numbers = cells.to_numpy().astype(np.float64)
        wrong = (numbers != np.floor(numbers)) | (np.abs(numbers) >= EXACT_IN_FLOAT)
        fault = "is a float that has a fraction or is too large to be exact; write ids as text"
        safe = np.where(wrong, 0.0, numbers).astype(np.int64)
        whole = pa.chunked_array([pa.array(safe)])
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise InputError(f"{where(row)}, column {column!r}: {cells[row].as_py()!r:.60} {fault}.")
    return whole
