"""Statistics of rank tables: a cell's mean and interval, and its comparison to the base cell.

The unit is a user's value of a metric (`metrics.per_user`). A cell has one table a seed, and all
its tables have the same questions, so everything is paired, user by user and seed by seed (an
unpaired test would be wrong for the same users). How users and seeds enter the intervals and tests
is told in `variance_components.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.errors import InputError
from research.evaluation.list_table import Table
from research.evaluation.metrics import per_user, range_of
from research.evaluation.protocol import check_comparable
from research.evaluation.resampling import ROUNDING, Values, sign_flip_p
from research.evaluation.ties import TiePolicy
from research.evaluation.variance_components import interval_of, spread_of

# Resamples of an interval; its ends then vary by about 2 % of its width.
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Estimate:
    """A cell's value of one metric, with its confidence interval."""

    mean: float
    """Mean over seeds and users."""
    deviation: float | None
    """Standard deviation of the per-seed means (S - 1 in the denominator); None with one seed."""
    low: float
    """Lower end of the interval over users and seeds (over users with one seed); it is within the
    range of the metric or of its differences."""
    high: float
    """Upper end of the same interval."""
    seeds: int
    """S, the number of seeds."""
    users: int
    """U, the number of users."""


@dataclass(frozen=True)
class Comparison:
    """A cell minus the base cell, paired by user and seed."""

    difference: float
    """Mean over seeds and users; positive: the cell is above the base."""
    low: float
    """Lower end of the interval over users and seeds (over users with one seed); it is within the
    range of the metric or of its differences."""
    high: float
    """Upper end of the same interval."""
    p: float
    """Two-sided p-value, not yet corrected. With one seed: that of the sign-flip test over users.
    Its null hypothesis is that a user's two values, from these trained runs, are exchangeable. With
    several seeds: the larger of that and of the generalized p-value (`Spread.p`), whose null
    hypothesis is that new training runs for new users have a mean difference of 0; a difference
    between runs that only their seeds explain is then not significant."""
    effect: float
    """Paired Cohen's d_z: mean over standard deviation of the users' differences, each a mean over
    seeds; 0 when all are 0, infinite when all are equal and not 0."""
    smallest: float
    """Smallest true difference that such a comparison would detect with a power of 0.8; infinite
    where even the largest difference that the metric can have would not be detected."""
    seeds: int
    """S, the number of seeds."""
    users: int
    """U, the number of users."""

    def significant(self, p_corrected: float, alpha: float = 0.05) -> bool:
        """Whether the corrected p-value is below `alpha` and the interval excludes 0."""
        return is_significant(p_corrected, self.low, self.high, alpha)


def is_significant(p_corrected: float, low: float, high: float, alpha: float) -> bool:
    """Whether a corrected p-value is below `alpha` and the interval excludes 0."""
    return p_corrected < alpha and (low > 0.0 or high < 0.0)


def estimate(
    tables: Sequence[Table],
    metric: str,
    *,
    ties: TiePolicy = "expected",
    level: float = 0.95,
    resamples: int = BOOTSTRAP,
    seed: int = 0,
) -> Estimate:
    """The mean of a cell's tables, one a seed, with its percentile bootstrap interval.

    `ties` says what the metric is where candidates tie, `level` is the interval's coverage, `seed`
    is the seed of its resamples. `InputError` when the tables differ in protocol or questions, when
    there is no table, or when the tables have fewer than two users.
    """
    values = user_values(tables, metric, ties)
    bounds = range_of(metric)
    return estimate_of(values, level=level, resamples=resamples, seed=seed, bounds=bounds)


def estimate_of(
    values: Values,
    *,
    level: float = 0.95,
    resamples: int = BOOTSTRAP,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The mean and interval of values [S, U], as `estimate` gives them for those of a cell.

    `bounds` are the least and the greatest value that a mean of them can have.
    """
    deviation = float(values.mean(1).std(ddof=1)) if len(values) > 1 else None
    low, high = interval_of(values, level, resamples, np.random.default_rng(seed), bounds)
    return Estimate(float(values.mean()), deviation, low, high, *values.shape)


def compare(
    tables: Sequence[Table],
    base_tables: Sequence[Table],
    metric: str,
    *,
    ties: TiePolicy = "expected",
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> Comparison:
    """Compare a cell to the base, paired by user and seed; correct the p-values with `holm`.

    `tables` and `base_tables` have one table a seed, in the same order of seeds; a side of one
    table (a ranker that only counts) is paired with all tables of the other. `resamples` is the
    number of sign flips; the interval, of coverage `level`, takes at most 2,000 resamples.
    `smallest` is for a test at level `alpha`; give alpha / m for what Holm's first step over m
    comparisons could detect. `InputError` as for `estimate`, and when the numbers of tables cannot
    be paired.
    """
    differences = paired_differences(tables, base_tables, metric, ties)
    least, greatest = range_of(metric)
    return comparison_of(
        differences,
        level=level,
        resamples=resamples,
        seed=seed,
        alpha=alpha,
        bounds=(least - greatest, greatest - least),
    )


def comparison_of(
    differences: Values,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Comparison:
    """What `compare` says of differences [S, U], one for each seed and user.

    `bounds` are the least and the greatest value that a mean of them can have.
    """
    by_user = differences.mean(0)
    smallest = spread_of(differences).smallest(alpha)
    generator = np.random.default_rng(seed)
    p = difference_p(differences, resamples, generator)
    low, high = interval_of(differences, level, min(resamples, BOOTSTRAP), generator, bounds)
    return Comparison(
        difference=float(by_user.mean()),
        low=low,
        high=high,
        p=p,
        effect=_effect(by_user),
        smallest=smallest if smallest <= max(bounds) else np.inf,
        seeds=len(differences),
        users=len(by_user),
    )


def paired_differences(
    tables: Sequence[Table], base_tables: Sequence[Table], metric: str, ties: TiePolicy
) -> Values:
    """A cell's values minus the base's by seed and user, float64 [S, U], users ascending.

    `InputError` as for `compare`.
    """
    if len(tables) != len(base_tables) and 1 not in (len(tables), len(base_tables)):
        raise InputError(
            f"{len(tables)} rank tables cannot be paired with {len(base_tables)}: give one a seed "
            "for the same seeds on both sides, or one that serves all seeds"
        )
    _check([*tables, *base_tables], metric)
    return _values(tables, metric, ties) - _values(base_tables, metric, ties)


def difference_p(differences: Values, resamples: int, generator: np.random.Generator) -> float:
    """The two-sided p-value of differences [S, U] that `Comparison` describes.

    `resamples` is the number of sign flips. Other contrasts of cells, by seed and user, are tested
    by it just as well.
    """
    by_user = differences.mean(0)
    p = sign_flip_p(by_user, resamples, generator)
    if len(differences) == 1:
        return p
    return max(p, spread_of(differences).p(float(by_user.mean())))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for multiple comparisons, in the order given (Holm 1979).

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; each is at least
    the one before and at most 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for num_smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - num_smaller) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def _effect(by_user: Values) -> float:
    mean = float(by_user.mean())
    if np.all(np.abs(by_user) <= ROUNDING):
        return 0.0
    if np.ptp(by_user) <= ROUNDING:
        return float(np.copysign(np.inf, mean))
    return mean / float(by_user.std(ddof=1))


def user_values(tables: Sequence[Table], metric: str, ties: TiePolicy = "expected") -> Values:
    """A metric by table and user, float64 [S, U]; `InputError` as for `estimate`."""
    _check(tables, metric)
    return _values(tables, metric, ties)


def _check(tables: Sequence[Table], metric: str) -> None:
    if not tables:
        raise InputError(f"{metric}: there is no rank table; give one for each seed")
    for table in tables:
        check_comparable(tables[0], table)
    users = len(np.unique(tables[0].user))
    if users < 2:
        raise InputError(f"{metric}: {users} user cannot give an interval; at least 2 are needed")


def _values(tables: Sequence[Table], metric: str, ties: TiePolicy) -> Values:
    """The metric by table and user, float64 [S, U], users ascending."""
    return np.stack([per_user(table, metric, ties)[1] for table in tables])
