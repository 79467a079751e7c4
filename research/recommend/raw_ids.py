"""Raw ids as users write them, looked up among the names of a corpus."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from research.data.names import Names
from research.errors import InputError

UnknownPolicy = Literal["error", "skip"]


def numbers_of(
    raw_ids: Collection[str], names: Names, what: str, unknown: UnknownPolicy
) -> NDArray[np.int64]:
    """int64, one for each raw id: its place among `names`; -1 for one that is not there.

    Where `unknown` is "error", such an id raises `InputError`, which suggests near names. An id
    that is no text always does, and so does text in place of a list of ids. `what` says in the
    message what the ids are.
    """
    check_choice("unknown", unknown, get_args(UnknownPolicy))
    if isinstance(raw_ids, str):
        raise InputError(f"{what}: {raw_ids!r:.60} is one text; give a list of raw ids")
    for raw_id in raw_ids:
        if not isinstance(raw_id, str):
            raise InputError(
                f"{what}: {raw_id!r:.60} is of type {type(raw_id).__name__}; raw ids are text, as "
                f"in {str(raw_id)!r:.60}"
            )
        if unknown == "error" and raw_id not in names:
            try:
                names.index(raw_id)
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
    return np.array(
        [names.index(raw_id) if raw_id in names else -1 for raw_id in raw_ids], dtype=np.int64
    )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """`InputError` unless the argument `name` has one of these values."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(choices)}")


def check_number(name: str, value: int) -> None:
    """`InputError` unless the argument `name` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} is {value!r:.60}; it must be a whole number")
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1")
