"""Metrics of rank tables: HR, NDCG, MRR, Recall, Precision, MAP at k.

A metric is named `hr@10`, `ndcg@10`, `mrr`, `mrr@10`, `recall@10`, `precision@10`, `map@10` or
`map-r@10`. Each is a mean over users; with one held-out item a user (leave-one-out) a user is a
row. A user who is asked after several histories (`TemporalCut.target` "successive") has a ranking
of each, and counts with their mean. `map@k` divides a ranking's sum of precisions by min(R, k), R
being the number of held-out items in it, so that the best order is worth 1; `map-r@k` divides it by
R, as trec_eval (`map_cut_k`), ranx and RecTools do, so that the best order is worth k / R where R
is above k. With one held-out item the two are equal. Values are never rounded (docs/pitfalls.md,
"improvements rounded away"), and a mean is a sum divided once (docs/pitfalls.md, "mean of batch
means"). Where candidates tie, a metric is its expectation over all orders of them ("expected"), or
its value at their mean rank ("mean").

Metrics of recommended lists, such as `coverage@10`, have names of the same form; `list_metrics.py`
explains and computes them, from list tables instead of rank tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from research.annotations import did_you_mean
from research.errors import InputError
from research.evaluation.list_metrics import LIST_METRICS, LIST_RANGES, list_values
from research.evaluation.list_table import ListTable, Table
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

# Of rank tables; `LIST_METRICS` has those of list tables.
KINDS = ("hr", "ndcg", "mrr", "recall", "precision", "map", "map-r")


def parse_metric(name: str) -> tuple[str, float]:
    """(kind, k) of a metric's name, k infinite for a plain `mrr`; `InputError` if unknown."""
    match = re.fullmatch(r"([a-z-]+)(?:@([1-9][0-9]{0,8}))?", name)
    kinds = (*KINDS, *LIST_METRICS)
    if match and match[1] in kinds and (match[2] or match[1] == "mrr"):
        return match[1], float(match[2] or np.inf)
    forms = [f"{kind}@K" for kind in kinds]
    raise InputError(
        f"metric {name!r} does not exist; allowed: {', '.join(forms)} with K a whole number from "
        f"1, and mrr{did_you_mean(name.lower().partition('@')[0] + '@K', forms)}"
    )


def of_ranks(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics that are computed from rank tables; `InputError` for an unknown name."""
    return tuple(name for name in names if parse_metric(name)[0] in KINDS)


def of_lists(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics that are computed from list tables; `InputError` for an unknown name."""
    return tuple(name for name in names if parse_metric(name)[0] in LIST_METRICS)


def range_of(name: str) -> tuple[float, float]:
    """The lowest and the highest value that a metric can have; `InputError` if unknown."""
    return LIST_RANGES.get(parse_metric(name)[0], (0.0, 1.0))


def check_metric_names(names: Iterable[str], field: str) -> None:
    """Raise `InputError`, naming the config field `field`, if one of the metrics does not exist."""
    for name in names:
        try:
            parse_metric(name)
        except InputError as error:
            raise InputError(f"{field}: {error}") from error


def per_user(table: Table, name: str, ties: TiePolicy = "expected") -> tuple[Integers, Floats]:
    """The users, int64 [U] ascending, and a metric of each, float64 [U]; the input of paired tests.

    HR: 1 if any held-out item is within the first k. Recall: the share of held-out items within k.
    Precision: their number within k, over k. MRR: the reciprocal rank of the best one. NDCG and
    MAP: binary relevance, normalized by the best possible order; `map-r`: by the number of held-out
    items, also where that is above k. All are of one ranking; a user with several has their mean.
    Metrics of lists: see `list_metrics.py`. `InputError` for an
    unknown name, and for one of the other kind of table.
    """
    users, values = _per_user(table, [name], ties)
    return users, values[0]


def metrics(table: Table, names: Sequence[str], ties: TiePolicy = "expected") -> dict[str, float]:
    """Each metric's mean over users, by name; `InputError` as for `per_user`."""
    _, values = _per_user(table, names, ties)
    return {name: float(value.mean()) for name, value in zip(names, values)}


def _per_user(table: Table, names: Sequence[str], ties: TiePolicy) -> tuple[Integers, list[Floats]]:
    """The users, int64 [U] ascending, and for each metric their values, float64 [U]."""
    parsed = [parse_metric(name) for name in names]
    kinds, needed = (LIST_METRICS, "rank") if isinstance(table, ListTable) else (KINDS, "list")
    for name, (kind, _) in zip(names, parsed):
        if kind not in kinds:
            raise InputError(f"{name} is computed from a {needed} table, not from this one")
    if isinstance(table, ListTable):
        return table.user.astype(np.int64), [list_values(table, *each) for each in parsed]
    rankings, owner = np.unique(table.ranking, return_inverse=True)
    groups, relevant = TieGroups.of(table, owner, ties), np.bincount(owner)
    users, user_of = np.unique(rankings >> 32, return_inverse=True)
    num_rankings = np.bincount(user_of)
    values = [_values(groups, relevant, *each) for each in parsed]
    return users, [np.bincount(user_of, each) / num_rankings for each in values]


def _values(groups: TieGroups, relevant: Integers, kind: str, k: float) -> Floats:
    """Expectation of a metric by ranking, float64 [R]; `relevant` [R] counts held-out items."""
    groups = groups.best_groups() if kind in ("hr", "mrr") else groups

    def total(values: Floats) -> Floats:
        summed: Floats = np.bincount(groups.owner, values, len(relevant)).astype(np.float64)
        return summed

    if kind in ("hr", "mrr"):
        return total(hit_and_reciprocal(groups, k)[kind == "mrr"])
    within = groups.within(k)
    if kind in ("recall", "precision"):
        hits = total(groups.number * within / groups.size)
        return hits / relevant if kind == "recall" else hits / k
    hit_probability = groups.number / groups.size
    max_hits: Integers = np.minimum(relevant, int(k))
    if kind == "ndcg":
        ideal: Floats = np.cumsum(1.0 / np.log2(np.arange(relevant.max()) + 2.0))
        return total(hit_probability * discounts(groups.first, within)) / ideal[max_hits - 1]
    # MAP adds up the precision at the place of each held-out item: the number of held-out items at
    # or before that place, over the place. These are the ones in better groups, the item itself,
    # and of the n - 1 others in its group an expected share of (place - first) / (N - 1).
    others = (groups.number - 1.0) / np.maximum(groups.size - 1.0, 1.0)
    sums = reciprocals(groups.first, within)
    counted = (groups.before + 1.0) * sums + others * (within - groups.first * sums)
    return total(hit_probability * counted) / (relevant if kind == "map-r" else max_hits)


def missed_share(table: RankTable) -> float:
    """Share (0 to 1) of held-out items that are excluded as seen, and so cannot be hit."""
    return float(np.isinf(table.rank).mean())
