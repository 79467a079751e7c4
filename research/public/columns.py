"""Which columns of a frame or a file are users, items and times: as named, or else recognized.

A column is recognized by its name alone, and only where exactly one has such a name; what is not
recognized without doubt is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa

from research.annotations import did_you_mean
from research.data.preparation.arrow_columns import names_in
from research.data.preparation.frames import Frame
from research.data.preparation.headers import ITEMS, TIMES, USERS, columns_like
from research.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The columns that a user named; None: to be recognized."""

    user: str | None
    """Column of users' ids."""
    item: str | None
    """Column of items' ids."""
    time: str | Literal[False] | None
    """Column of times; False: there are none, and rows are in order."""
    others: Mapping[str, str]
    """Further columns that were named, by the argument that named them."""

    def options(self, where: str, present: Sequence[str]) -> dict[str, str | None]:
        """The fields of `PrepareConfig` that name the three columns.

        `present` are the columns of the frame or file `where`. Raises `InputError` for a column
        that is not there, and for one that is neither named nor recognized without doubt.
        """
        named = {"user": self.user, "item": self.item, "time": self.time, **self.others}
        for argument, name in named.items():
            # In JSON lines, `user.id` is a field of the object in the field `user`.
            if name and not {name, name.partition(".")[0]} & set(present):
                raise InputError(
                    f"{where}: there is no column {name!r}; give {argument}= with one of "
                    f"{', '.join(present)}{did_you_mean(name, present)}"
                )
        taken = {name for name in named.values() if name}
        free = [name for name in present if name not in taken]
        time = self.time
        if time is None:
            hint = ", or time=False where the rows of a user are in order and have no times"
            time = recognized(where, free, "time", TIMES, hint)
        return {
            "user_column": self.user or recognized(where, free, "user", USERS),
            "item_column": self.item or recognized(where, free, "item", ITEMS),
            "timestamp_column": time or None,
        }


def recognized(
    where: str, present: Sequence[str], argument: str, names: Sequence[str], hint: str = ""
) -> str:
    """The one column that has one of the `names`; `InputError` where none or several have."""
    fitting = columns_like(names, present)
    if len(fitting) == 1:
        return fitting[0]
    problem = f"{' and '.join(fitting)} could each be" if fitting else "no column is recognized as"
    raise InputError(
        f"{where}: {problem} the column of {argument}s; give {argument}= with one of "
        f"{', '.join(present)}{hint}"
    )


def columns_of_frame(frame: Frame | pd.DataFrame) -> list[str]:
    """The names of the columns of a frame, in order; `InputError` for what is no frame."""
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    if isinstance(frame, pd.DataFrame):
        return [str(label) for label in frame.columns]
    if isinstance(frame, pa.RecordBatchReader):
        return names_in(frame.schema)
    raise InputError(
        f"{type(frame).__name__} is neither a frame nor a path: give a pandas frame, an object "
        "that exports Arrow (Polars, DuckDB, PyArrow), a dict of columns, a path, or the name of a "
        "data set"
    )
