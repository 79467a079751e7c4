"""Atomic files that bring a split: X.train.inter, X.valid.inter and X.test.inter.

A corpus holds whole histories and no split. So such files are read where leave-one-out, applied to
the histories, holds out exactly what they hold out, and are refused otherwise. Rows may be events,
or, with a list of items, a history and the item that comes next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.events import Events
from research.data.preparation.item_lists import entries, without_missing_entries
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_tables import ColumnNames, RawTable, concatenated
from research.data.preparation.tables import events_of, without_missing
from research.data.preparation.times import Where
from research.errors import InputError

PARTS = ("train", "valid", "test")
_COLUMN = "part of the split"
# Leave-one-out evaluates users with at least so many events.
_LEAST_EVENTS = 3
_WHAT_TO_DO = (
    "A corpus holds no split of its own. Prepare the one .inter file from which these were made "
    "and choose a split when you train; or let RecBole write them with eval_args: {split: {LS: "
    "valid_and_test}, order: TO}, which holds out each user's last two events."
)


@final
@dataclass(frozen=True)
class SplitPart:
    """The rows of one file."""

    name: str
    """train, valid or test; empty for a file that is no part of a split."""
    raw: RawTable
    """Its rows."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Where each row of the files ends in its user's history."""

    users: NDArray[np.int64]
    """[R]: position of the user."""
    parts: NDArray[np.int64]
    """[R]: position of the file's part in `PARTS`."""
    from_end: NDArray[np.int64]
    """[R]: how many events of the user come after the last event of the row."""
    lengths: NDArray[np.int64]
    """[U]: number of events of each user."""
    user_names: Sequence[str]
    """[U]: raw user ids."""
    where: Where
    """Names a row in errors."""


def events_of_parts(
    parts: Sequence[SplitPart], columns: ColumnNames, config: PrepareConfig
) -> Events:
    """The events of files in which each row is one event.

    Raises `InputError` unless the rows of valid and test are each user's last two events, by time
    if there are times, else in the order train, valid, test.
    """
    names = [part.name for part in parts]
    if names != ["train"] and not {"train", "test"} <= set(names):
        raise InputError(
            f"{parts[0].raw.where(0)}: there is no file of the part "
            f"{'train' if 'train' not in names else 'test'} beside it; only {', '.join(names)}. "
            f"{_WHAT_TO_DO}"
        )
    raw, dropped = _joined(parts, columns, config)
    events = events_of(replace(raw, notes={**raw.notes, **dropped}), columns, config)
    times = events.timestamps if events.exact_times is None else events.exact_times
    users = events.users.astype(np.int64)
    order = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
    lengths = np.bincount(users, minlength=len(events.user_names))
    from_end = np.empty(len(users), dtype=np.int64)
    from_end[order] = np.cumsum(lengths)[users[order]] - 1 - np.arange(len(users))
    rows = _Rows(
        users=users,
        parts=np.asarray(raw.table.column(_COLUMN)).astype(np.int64),
        from_end=from_end,
        lengths=lengths,
        user_names=events.user_names,
        where=raw.where,
    )
    return _with_split(events, rows, names, config)


def events_of_histories(
    parts: Sequence[SplitPart], columns: ColumnNames, lists: str, config: PrepareConfig
) -> Events:
    """The events of files in which each row is a history, in the column `lists`, and its next item.

    A user's events are those of the longest row. Raises `InputError` unless every other row of the
    user is the beginning of it, and the test row is the whole, and the valid row the whole but one.
    """
    names = [part.name for part in parts]
    if "test" not in names and names not in ([""], ["train"]):
        raise InputError(
            f"{parts[0].raw.where(0)}: there is no file of the part test beside it; only "
            f"{', '.join(names)}. {_WHAT_TO_DO}"
        )
    raw, dropped = _joined(parts, columns, config)
    raw = without_missing_entries(raw, lists, config)
    histories = [
        [*entries(text), target]
        for text, target in zip(
            raw.table.column(lists).to_pylist(), raw.table.column(columns.item).to_pylist()
        )
    ]
    row_users: list[str] = raw.table.column(columns.user).to_pylist()
    longest: dict[str, int] = {}
    for row, user in enumerate(row_users):
        if len(histories[row]) > len(histories[longest.setdefault(user, row)]):
            longest[user] = row
    _check_beginnings(histories, row_users, longest, lists, raw.where)
    position = {user: number for number, user in enumerate(longest)}
    users = np.array([position[user] for user in row_users], dtype=np.int64)
    lengths = np.array([len(histories[row]) for row in longest.values()], dtype=np.int64)
    rows = _Rows(
        users=users,
        parts=np.asarray(raw.table.column(_COLUMN)).astype(np.int64),
        from_end=lengths[users] - np.array([len(history) for history in histories]),
        lengths=lengths,
        user_names=list(longest),
        where=raw.where,
    )
    items: dict[str, int] = {}
    codes = [
        items.setdefault(item, len(items)) for row in longest.values() for item in histories[row]
    ]
    events = Events(
        users=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        items=np.array(codes, dtype=np.int32),
        user_names=list(longest),
        item_names=list(items),
        notes={
            **raw.notes,
            **dropped,
            "rows": f"each is a history ({lists}) and its next item ({columns.item}); a user's "
            "events are those of the longest row",
            "rows_read": len(histories),
        },
        warnings=(*raw.warnings, *_cut_warning(histories, longest, lists)),
    )
    return events if names == [""] else _with_split(events, rows, names, config)


def _joined(
    parts: Sequence[SplitPart], columns: ColumnNames, config: PrepareConfig
) -> tuple[RawTable, dict[str, object]]:
    """The rows of all parts that lack no value, with the number of each one's part; the counts."""
    import pyarrow as pa

    raw = concatenated([part.raw for part in parts])
    numbers = np.repeat(
        [PARTS.index(part.name or "train") for part in parts],
        [part.raw.table.num_rows for part in parts],
    )
    table = raw.table.append_column(_COLUMN, pa.array(numbers))
    return without_missing(replace(raw, table=table), columns.of_events, config)


def _check_beginnings(
    histories: Sequence[Sequence[str]],
    row_users: Sequence[str],
    longest: Mapping[str, int],
    lists: str,
    where: Where,
) -> None:
    """Raise `InputError` for a row that is not the beginning of its user's longest row."""
    most = max(len(history) for history in histories) - 1
    for row, (user, history) in enumerate(zip(row_users, histories, strict=True)):
        whole = histories[longest[user]]
        if list(whole[: len(history)]) == list(history):
            continue
        cut = ""
        if len(whole) - 1 == most:
            cut = (
                f" Lists seem to be cut to {most} items: let RecBole write them with a "
                "MAX_ITEM_LIST_LENGTH that is longer than the longest history."
            )
        raise InputError(
            f"{where(row)}: user {user!r:.60} has a history in {lists} and a next item that are "
            f"not the beginning of those at {where(longest[user])}, so the user's history cannot "
            f"be put together.{cut} Otherwise, prepare the .inter file of single events."
        )


def _cut_warning(
    histories: Sequence[Sequence[str]], longest: Mapping[str, int], lists: str
) -> list[str]:
    lengths = [len(histories[row]) - 1 for row in longest.values()]
    number = lengths.count(max(lengths))
    if number < 2:
        return []
    return [
        f"{number:,} of {len(lengths):,} users have a list of {max(lengths)} items in {lists}, and "
        "none has a longer one; if lists were cut to this length (RecBole's MAX_ITEM_LIST_LENGTH), "
        "what came before is lost."
    ]


def _with_split(events: Events, rows: _Rows, names: Sequence[str], config: PrepareConfig) -> Events:
    """The events, with what the files hold out in notes and warnings; see `events_of_parts`."""
    warnings = list(events.warnings)
    if "test" not in names:
        split = "there is the part train alone; what was held out is not in the corpus"
        return replace(
            events,
            notes={**events.notes, "split_of_the_files": split},
            warnings=(*warnings, f"{split}. Is a file X.test.inter missing?"),
        )
    _check_leave_one_out(rows, names)
    split = "leave-one-out: the test rows are each user's last event"
    if "valid" in names:
        split += ", the valid rows the one before it"
    is_short = rows.lengths[rows.users] < _LEAST_EVENTS
    short = len(np.unique(rows.users[is_short & (rows.parts > 0)]))
    if short:
        warnings.append(
            f"{short:,} users with fewer than {_LEAST_EVENTS} events have rows in the held-out "
            "files; leave-one-out trains on all events of such users and does not evaluate them."
        )
    if config.tie_seed is not None:
        warnings.append(
            "tie_seed draws the order of ties, so leave-one-out may hold out others than the files "
            "do."
        )
    filters = (config.min_rating, config.user_core, config.item_core, config.duplicates)
    if filters != (None, 0, 0, "keep"):
        warnings.append(
            "the filters remove events, so leave-one-out may hold out others than the files do."
        )
    return replace(
        events,
        notes={**events.notes, "split_of_the_files": split},
        warnings=tuple(warnings),
    )


def _check_leave_one_out(rows: _Rows, names: Sequence[str]) -> None:
    """Raise `InputError` unless test and valid rows end users' histories, as leave-one-out does."""
    evaluated = rows.lengths >= _LEAST_EVENTS
    held_out = [name for name in ("test", "valid") if name in names]
    for place, name in enumerate(held_out):
        is_part = rows.parts == PARTS.index(name)
        counts = np.bincount(rows.users[is_part], minlength=len(rows.lengths))
        wrong = np.flatnonzero(evaluated & (counts != 1))
        if len(wrong):
            user = int(wrong[0])
            raise InputError(
                f"{rows.where(int(np.argmax(rows.users == user)))}: user "
                f"{rows.user_names[user]!r:.60} has {counts[user]} rows in the part {name}, as "
                f"{len(wrong):,} users do not have one each. {_WHAT_TO_DO}"
            )
        misplaced = np.flatnonzero(is_part & evaluated[rows.users] & (rows.from_end != place))
        if len(misplaced):
            row = int(misplaced[0])
            position = ("last", "last but one")[place]
            raise InputError(
                f"{rows.where(row)}: this row of the part {name} is not the {position} event of "
                f"user {rows.user_names[rows.users[row]]!r:.60}; nor are {len(misplaced) - 1:,} "
                f"others of other users. {_WHAT_TO_DO}"
            )
    leaks = np.flatnonzero(
        (rows.parts == 0) & evaluated[rows.users] & (rows.from_end < len(held_out))
    )
    if len(leaks):
        raise InputError(
            f"{rows.where(int(leaks[0]))}: this row of the part train holds an event that is held "
            f"out, of user {rows.user_names[rows.users[leaks[0]]]!r:.60}. {_WHAT_TO_DO}"
        )
