"""The slow twins of statistics, and rank tables with given values to try them on.

Written from the definitions: one sign or one index a user, one seed's error a seed.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from research.evaluation.rank_table import RankTable


def table_of(values: Sequence[float] | np.ndarray, **protocol: object) -> RankTable:
    """A table in which the MRR of user u is `values[u]`, 0 to 1; HR@1 tells 1 from less."""
    given = np.asarray(values, np.float64)
    users = np.arange(len(given), dtype=np.int32)
    ranks = np.full(len(given), np.inf)
    np.divide(1.0, given, out=ranks, where=given > 0)
    ones = np.ones(len(given), np.int32)
    return RankTable(
        user=users,
        item=users + 100,
        rank=ranks,
        ties=ones - 1,
        history_length=ones,
        item_count=ones,
        protocol={"part": "test", "candidates": "full", **protocol},
    )


def tables_of(values: np.ndarray) -> list[RankTable]:
    """One table a row."""
    return [table_of(row) for row in values]


def every_sign_p(differences: Sequence[float]) -> float:
    """Over all patterns of signs: how many give a sum at least as far from 0."""
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(each >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)


def flipped_sums(sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of sizes under signs drawn one by one."""
    draws = np.random.default_rng(seed)
    return np.array([(sizes * draws.choice([-1, 1], len(sizes))).sum() for _ in range(resamples)])


def index_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of users drawn by index."""
    draws = np.random.default_rng(seed)
    picked = (draws.integers(0, len(values), len(values)) for _ in range(resamples))
    return np.array([values[each].mean() for each in picked])


def bootstrap_of_users_and_seeds(
    values: np.ndarray, resamples: int, seed: int, least: float = 0.0, greatest: float = 1.0
) -> np.ndarray:
    """Means of values [S, U] from least to greatest: users drawn by index, plus what the seeds add.

    The variance of the seeds' means, over the mean square of S - 1 normal draws, is what it might
    truly be; users' own reactions to each seed are taken off, as their means hold them already. It
    is added to the angle whose squared sine is the share of the mean between least and greatest.
    """
    draws = np.random.default_rng(seed)
    seeds, users = values.shape
    by_user = np.array([np.mean(column) for column in values.T])
    by_seed = np.array([np.mean(row) for row in values])
    reactions = 0.0
    for s in range(seeds):
        for u in range(users):
            reactions += (values[s, u] - by_user[u] - by_seed[s] + values.mean()) ** 2
    reactions /= (seeds - 1) * (users - 1)
    means = []
    for _ in range(resamples):
        mean = by_user[draws.integers(0, users, users)].mean()
        scale = np.mean(draws.standard_normal(seeds - 1) ** 2)
        variance = by_seed.var(ddof=1) / seeds / scale - reactions / (seeds * users)
        share = (values.mean() - least) / (greatest - least)
        slope = 2 * (share * (1 - share)) ** 0.5 * (greatest - least)
        angle = np.arcsin(((mean - least) / (greatest - least)) ** 0.5)
        angle += max(variance, 0.0) ** 0.5 * draws.standard_normal() / slope
        angle = min(max(angle, 0.0), np.pi / 2)
        means.append(least + (greatest - least) * np.sin(angle) ** 2)
    return np.array(means)
