"""Metrics of rank tables: HR, NDCG, MRR, Recall, Precision, MAP at k.

A metric is named `hr@10`, `ndcg@10`, `mrr`, `mrr@10`, `recall@10`, `precision@10`, `map@10`. Each
is a mean over users; with one held-out item a user (leave-one-out) a user is a row. Values are at
full precision (T59); means are sums divided once (T57). Where candidates tie, a metric is its
expectation over their orders ("expected"), or that of the mean ranks ("mean").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from research.config import meant
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import (
    Floats,
    Integers,
    TieGroups,
    TiePolicy,
    discounts,
    hit_and_reciprocal,
    reciprocals,
)

KINDS = ("hr", "ndcg", "mrr", "recall", "precision", "map")


def parse(name: str) -> tuple[str, float]:
    """(kind, k) of a metric's name; k is infinite for a plain `mrr`. `InputError` if unknown."""
    found = re.fullmatch(r"([a-z]+)(?:@([1-9][0-9]{0,8}))?", name)
    if found and found[1] in KINDS and (found[2] or found[1] == "mrr"):
        return found[1], float(found[2] or np.inf)
    forms = [f"{kind}@K" for kind in KINDS]
    raise InputError(
        f"metric {name!r} does not exist; allowed: {', '.join(forms)} with K a whole number from "
        f"1, and mrr{meant(name.lower().partition('@')[0] + '@K', forms)}"
    )


def parse_all(names: Iterable[str], field: str) -> None:
    """`InputError`, which names the field that holds them, for a metric that does not exist."""
    for name in names:
        try:
            parse(name)
        except InputError as error:
            raise InputError(f"{field}: {error}") from error


def per_user(table: RankTable, name: str, ties: TiePolicy = "expected") -> tuple[Integers, Floats]:
    """(users [U], value of each [U]), users ascending; the input of paired tests.

    HR: any held-out item within k. Recall: their share within k. Precision: their number within k
    over k. MRR: of the best one. NDCG, MAP: binary relevance, normalized by the best order.
    """
    users, values = _per_user(table, [name], ties)
    return users, values[0]


def metrics(
    table: RankTable, names: Sequence[str], ties: TiePolicy = "expected"
) -> dict[str, float]:
    """Each metric's mean over users."""
    _, values = _per_user(table, names, ties)
    return {name: float(value.mean()) for name, value in zip(names, values)}


def _per_user(
    table: RankTable, names: Sequence[str], ties: TiePolicy
) -> tuple[Integers, list[Floats]]:
    """Users, and a value of each by metric."""
    unique, owner = np.unique(table.user, return_inverse=True)
    groups, relevant = TieGroups.of(table, owner, ties), np.bincount(owner)
    return unique.astype(np.int64), [_values(groups, relevant, *parse(name)) for name in names]


def _values(groups: TieGroups, relevant: Integers, kind: str, k: float) -> Floats:
    """[U] a metric's expectation by user, of whom `relevant` [U] items are held out."""
    groups = groups.best() if kind in ("hr", "mrr") else groups

    def total(values: Floats) -> Floats:
        summed: Floats = np.bincount(groups.owner, values, len(relevant)).astype(np.float64)
        return summed

    if kind in ("hr", "mrr"):
        return total(hit_and_reciprocal(groups, k)[kind == "mrr"])
    within = groups.within(k)
    if kind in ("recall", "precision"):
        found = total(groups.number * within / groups.size)
        return found / relevant if kind == "recall" else found / k
    chance = groups.number / groups.size
    most: Integers = np.minimum(relevant, int(k))
    if kind == "ndcg":
        ideal: Floats = np.cumsum(1.0 / np.log2(np.arange(relevant.max()) + 2.0))
        return total(chance * discounts(groups.first, within)) / ideal[most - 1]
    # MAP: a held-out item at a place has there or before it those of better groups, itself and, of
    # the n - 1 others of its group, the share (place - first) / (N - 1), all that over the place.
    others = (groups.number - 1.0) / np.maximum(groups.size - 1.0, 1.0)
    sums = reciprocals(groups.first, within)
    counted = (groups.before + 1.0) * sums + others * (within - groups.first * sums)
    return total(chance * counted) / most


def missed_share(table: RankTable) -> float:
    """Share of held-out items that stood in the history and could not be hit."""
    return float(np.isinf(table.rank).mean())
