"""Prepares a corpus from columns in memory: a pandas frame, whatever exports Arrow, or a dict.

A frame counts as the file that it would be written to, CSV or Parquet: it has the same options, the
same checks and the same fingerprint. The content of the wanted columns takes the place of the files
in the key of the corpus, so that a frame is prepared once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from research.annotations import did_you_mean
from research.config import non_default_fields
from research.data.corpus import Corpus
from research.data.preparation.arrow_columns import (
    column_of,
    is_list,
    names_in,
    one_row_an_event,
    plain,
)
from research.data.preparation.column_digest import digest_of_columns
from research.data.preparation.events import Source
from research.data.preparation.integer_text import with_json_attributes
from research.data.preparation.items_file import with_items_file
from research.data.preparation.options import PrepareConfig
from research.data.preparation.pandas_columns import arrow_from_pandas
from research.data.preparation.prepare import (
    SYNTAX,
    check_options,
    columns_of,
    prepare_source,
)
from research.data.preparation.raw_tables import ColumnNames, RawTable, occurrence_of
from research.data.preparation.tables import events_of
from research.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@runtime_checkable
class ArrowStream(Protocol):
    """What exports its columns by Arrow's C stream: frames of Polars, relations of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule with the stream."""


Frame = ArrowStream | Mapping[str, object]


def prepare_frame(
    frame: Frame | pd.DataFrame,
    config: PrepareConfig,
    out: Path | str | None = None,
    *,
    name: str,
    data_root: Path | str = "data",
) -> Corpus:
    """The corpus of a frame, prepared unless it is already there; see `prepare`.

    `frame` is a pandas frame, any object that exports Arrow, or a dict of columns. `config.source`
    is `csv` or `parquet`: the ids are those that such a file of the frame would have. As CSV, ids
    that are floats are text such as `1.0`; as Parquet they are whole numbers. `name` names the
    corpus. An index is no column. Rows in errors count from 1. Raises `InputError` for wrong
    options and values.
    """
    source = frame_source(frame, config, name)
    return prepare_source(source, config, out, data_root=data_root)


def frame_source(frame: Frame | pd.DataFrame, config: PrepareConfig, name: str) -> Source:
    """The source of a frame; nothing but the wanted columns is kept of it."""
    _check_config(config)
    columns = columns_of(config)
    table, warnings = _wanted(frame, columns, as_csv=config.source == "csv")
    for field in table.schema:
        if config.source == "csv" and is_list(field.type):
            raise InputError(
                f"column {field.name!r} holds {field.type}, and CSV has no lists; a frame with "
                "lists counts as parquet."
            )
    raw = RawTable(
        table=table, where=lambda row: f"the frame, row {row + 1}", warnings=tuple(warnings)
    )
    raw = one_row_an_event(raw, columns)
    raw = _readable(raw, columns, as_csv=config.source == "csv")
    digest = digest_of_columns(raw.table)
    memory = {"rows": table.num_rows, "columns": columns.names, "sha256": digest}
    raw = replace(raw, notes={**raw.notes, "memory": memory})
    source = Source(
        name=name, files=(), digest=digest, read=partial(events_of, raw, columns, config)
    )
    attributes = Path(config.attributes) if config.attributes else None
    return with_items_file(with_json_attributes(source, attributes), config)


def _check_config(config: PrepareConfig) -> None:
    if config.source not in ("csv", "parquet"):
        raise InputError(
            f"source {config.source!r}: a frame counts as csv or parquet; give one of them."
        )
    given = non_default_fields(type(config), asdict(config))
    for option in ("raw", *(SYNTAX if config.items_file is None else ())):
        if option in given:
            raise InputError(f"{option} is for files; a frame does not use it. Leave it out.")
    check_options(config)


def _wanted(
    frame: Frame | pd.DataFrame, columns: ColumnNames, *, as_csv: bool
) -> tuple[pa.Table, list[str]]:
    """The wanted columns of a frame as a table, and what to tell about it."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(frame, Mapping):
        series = {str(key): _series(str(key), values) for key, values in frame.items()}
        _require(columns, [str(key) for key in frame])
        lengths = {name: len(series[name]) for name in columns.names}
        if len(set(lengths.values())) > 1:
            raise InputError(f"the columns differ in length: {lengths}.")
        return _from_pandas(series, columns, as_csv=as_csv), []
    if isinstance(frame, pd.DataFrame):
        present = [str(label) for label in frame.columns]
        index = [str(label) for label in frame.index.names if label is not None]
        _require(columns, present, index)
        places = [present.index(name) for name in columns.names]
        series = {name: frame.iloc[:, place] for name, place in zip(columns.names, places)}
        warnings = [
            f"the index is named {label!r} too; the column of that name is read."
            for label in index
            if label in columns.names
        ]
        return _from_pandas(series, columns, as_csv=as_csv), warnings
    if not isinstance(frame, ArrowStream):
        raise InputError(
            f"{type(frame).__name__} is no frame: a pandas frame, an object that exports Arrow "
            "(Polars, DuckDB, PyArrow) or a dict of columns is."
        )
    reader = pa.RecordBatchReader.from_stream(frame)
    present = names_in(reader.schema)
    _require(columns, present)
    # Batch by batch, so that a source that computes its rows holds no more than is wanted.
    batches = [{name: column_of(batch, name) for name in columns.names} for batch in reader]
    cells = {
        name: pa.chunked_array([batch[name] for batch in batches], _type_in(reader.schema, name))
        for name in columns.names
    }
    return pa.table(cells), []


def _type_in(schema: pa.Schema, name: str) -> pa.DataType:
    return column_of(schema.empty_table(), name).type


def _series(name: str, values: object) -> pd.Series | pa.ChunkedArray:
    import pandas as pd
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray | pd.Series):
        return values
    if isinstance(values, pa.Array):
        return pa.chunked_array([values])
    try:
        if isinstance(values, np.ndarray | pd.Categorical | pd.api.extensions.ExtensionArray):
            return pd.Series(values)
        if isinstance(values, Sequence) and not isinstance(values, str | bytes):
            # As objects: pandas would make floats of integers among which one is None.
            return pd.Series(values, dtype=object)
    except ValueError as error:
        raise InputError(f"column {name!r}: {error}.") from error
    raise InputError(f"column {name!r} is {type(values).__name__}; a list or an array is needed.")


def _from_pandas(
    series: Mapping[str, pd.Series | pa.ChunkedArray], columns: ColumnNames, *, as_csv: bool
) -> pa.Table:
    import pandas as pd
    import pyarrow as pa

    cells = {}
    for name in columns.names:
        values = series[name]
        if isinstance(values, pd.Series):
            values = arrow_from_pandas(values, name, as_csv=as_csv)
        cells[name] = values
    return pa.table(cells)


def _require(columns: ColumnNames, present: Sequence[str], index: Sequence[str] = ()) -> None:
    """Raise `InputError` unless each column that is read occurs once in the frame."""
    for name in columns.names:
        number = list(present).count(name)
        if number == 1:
            continue
        if name in index:
            raise InputError(
                f"{name!r} is the index of the frame, and no column; call reset_index() first."
            )
        raise InputError(
            f"the frame: {occurrence_of(name, number)}; the columns are "
            f"{', '.join(present)}{did_you_mean(name, present) or '.'} Name yours with "
            "--user-column, --item-column, --timestamp-column (None: order of the rows) and "
            "--rating-column."
        )


def _readable(raw: RawTable, columns: ColumnNames, *, as_csv: bool) -> RawTable:
    """The table with the cells that a file of the frame would have."""
    import pyarrow as pa

    cells, warnings = {}, list(raw.warnings)
    for name in raw.table.column_names:
        column = plain(raw.table.column(name), name, raw.where)
        is_id = name in (columns.user, columns.item)
        if as_csv and (is_id or name in columns.about_items):
            kind = column.type
            if pa.types.is_floating(kind):
                if is_id:
                    warnings.append(
                        f"column {name!r} holds floats, so its ids are text such as "
                        f"{_first_text(column)!r}, as in CSV; make it integers or text if that is "
                        "not wanted."
                    )
                column = _text_of_floats(column)
            elif pa.types.is_decimal(kind) or pa.types.is_date(kind):
                column = column.cast(pa.string())
            elif not is_id and (pa.types.is_boolean(kind) or pa.types.is_timestamp(kind)):
                column = _text_of_pandas(column)
        cells[name] = column
    return replace(raw, table=pa.table(cells), warnings=tuple(warnings))


def _text_of_pandas(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Truth values and moments as pandas writes them into CSV: without a time where all are 0."""
    import pyarrow as pa

    texts = cells.to_pandas().astype(str).to_numpy()
    missing = cells.is_null().to_numpy()
    return pa.chunked_array([pa.array(texts, pa.large_string(), mask=missing)])


def _text_of_floats(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats as Python and CSV write them; NaN is a missing cell."""
    import pandas as pd
    import pyarrow as pa

    codes, distinct = pd.factorize(cells.to_numpy())
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    texts = pa.array([str(value) for value in distinct], pa.string())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, texts)])


def _first_text(cells: pa.ChunkedArray) -> str:
    present = cells.drop_null()
    return str(present[0].as_py()) if len(present) else "1.0"
