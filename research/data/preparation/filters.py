"""The filters of preparation: which events a corpus keeps.

`prepare.py` calls the filters. They keep or drop rows in this order: ratings, duplicates, cores;
each writes what it removed into the report of the corpus.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from research.data.preparation.events import Events
from research.data.preparation.options import Duplicates, PrepareConfig
from research.data.tied_times import (
    OrderAgreement,
    has_fixed_order,
    num_finer_steps,
    tie_shares,
)
from research.data.time_units import are_in_a_second
from research.errors import InputError


def filter_rows(
    events: Events, config: PrepareConfig, report: dict[str, object]
) -> NDArray[np.int64]:
    """int64: the rows of events to keep, user after user, oldest first.

    Ties are in the file's order, or in one that is drawn. Writes what was removed into `report`.
    Raises `InputError` if nothing remains, or if ratings or times are needed and missing.
    """
    rows = np.arange(len(events.users), dtype=np.int64)
    report["interactions_read"] = len(rows)
    if config.min_rating is not None:
        if events.ratings is None:
            raise InputError(f"min_rating {config.min_rating}: the {config.source} has no ratings.")
        rows = rows[events.ratings >= config.min_rating]
        report["removed_by_min_rating"] = len(events.ratings) - len(rows)
        if not len(rows):
            raise InputError(
                f"min_rating {config.min_rating} removes everything: there were "
                f"{len(events.ratings):,} interactions, rated {events.ratings.min()} to "
                f"{events.ratings.max()}."
            )
    users = events.users[rows]
    times = events.timestamps if events.exact_times is None else events.exact_times
    rows = rows[_in_order(users, None if times is None else times[rows])]
    rows = _without_duplicates(events, rows, config.duplicates, report)
    if config.tie_seed is not None:
        # After duplicates, of which a policy would keep the one that is drawn first or last.
        rows = _with_ties_drawn(events.users, times, rows, config.tie_seed)
    return _k_core(events, rows, config, report)


def _with_ties_drawn(
    users: NDArray[np.int32],
    times: NDArray[np.int64] | NDArray[np.float64] | None,
    rows: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int64]:
    """The rows by user and time, those equal in both in an order drawn with the seed."""
    if times is None:
        raise InputError(
            f"tie_seed {seed} is for interactions at the same time, and this source has no times; "
            "leave out the seed, or read a source with times."
        )
    shuffled = np.random.default_rng(seed).permutation(rows)
    return shuffled[_in_order(users[shuffled], times[shuffled])]


def _in_order(
    users: NDArray[np.int32], times: NDArray[np.int64] | NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """int64 [N]: the rows by user, then by time; rows equal in both stay in their order."""
    if times is None:
        return np.argsort(users, kind="stable")
    span = int(times.max()) - int(times.min()) + 1
    if times.dtype != np.int64 or (int(users.max()) + 1) * span >= 2**63:
        return np.lexsort((times, users))
    # One integer that holds both is sorted in less than half the time.
    return np.argsort(users.astype(np.int64) * span + (times - times.min()), kind="stable")


def _without_duplicates(
    events: Events, rows: NDArray[np.int64], duplicates: Duplicates, report: dict[str, object]
) -> NDArray[np.int64]:
    """The rows that the policy keeps, in their order; `rows` are in order of user and time."""
    pairs = events.users[rows].astype(np.int64) * len(events.item_names) + events.items[rows]
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    is_repeat = np.zeros(len(rows), dtype=np.bool_)
    is_repeat[1:] = ordered[1:] == ordered[:-1]
    repeats = int(is_repeat.sum())
    # Equal pairs stand in order of time, so an exact double follows the event that it doubles.
    times = events.timestamps if events.exact_times is None else events.exact_times
    is_double = np.zeros(len(rows), dtype=np.bool_)
    if times is not None:
        ordered_times = times[rows[order]]
        is_double[1:] = is_repeat[1:] & (ordered_times[1:] == ordered_times[:-1])
    elif duplicates == "exact":
        raise InputError(
            "duplicates exact: without times, an exact double cannot be told from a repeat. Name "
            "the column of times, or choose keep, first or last."
        )
    removed = np.zeros(len(rows), dtype=np.bool_)
    if duplicates == "exact":
        removed = is_double
    elif duplicates == "first":
        removed = is_repeat
    elif duplicates == "last":
        removed[:-1] = is_repeat[1:]
    report["duplicates"] = {
        "policy": duplicates,
        "repeats_found": repeats,
        "exact_doubles_among_them": None if times is None else int(is_double.sum()),
        "removed": int(removed.sum()),
    }
    return rows[np.sort(order[~removed])] if removed.any() else rows


def _k_core(
    events: Events, rows: NDArray[np.int64], config: PrepareConfig, report: dict[str, object]
) -> NDArray[np.int64]:
    """int64: the largest subset of `rows` in which every user and every item has enough rows."""
    if config.user_core <= 1 and config.item_core <= 1:
        return rows
    all_rows = rows
    users, items = events.users[rows], events.items[rows]
    rounds = 0
    while True:
        rounds += 1
        is_kept = np.bincount(users)[users] >= config.user_core
        is_kept &= np.bincount(items)[items] >= config.item_core
        if is_kept.all():
            break
        rows, users, items = rows[is_kept], users[is_kept], items[is_kept]
        if not len(rows):
            raise InputError(
                f"user_core {config.user_core} and item_core {config.item_core} remove "
                f"everything: there were {len(all_rows):,} interactions of "
                f"{len(np.unique(events.users[all_rows])):,} users with "
                f"{len(np.unique(events.items[all_rows])):,} items. Lower them."
            )
    report["removed_by_core"] = {"interactions": len(all_rows) - len(rows), "rounds": rounds}
    return rows


def renumber(codes: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The codes renumbered from 0 without gaps (int32), and the old code of each new one (int64).

    `codes` are from 0 to `count` - 1; a smaller code stays smaller.
    """
    present = np.zeros(count, dtype=np.bool_)
    present[codes] = True
    renumbered = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return renumbered[codes], np.flatnonzero(present)


def time_warnings(
    items: NDArray[np.int32],
    timestamps: NDArray[np.int64],
    exact_times: NDArray[np.int64] | NDArray[np.float64] | None,
    offsets: NDArray[np.int64],
    report: dict[str, object],
) -> list[str]:
    """What to tell about times in whole seconds; all arrays are those of the corpus.

    Writes into `report` how many times are tied, whether finer times than seconds decided, and how
    alike the order of tied items is.
    """
    warnings = []
    times = timestamps if exact_times is None else exact_times
    shares = tie_shares(times, offsets)
    report |= shares
    agreement = OrderAgreement.of(items, offsets, times)
    if agreement.pairs:
        report["order_of_ties"] = asdict(agreement)
    if has_fixed_order(agreement, shares["tied_interactions"]):
        warnings.append(
            f"within one time, {agreement.sentence}: the source is sorted by item, and models that "
            "read order learn that (--tie-seed 0 draws another order), or its times are too coarse "
            "for a true order."
        )
    steps = 0 if exact_times is None else num_finer_steps(timestamps, exact_times, offsets)
    report["ordered_by_finer_times"] = steps > 0
    if steps:
        warnings.append(
            f"{steps:,} times are in the second of the one before them; "
            "events are in the order of the finer times, which are not kept."
        )
    if len(timestamps) > 1 and are_in_a_second(int(timestamps.min()), int(timestamps.max())):
        warnings.append(
            "all times are at most one second apart; is their unit right (--time-unit)?"
        )
    return warnings
