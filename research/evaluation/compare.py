"""Paired comparison of two rank tables: the mean difference of a metric and its standard error.

The same users answer under both rankers, so differences are taken user by user (T61): what is hard
for both cancels out. Tables are compared only when they answer the same questions under one
protocol.
"""

from __future__ import annotations

import numpy as np

from research.errors import InputError
from research.evaluation.metrics import per_user
from research.evaluation.rank import RankTable


def paired_difference(table_a: RankTable, table_b: RankTable, metric: str) -> tuple[float, float]:
    """(mean over users of a's value minus b's, standard error of that mean).

    The standard error is the sample standard deviation of the differences over the root of the
    number of users. `InputError` says in what the tables differ when they cannot be compared.
    """
    _check_comparable(table_a, table_b)
    users, values_a = per_user(table_a, metric)
    _, values_b = per_user(table_b, metric)
    if len(users) < 2:
        raise InputError(
            f"{metric}: {len(users)} user cannot give a standard error; at least 2 are needed"
        )
    differences = values_a - values_b
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(users)))


def _check_comparable(table_a: RankTable, table_b: RankTable) -> None:
    """`InputError` unless the protocols, the users and their held-out items are the same."""
    names = sorted(table_a.protocol.keys() | table_b.protocol.keys())
    differing = [
        f"{name} is {table_a.protocol.get(name)!r} and {table_b.protocol.get(name)!r}"
        for name in names
        if table_a.protocol.get(name) != table_b.protocol.get(name)
    ]
    if differing:
        raise InputError(
            f"the rank tables differ in protocol: {'; '.join(differing)}; compare runs that were "
            "evaluated alike"
        )
    only_a = np.setdiff1d(table_a.user, table_b.user)
    only_b = np.setdiff1d(table_b.user, table_a.user)
    if len(only_a) or len(only_b):
        raise InputError(
            f"the rank tables differ in users: {len(only_a)} stand only in the first and "
            f"{len(only_b)} only in the second (dense id {np.r_[only_a, only_b][0]}, for example)"
        )
    if _questions(table_a) != _questions(table_b):
        raise InputError("the rank tables differ in the held-out items of some users")


def _questions(table: RankTable) -> list[tuple[int, int]]:
    return sorted(zip(table.user.tolist(), table.item.tolist()))
