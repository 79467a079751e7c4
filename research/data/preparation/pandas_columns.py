"""Columns of pandas as columns of Arrow, with the cells that a file of the frame would have."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import TYPE_CHECKING

import numpy as np

from research.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What may stand in a column of objects, beside lists in a frame that counts as Parquet.
_SCALARS = (str, int, float, np.integer, np.floating, decimal.Decimal, uuid.UUID, datetime.date)


def arrow_from_pandas(values: pd.Series, column: str, *, as_csv: bool) -> pa.ChunkedArray:
    """The column as Arrow's; missing values are null.

    Objects become text as `str` gives it, as in CSV; as Parquet only those that Arrow cannot hold
    in one type. Raises `InputError`, which names the row, for objects that have no such text.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(values.dtype, pd.SparseDtype):
        values = pd.Series(np.asarray(values))
    if isinstance(values.dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        # Arrow would keep their ordinals, or nothing.
        values = values.astype(object).map(str, na_action="ignore")
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = arrow_from_pandas(pd.Series(values.cat.categories), column, as_csv=as_csv)
        codes = values.cat.codes.to_numpy()
        indices = pa.array(codes.astype(np.int32), mask=codes < 0)
        distinct = categories.combine_chunks()
        return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, distinct)])
    if values.dtype != object:
        converted = pa.array(values, from_pandas=True)
        return (
            converted if isinstance(converted, pa.ChunkedArray) else pa.chunked_array([converted])
        )
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind in ("string", "empty", "bytes") or not as_csv:
        try:
            column_of_cells = pa.array(values, from_pandas=True)
            if pa.types.is_date(column_of_cells.type) and any(
                isinstance(value, datetime.datetime) for value in values
            ):
                # The type of the first, a date, would cut off the time of day of the others.
                moments = [None if pd.isna(value) else pd.Timestamp(value) for value in values]
                column_of_cells = pa.array(moments)
            return pa.chunked_array([column_of_cells])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            # Of several types, or text that is no utf-8: by itself each value can be named.
            pass
    missing = values.isna().to_numpy()
    return pa.chunked_array(
        [
            pa.array(
                [
                    None if lacks else _text(value, row, column)
                    for row, (value, lacks) in enumerate(zip(values, missing), start=1)
                ],
                pa.large_string(),
            )
        ]
    )


def _text(value: object, row: int, column: str) -> str:
    if not isinstance(value, _SCALARS) or isinstance(value, bool):
        raise InputError(
            f"the frame, row {row}, column {column!r}: {value!r:.60} is "
            f"{type(value).__name__}, neither text nor a number."
        )
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the frame, row {row}, column {column!r}: {value!r:.60} has half of a surrogate pair; "
            "it must be valid Unicode."
        ) from error
    return text
