"""The slow twins of list metrics: plain loops over lists, written from the formulas.

A list has dense items, the best first, and no more than K of them count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import log2
from statistics import fmean

import numpy as np

from research.evaluation.list_table import ListTable

Lists = Sequence[Sequence[int]]


def table_of(
    lists: Lists,
    num_items: int,
    *,
    trained: Lists = (),
    histories: Lists | None = None,
    attributes: Lists | None = None,
    length: int | None = None,
    **protocol: object,
) -> ListTable:
    """A list table of user 0, 1, ...; `trained` has the training histories, one a user.

    `histories` are those that the lists follow (as trained, without them), `attributes` has those
    of each item, ascending, and `length` is K.
    """
    histories = trained if histories is None else histories
    attributes = [[] for _ in range(num_items)] if attributes is None else attributes
    length = max(map(len, lists)) if length is None else length
    listed = sorted({item for each in lists for item in each})
    place = np.full((len(lists), length), -1, np.int32)
    repeated = np.zeros((len(lists), length), bool)
    popularity = np.zeros(len(lists))
    counts = [sum(each.count(item) for each in map(list, trained)) for item in range(num_items)]
    for user, items in enumerate(lists):
        place[user, : len(items)] = [listed.index(item) for item in items]
        if user < len(histories) and histories[user]:
            repeated[user, : len(items)] = [item in histories[user] for item in items]
            popularity[user] = fmean(counts[item] for item in histories[user])
    of_listed = [attributes[item] for item in listed]
    return ListTable(
        user=np.arange(len(lists), dtype=np.int32),
        place=place,
        repeated=repeated,
        history_popularity=popularity,
        item=np.array(listed, np.int32),
        item_count=np.array([counts[item] for item in listed], np.int32),
        item_users=np.array([sum(item in each for each in trained) for item in listed], np.int32),
        attribute_offsets=np.cumsum([0, *map(len, of_listed)]),
        attribute_ids=np.array([each for ids in of_listed for each in ids], np.int32),
        num_items=num_items,
        num_users=max(1, len(trained)),
        num_attributes=1 + max((each for ids in attributes for each in ids), default=-1),
        protocol={"part": "test", "seen": "kept", **protocol},
    )


def coverage(lists: Lists, num_items: int) -> float:
    """The share of items that stand in any list."""
    return len({item for each in lists for item in each}) / num_items


def gini(lists: Lists, num_items: int) -> float:
    """Half the mean absolute difference of two items' frequencies, over their mean."""
    frequencies = [sum(item in each for each in lists) for item in range(num_items)]
    total = sum(frequencies)
    if total == 0:
        return 0.0
    differences = sum(abs(one - other) for one in frequencies for other in frequencies)
    return differences / (2 * num_items * total)


def influences(lists: Lists, whole: Callable[[Lists], float]) -> list[float]:
    """The metric of all lists plus each user's jackknife influence, one user left out at a time."""
    left = [whole([*lists[:user], *lists[user + 1 :]]) for user in range(len(lists))]
    return [whole(lists) + (len(lists) - 1) * (fmean(left) - each) for each in left]


def novelty(items: Sequence[int], trained: Lists) -> float:
    """The mean of log2(users / users of the item), who are at least one."""
    if not items:
        return 0.0
    users = [max(1, sum(item in each for each in trained)) for item in items]
    return fmean(log2(len(trained) / each) for each in users)


def popularity(items: Sequence[int], trained: Lists) -> float:
    """The mean number of training interactions."""
    if not items:
        return 0.0
    return fmean(sum(each.count(item) for each in map(list, trained)) for item in items)


def diversity(items: Sequence[int], attributes: Lists) -> float:
    """The mean Jaccard distance over pairs; 0 of two items without attributes, and of no pair."""
    distances = []
    for one, other in combinations(items, 2):
        either = set(attributes[one]) | set(attributes[other])
        shared = set(attributes[one]) & set(attributes[other])
        distances.append(1 - len(shared) / len(either) if either else 0.0)
    return fmean(distances) if distances else 0.0


def lift(lists: Lists, histories: Lists, trained: Lists) -> float:
    """Popularity of lists over popularity of histories, minus 1; means of users' means."""
    of_lists = fmean(popularity(each, trained) for each in lists)
    return of_lists / fmean(popularity(each, trained) for each in histories) - 1


def values_of_users(
    lists: Lists, num_items: int, trained: Lists, attributes: Lists
) -> Mapping[str, list[float]]:
    """Every metric by user, of lists that are cut to K already and follow `trained`."""
    repeats = [
        fmean(item in history for item in items) if items else 0.0
        for items, history in zip(lists, trained)
    ]
    return {
        "coverage": influences(lists, lambda some: coverage(some, num_items)),
        "gini": influences(lists, lambda some: gini(some, num_items)),
        "novelty": [novelty(items, trained) for items in lists],
        "arp": [popularity(items, trained) for items in lists],
        "diversity": [diversity(items, attributes) for items in lists],
        "repeat": repeats,
        "explore": [1 - each if items else 0.0 for each, items in zip(repeats, lists)],
    }
