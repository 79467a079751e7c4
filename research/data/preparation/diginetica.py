"""The reader of Diginetica's views, whose times are in two columns.

A session, which stands for a user, has the date of its day, and each view the milliseconds since
the session began; together they are the time of the view.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from research.data.preparation.delimited import Layout, first_line, read_delimited
from research.data.preparation.events import Events, Source
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import require_file
from research.data.preparation.raw_tables import ColumnNames, RawTable
from research.data.preparation.tables import events_of, read_numbers, without_missing
from research.data.preparation.times import read_times
from research.errors import InputError

_SESSION, _ITEM, _MILLISECONDS, _DATE = "sessionid", "itemid", "timeframe", "eventdate"
_COLUMNS = (_SESSION, "userid", _ITEM, _MILLISECONDS, _DATE)
_TIME = "timeframe and eventdate"
# Of seconds and of milliseconds; the sum of both fits into int64.
_LARGEST = 2**52


def diginetica_source(raw: Path) -> Source:
    """The source of `train-item-views.csv`."""
    return Source(name="diginetica", files=(require_file(raw),), read=partial(_read, raw))


def _read(path: Path) -> Events:
    import pyarrow as pa

    number, header = first_line(path, ";", quoted=True)
    # Copies write sessionId or session_id.
    if tuple(name.lower().replace("_", "") for name in header) != _COLUMNS:
        raise InputError(
            f"{path}, line {number}: {';'.join(header)}; expected "
            "sessionId;userId;itemId;timeframe;eventdate."
        )
    layout = Layout(
        columns=_COLUMNS,
        kinds={_SESSION: "id", _ITEM: "id", _MILLISECONDS: "time", _DATE: "text"},
        delimiter=";",
        header_line=number,
        quoted=True,
    )
    config = PrepareConfig(source="diginetica", time_unit="ms")
    raw, _ = without_missing(read_delimited(path, layout), list(layout.kinds), config)
    table = raw.table

    def where(row: int) -> str:
        return f"{raw.where(row)}, column {_DATE!r}"

    days = read_times(table.column(_DATE), "auto", None, where).seconds
    elapsed = read_numbers(table.column(_MILLISECONDS), _MILLISECONDS, raw.where)
    outside = (np.abs(elapsed) >= _LARGEST) | (np.abs(days) >= _LARGEST)
    if outside.any():
        raise InputError(f"{raw.where(int(np.argmax(outside)))}: a time that is too large.")
    times = days * 1000 + elapsed.astype(np.int64)
    columns = ColumnNames(user=_SESSION, item=_ITEM, timestamp=_TIME, rating=None)
    with_times = table.select([_SESSION, _ITEM]).append_column(_TIME, pa.array(times, pa.int64()))
    return events_of(RawTable(table=with_times, where=raw.where), columns, config)
