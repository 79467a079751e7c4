"""For whom to recommend: users of the corpus, or histories of others.

A request is one history, by which the items are ranked. Histories of users are ranges of the
corpus, which are read when their turn comes; those of others are items that the caller names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from research.annotations import suggest
from research.data.batch import fields_of, pack_items
from research.data.names import Names
from research.data.splits import Ranges
from research.errors import InputError
from research.packed import Packed
from research.recommend.raw_ids import UnknownPolicy, check_choice, numbers_of
from research.runs.parts import RunParts

HistoryPart = Literal["all", "train", "test"]

# The one field of events beside the item: see `fields_of`.
TIME = "time"
# The id of a user whom the corpus does not have.
NO_USER = -1


@dataclass(frozen=True, eq=False)
class Requests:
    """R histories to recommend after; a history may be empty."""

    histories: Ranges
    """[R] rows: the dense id of the user, or `NO_USER`, and the range of the history in `items`."""
    items: NDArray[np.int32] | NDArray[np.int64]
    """[N]: dense item ids, oldest first within a history."""
    fields: Mapping[str, NDArray[np.int64]]
    """[N] by name: the fields of each event that the encoder reads beside its item."""
    names: Names | None
    """Raw ids of those who ask; None: a request is known by its number alone."""
    labels_R: NDArray[np.int64]
    """[R]: each request's place in `names`, or its number from 0 where there are none."""
    unknown_users: int = 0
    """How many users that were asked for are not in the corpus and were left out."""
    unknown_events: int = 0
    """How many events of an item that is not in the corpus were left out of histories."""

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        """int64 [R]: the number of events in each history."""
        return self.histories.stops - self.histories.starts

    @property
    def kind(self) -> str:
        """What a request is called in tables: "user", or "history" where it has only a number."""
        return "history" if self.names is None else "user"

    def label(self, request: int) -> str:
        """How messages name a request: by its raw id, or its number."""
        label = int(self.labels_R[request])
        return f"{self.kind} {label if self.names is None else repr(self.names[label])}"

    def pack(self, rows: NDArray[np.int64]) -> Packed:
        """The histories of the requests with these numbers, on the host."""
        return pack_items(self.items, self.histories.select(rows), self.fields)


def known_users(
    parts: RunParts,
    raw_ids: Collection[str] | None = None,
    *,
    history: HistoryPart = "all",
    unknown: UnknownPolicy = "error",
) -> Requests:
    """The requests of users of the run's corpus by raw id, in the order given; None: all users.

    `history` says which of a user's events are the history. "all": every event of the corpus, also
    what the run held out, as for recommendations that users are to see. "train": those that the run
    was trained on. "test": those after which the run's test ranked, so that its held-out items can
    be looked for in the lists, the shortest where it ranked after several of a user; of users whom
    the test does not ask about, those of "train". Other
    users are left out and counted where `unknown` is "skip", else they raise `InputError`.
    """
    check_choice("history", history, get_args(HistoryPart))
    corpus = parts.corpus if history == "all" else parts.events
    users = np.arange(corpus.num_users, dtype=np.int64)
    skipped = 0
    if raw_ids is not None:
        users = numbers_of(raw_ids, corpus.user_names, "users", unknown)
        skipped = int((users < 0).sum())
        users = users[users >= 0]
    starts_U, stops_U = np.array(corpus.offsets[:-1]), np.array(corpus.offsets[1:])
    if history != "all":
        # Users without a training event have an empty history.
        stops_U = starts_U.copy()
        asked = [parts.split.test.histories] if history == "test" else []
        for ranges in (parts.split.training, *asked):
            # The last assignment to a user stays, and the shortest history comes first.
            ranges = ranges.select(np.arange(len(ranges))[::-1])
            starts_U[ranges.users], stops_U[ranges.users] = ranges.starts, ranges.stops
    available = fields_of(corpus)
    return Requests(
        histories=Ranges(users, starts_U[users], stops_U[users]),
        items=corpus.items,
        fields={name: available[name] for name in _fields_read(parts)},
        names=corpus.user_names,
        labels_R=users,
        unknown_users=skipped,
    )


def new_histories(
    parts: RunParts,
    histories: Sequence[Sequence[str]],
    *,
    names: Sequence[str] | None = None,
    fields: Mapping[str, Sequence[Sequence[int]]] | None = None,
    unknown: UnknownPolicy = "error",
) -> Requests:
    """The requests of users whom the corpus does not have, by the raw ids of their items.

    `histories` has one list a user, oldest item first. `names` has a name for each; None: they are
    numbered from 0. `fields` has, by name, an integer for each event ("time": seconds since 1970,
    which do not decrease), in lists as long as those of the items; they are needed where the run's
    encoder reads them. An item that the corpus does not have raises `InputError`, or is left out of
    its history and counted where `unknown` is "skip".
    """
    if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
        raise InputError("histories: give a list of lists of raw item ids, one list a user")
    if names is not None and len(names) != len(histories):
        raise InputError(
            f"{len(names):,} names for {len(histories):,} histories; give one for each"
        )
    if names is not None and not all(isinstance(name, str) for name in names):
        raise InputError("names: give the name of each history as text")
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    values = _field_values(parts, lengths, fields or {})
    raw_ids = [raw_id for history in histories for raw_id in history]
    items = numbers_of(raw_ids, parts.corpus.item_names, "histories", unknown)
    is_known = items >= 0
    ends = np.concatenate([[0], np.cumsum(is_known)])[np.concatenate([[0], np.cumsum(lengths)])]
    users = np.full(len(histories), NO_USER, dtype=np.int64)
    return Requests(
        histories=Ranges(users, ends[:-1], ends[1:]),
        items=items[is_known],
        fields={name: of_field[is_known] for name, of_field in values.items()},
        names=None if names is None else Names.from_strings(names),
        labels_R=np.arange(len(histories), dtype=np.int64),
        unknown_events=int((~is_known).sum()),
    )


def _fields_read(parts: RunParts) -> tuple[str, ...]:
    """The fields of events that the run's ranker reads; one that counts reads none."""
    return parts.fields if parts.config.stages else ()


def _field_values(
    parts: RunParts,
    lengths: NDArray[np.int64],
    fields: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, NDArray[np.int64]]:
    """int64 [N] by name: the fields that the run's encoder reads, checked against the histories."""
    read = _fields_read(parts)
    lacking = [name for name in parts.config.encoder.fields if name in read and name not in fields]
    if lacking:
        raise InputError(
            f"histories hold only items, but the run's encoder also reads the {', '.join(lacking)} "
            "of every event; give them as well, or recommend from a run whose encoder does not"
        )
    # What the encoder does not read is checked too: times tell whether the oldest event is first.
    values = {name: _values_of(name, lists, lengths) for name, lists in fields.items()}
    return {name: values[name] for name in read if name in values}


def _values_of(
    name: str, lists: Sequence[Sequence[int]], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 [N]: the values of a field, history after history."""
    if name != TIME:
        raise InputError(f"fields: {name!r} is no field of events{suggest(name, [TIME])}")
    are_lists = isinstance(lists, Iterable) and all(isinstance(each, Sized) for each in lists)
    if not are_lists or [len(of_history) for of_history in lists] != lengths.tolist():
        raise InputError(f"fields: {name} needs lists as long as those of the histories' items")
    flat = np.array([value for of_history in lists for value in of_history])
    if not len(flat):
        return np.zeros(0, dtype=np.int64)
    if flat.dtype == np.bool_ or not np.can_cast(flat.dtype, np.int64):
        raise InputError(
            f"fields: {name} holds {flat.dtype}, as in {flat[0]!s:.60}; give whole numbers, of "
            "seconds since 1970"
        )
    values = flat.astype(np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    backwards = (np.diff(values) < 0) & (np.diff(owners) == 0)
    if backwards.any():
        place = int(np.argmax(backwards))
        raise InputError(
            f"fields: {name} goes back from {values[place]} to {values[place + 1]} in history "
            f"{owners[place]} (counted from 0); give the events of a history oldest first"
        )
    return values
