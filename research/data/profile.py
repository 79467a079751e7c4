"""The profile of a corpus: how long histories are, how skewed popularity is, when events happened.

The verb `show` prints it in words, and `research/report/profile_page.py` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.findings import share_of
from research.data.repeats import Repeats
from research.data.tied_times import FinerTimes, tie_shares
from research.data.time_units import SECONDS_OF_A_DAY, units_of_a_second

# Shares of users, or of items, at which a quantile is told.
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# Shares of items, the most popular ones, whose part of the interactions is told.
TOP_SHARES = (0.01, 0.1)
# Points of the curve of popularity.
CURVE_POINTS = 101
# Attributes, and items, that are named.
MOST_COMMON = 10
# Longer than any data set lasts: events over more months than this have wrong times among them.
MAX_DAYS = 36_600


@dataclass(frozen=True)
class LengthBin:
    """The users whose histories have between `low` and `high` interactions, both included."""

    low: int
    high: int
    users: int


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When the events of a corpus happened."""

    first: int
    """The oldest time as it is stored: in seconds, or in the unit of an older corpus."""
    last: int
    """The newest time."""
    days: float | None
    """Days from the first to the last; None: the times are too small to be times since 1970."""
    months: tuple[tuple[str, int], ...]
    """(month as 2026-11, events) for every month from the first to the last; empty: as for `days`,
    or the times span over a hundred years."""
    tied_share: float
    """Share (0 to 1) of interactions with the time of another one of the same user."""


@dataclass(frozen=True, kw_only=True)
class AttributeCoverage:
    """How items and attributes are spread over each other."""

    attributes: int
    """Number of attributes."""
    items_without: int
    """Items that have no attribute."""
    per_item: float
    """Mean number of attributes of an item."""
    most_per_item: int
    """Number of attributes of the item that has most."""
    most_common: tuple[tuple[str, int], ...]
    """(name, items) of the attributes that most items have, the most common first."""


@dataclass(frozen=True)
class PopularItem:
    """An item with which many interactions are."""

    name: str
    """The raw id."""
    title: str
    """The title; empty where the corpus has none for it."""
    interactions: int
    """Number of interactions."""


@dataclass(frozen=True, kw_only=True)
class CorpusProfile:
    """What a corpus is like, in numbers."""

    name: str
    """Name of the data set."""
    fingerprint: str
    """The corpus's fingerprint."""
    users: int
    """Number of users."""
    items: int
    """Number of items."""
    interactions: int
    """Number of interactions."""
    mean_length: float
    """Mean number of interactions of a user."""
    lengths: tuple[tuple[float, float], ...]
    """(share of users, history length that this share does not exceed), for `QUANTILES`."""
    length_bins: tuple[LengthBin, ...]
    """Users by history length; each bin is twice as wide as the one before."""
    top_shares: tuple[tuple[float, float], ...]
    """(share of items, share of interactions with the most popular of them), for `TOP_SHARES`."""
    gini: float
    """Gini coefficient of interactions over items: 0, all are equally popular; near 1, one has
    nearly all."""
    popularity_curve: tuple[tuple[float, float], ...]
    """(share of items, share of interactions with the most popular of them), from 0 to 1."""
    items_without: int
    """Items that no interaction is with."""
    most_popular: tuple[PopularItem, ...]
    """The items that most interactions are with, the most popular first."""
    repeat_share: float
    """Share of interactions with an item that the user had before."""
    timeline: Timeline | None
    """When events happened; None: the corpus has no times."""
    attributes: AttributeCoverage
    """How items and attributes are spread over each other."""


def profile_of(corpus: Corpus) -> CorpusProfile:
    """The profile of a corpus, which `Corpus.verify` has passed."""
    lengths = np.diff(corpus.offsets)
    counts = np.bincount(corpus.items, minlength=corpus.num_items)
    descending = np.sort(counts)[::-1]
    return CorpusProfile(
        name=corpus.name,
        fingerprint=corpus.fingerprint,
        users=corpus.num_users,
        items=corpus.num_items,
        interactions=corpus.num_interactions,
        mean_length=share_of(corpus.num_interactions, corpus.num_users),
        lengths=quantiles_of(lengths),
        length_bins=length_bins(lengths),
        top_shares=tuple((share, top_share(descending, share)) for share in TOP_SHARES),
        gini=gini(counts),
        popularity_curve=tuple(
            (share, top_share(descending, share))
            for share in np.linspace(0.0, 1.0, CURVE_POINTS).tolist()
        ),
        items_without=int((counts == 0).sum()),
        most_popular=most_popular(corpus, counts),
        repeat_share=share_of(int(Repeats.of(corpus).repeated_N.sum()), corpus.num_interactions),
        timeline=timeline(corpus),
        attributes=coverage(corpus),
    )


def quantiles_of(values: NDArray[np.int64]) -> tuple[tuple[float, float], ...]:
    """(share, value that this share of `values` does not exceed); empty for no values."""
    if not len(values):
        return ()
    found = np.quantile(values, QUANTILES, method="inverted_cdf")
    return tuple(zip(QUANTILES, map(float, found), strict=True))


def length_bins(lengths: NDArray[np.int64]) -> tuple[LengthBin, ...]:
    """Users by history length in bins 1, 2 to 3, 4 to 7 and so on; a length of 0 is a bin."""
    # frexp gives the number of binary digits: 0 for 0, 1 for 1, 2 for 2 and 3.
    digits = np.frexp(lengths.astype(np.float64))[1]
    return tuple(
        LengthBin(1 << number >> 1, max((1 << number) - 1, 0), users)
        for number, users in enumerate(np.bincount(digits).tolist())
        if number or users
    )


def top_share(descending: NDArray[np.int64], share: float) -> float:
    """Share of interactions with the most popular `share` of items, rounded up to whole items."""
    # A share of items such as 0.1 of 30 may come out a little above the whole number.
    number = int(np.ceil(share * len(descending) - 1e-9))
    return share_of(int(descending[:number].sum()), int(descending.sum()))


def most_popular(corpus: Corpus, counts: NDArray[np.int64]) -> tuple[PopularItem, ...]:
    """The `MOST_COMMON` most popular items that have interactions, by their `counts`."""
    titles = corpus.item_titles
    return tuple(
        PopularItem(
            corpus.item_names[item], "" if titles is None else titles[item], int(counts[item])
        )
        for item in np.argsort(-counts, kind="stable")[:MOST_COMMON].tolist()
        if counts[item]
    )


def gini(counts: NDArray[np.int64]) -> float:
    """The Gini coefficient of counts: their mean absolute difference over twice their mean."""
    total, number = int(counts.sum()), len(counts)
    if not total:
        return 0.0
    weights = 2 * np.arange(1, number + 1) - number - 1
    return float(np.dot(weights.astype(np.float64), np.sort(counts))) / (number * total)


def timeline(corpus: Corpus) -> Timeline | None:
    """When the events of a corpus happened; None: it has no times, or no events."""
    if corpus.timestamps is None or not corpus.num_interactions:
        return None
    times = np.asarray(corpus.timestamps)
    first, last = int(times.min()), int(times.max())
    finer = FinerTimes.of(corpus)
    units = units_of_a_second(last)
    days = None if units is None else (last - first) / units / SECONDS_OF_A_DAY
    return Timeline(
        first=first,
        last=last,
        days=days,
        months=() if units is None else events_per_month(times, units * SECONDS_OF_A_DAY),
        tied_share=(
            tie_shares(times, corpus.offsets)["tied_interactions"]
            if finer is None
            else finer.tied_share
        ),
    )


def events_per_month(times: NDArray[np.int64], units_of_a_day: int) -> tuple[tuple[str, int], ...]:
    """(month as 2026-11, events) from the first to the last month; empty for over `MAX_DAYS`."""
    days = times // units_of_a_day
    first, last = int(days.min()), int(days.max())
    if last - first > MAX_DAYS:
        return ()
    per_day = np.bincount(days - first)
    months = np.arange(first, last + 1).astype("datetime64[D]").astype("datetime64[M]")
    per_month = np.bincount((months - months[0]).astype(np.int64), weights=per_day)
    names = np.datetime_as_string(np.arange(months[0], months[-1] + np.timedelta64(1, "M")))
    return tuple(zip(names.tolist(), map(int, per_month), strict=True))


def coverage(corpus: Corpus) -> AttributeCoverage:
    """How items and attributes are spread over each other."""
    sizes = np.diff(corpus.attribute_offsets)
    items = np.bincount(corpus.attribute_ids, minlength=corpus.num_attributes)
    most_common = np.argsort(-items, kind="stable")[:MOST_COMMON].tolist()
    return AttributeCoverage(
        attributes=corpus.num_attributes,
        items_without=int((sizes == 0).sum()),
        per_item=share_of(len(corpus.attribute_ids), corpus.num_items),
        most_per_item=int(sizes.max(initial=0)),
        most_common=tuple((corpus.attribute_names[each], int(items[each])) for each in most_common),
    )
