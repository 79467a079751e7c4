"""Metrics of rank tables: HR, NDCG, MRR, Recall, Precision, MAP at k.

A metric is named `hr@10`, `ndcg@10`, `mrr`, `mrr@10`, `recall@10`, `precision@10`, `map@10`. Each
is a mean over users; with one held-out item a user (leave-one-out) a user is a row. Values are at
full precision (T59); means are sums divided once (T57).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.rank import RankTable

KINDS = ("hr", "ndcg", "mrr", "recall", "precision", "map")


def parse(name: str) -> tuple[str, float]:
    """(kind, k) of a metric's name; k is infinite for a plain `mrr`. `InputError` if unknown."""
    found = re.fullmatch(r"([a-z]+)(?:@([1-9][0-9]{0,8}))?", name)
    if found and found[1] in KINDS and (found[2] or found[1] == "mrr"):
        return found[1], float(found[2] or np.inf)
    near = difflib.get_close_matches(name, [f"{kind}@10" for kind in KINDS] + ["mrr"], 1, 0.3)
    raise InputError(
        f"metric {name!r} does not exist; allowed: "
        f"{', '.join(f'{kind}@K' for kind in KINDS)} with K a whole number from 1, and mrr"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def per_user(table: RankTable, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(users [U], value of each [U]), users ascending; the input of paired tests.

    HR: any held-out item within k. Recall: their share within k. Precision: their number within k
    over k. MRR: of the best one. NDCG, MAP: binary relevance, normalized by the best order.
    """
    kind, k = parse(name)
    unique, owner = np.unique(table.user, return_inverse=True)
    users = unique.astype(np.int64)
    relevant = np.bincount(owner)
    ranks = spread(table.rank, owner)
    hits = ranks <= k

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.bincount(owner, values, len(users)).astype(np.float64)
        return summed

    found = total(hits.astype(np.float64))
    if kind == "hr":
        return users, (found > 0).astype(np.float64)
    if kind == "recall":
        return users, found / relevant
    if kind == "precision":
        return users, found / k
    if kind == "mrr":
        best = np.zeros(len(users))
        np.maximum.at(best, owner, np.where(hits, 1.0 / ranks, 0.0))
        return users, best
    if kind == "ndcg":
        gains = total(np.where(hits, 1.0 / np.log2(ranks + 1.0), 0.0))
        ideal = np.cumsum(1.0 / np.log2(np.arange(relevant.max()) + 2.0))
        return users, gains / ideal[np.minimum(relevant, int(k)) - 1]
    # MAP: the j-th of a user's held-out items, by rank, has precision j / rank.
    order = np.lexsort((ranks, owner))
    place = np.empty(len(order))
    place[order] = np.arange(len(order)) - np.searchsorted(owner[order], owner[order]) + 1.0
    precisions = total(np.where(hits, place / ranks, 0.0))
    return users, precisions / np.minimum(relevant, int(k))


def spread(rank: NDArray[np.float64], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks with a user's own held-out items that tie with each other set one place apart.

    They stand at one mean rank, but they cannot share a place: all of them within k would count
    more hits than there are places. Around the same mean, the order among them does not matter.
    """
    order = np.lexsort((rank, owner))
    ranks, owners = rank[order], owner[order]
    starts = np.r_[True, (ranks[1:] != ranks[:-1]) | (owners[1:] != owners[:-1])]
    group = np.cumsum(starts) - 1
    sizes = np.bincount(group)
    place = np.arange(len(rank)) - np.flatnonzero(starts)[group]
    apart = np.empty(len(rank))
    apart[order] = ranks + (place - (sizes[group] - 1) / 2)
    assert np.all(apart >= 1.0), "ties of a user's own held-out items: an item asked for twice"
    return apart


def metrics(table: RankTable, names: Sequence[str]) -> dict[str, float]:
    """Each metric's mean over users."""
    return {name: float(per_user(table, name)[1].mean()) for name in names}


def missed_share(table: RankTable) -> float:
    """Share of held-out items that stood in the history and could not be hit."""
    return float(np.isinf(table.rank).mean())
