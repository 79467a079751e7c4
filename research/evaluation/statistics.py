"""Statistics of rank tables: a cell's mean and interval, and its comparison to the base cell.

The unit is a user's value of a metric (`metrics.per_user`). A cell has one table a seed, and all
its tables have the same questions, so everything is paired, user by user and seed by seed (an
unpaired test would be wrong for the same users). A value varies for two reasons, the users and the
seeds; its mean over S seeds and U users has the variance

    var(users' means) / U  +  what the seeds add.

Users are many, and are resampled. Seeds are few. The variance of the mean over the S seed means is
`between` = var / S. A part `within` of it comes only from each user's own reaction to a seed, and
the users' means contain that part already. Resampling S values would show only (S - 1) / S of their
variance and nothing of its uncertainty. With Satterthwaite's degrees of freedom for the sum, tests
at the level of 5 % still find a difference in up to 8 % (S = 3) or 13 % (S = 2) of the comparisons
that have none. So the part of the seeds is drawn from their fiducial distribution (Hannig 2009,
Statistica Sinica 19, for one random effect; with `within` 0 it is the Behrens-Fisher distribution,
Fisher 1935), which weighs the variances that could have given these S means: normal with variance
max(0, between (S - 1) / chi^2_(S-1) - within). With two seeds almost any variance remains possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, ndtri

from research.errors import InputError
from research.evaluation.list_table import Table
from research.evaluation.metrics import per_user
from research.evaluation.protocol import check_comparable
from research.evaluation.resampling import ROUNDING, Values, resampled_means, sign_flip_p
from research.evaluation.ties import TiePolicy

POWER = 0.8
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
    """Lower end of the bootstrap interval over users and seeds (over users with one seed)."""
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
    """Lower end of the bootstrap interval over users and seeds (over users with one seed)."""
    high: float
    """Upper end of the same interval."""
    p: float
    """Two-sided p-value, not yet corrected. With one seed: that of the sign-flip test over users.
    Its null hypothesis is that a user's two values, from these trained runs, are exchangeable. With
    several seeds: the larger of that and of a second p-value, whose null hypothesis is that new
    training runs for new users have a mean difference of 0; a difference between runs that only
    their seeds explain is then not significant."""
    effect: float
    """Paired Cohen's d_z: mean over standard deviation of the users' differences, each a mean over
    seeds; 0 when all are 0, infinite when all are equal and not 0."""
    smallest: float
    """Smallest true difference that such a comparison would detect with a power of 0.8."""
    seeds: int
    """S, the number of seeds."""
    users: int
    """U, the number of users."""

    def significant(self, p_corrected: float, alpha: float = 0.05) -> bool:
        """Whether the corrected p-value is below `alpha` and the interval excludes 0."""
        return p_corrected < alpha and (self.low > 0.0 or self.high < 0.0)


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
    _check(tables, metric)
    values = _values(tables, metric, ties)
    deviation = float(values.mean(1).std(ddof=1)) if len(values) > 1 else None
    low, high = _interval(values, level, resamples, np.random.default_rng(seed))
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
    if len(tables) != len(base_tables) and 1 not in (len(tables), len(base_tables)):
        raise InputError(
            f"{len(tables)} rank tables cannot be paired with {len(base_tables)}: give one a seed "
            "for the same seeds on both sides, or one that serves all seeds"
        )
    _check([*tables, *base_tables], metric)
    differences = _values(tables, metric, ties) - _values(base_tables, metric, ties)
    by_user = differences.mean(0)
    spread = _spread(differences)
    generator = np.random.default_rng(seed)
    p = sign_flip_p(by_user, resamples, generator)
    if spread.seeds > 1:
        p = max(p, spread.p(by_user.mean()))
    low, high = _interval(differences, level, min(resamples, BOOTSTRAP), generator)
    return Comparison(
        difference=float(by_user.mean()),
        low=low,
        high=high,
        p=p,
        effect=_effect(by_user),
        smallest=spread.smallest(alpha),
        seeds=len(differences),
        users=len(by_user),
    )


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


@dataclass(frozen=True)
class _Spread:
    """The components of the variance of the mean of values [S, U]; see the module's docstring."""

    users: float
    """Variance of the users' means, divided by U."""
    between: float
    """Variance of the seeds' means, divided by S; 0 with one seed."""
    within: float
    """The part of `between` that comes from each user's own reaction to a seed."""
    seeds: int
    """S, the number of seeds."""

    def p(self, difference: float, possible: int = 4096) -> float:
        """Two-sided p-value of a mean of `difference`, if the true mean is 0.

        It is averaged over `possible` equally likely values of the seeds' variance, which
        approximates the integral over that variance.
        """
        deviations = np.sqrt(
            self.users + self.seeds_variance(_chi2_quantiles(self.seeds - 1, possible))
        )
        # The bound avoids 0 / 0: without any variance every difference but 0 is significant.
        return float(2 * ndtr(-abs(difference) / np.maximum(deviations, 1e-150)).mean())

    def seeds_variance(self, draws: Values) -> Values:
        """Possible values of the variance that seeds add; `draws` are of chi^2_(S-1) / (S - 1)."""
        return np.maximum(self.between / draws - self.within, 0.0)

    def critical(self, alpha: float) -> float:
        """The positive difference whose two-sided p-value is `alpha`."""
        largest_variance = (
            self.users + self.seeds_variance(_chi2_quantiles(self.seeds - 1, 256)[:1])[0]
        )
        upper_bound = -ndtri(alpha / 2) * np.sqrt(largest_variance)
        return float(
            upper_bound * brentq(lambda share: self.p(share * upper_bound, 256) - alpha, 0.0, 1.001)
        )

    def smallest(self, alpha: float) -> float:
        """The true difference that a test at level `alpha` detects with a power of 0.8.

        These variances are taken for the true ones. With one seed it is
        (z_(1 - alpha / 2) + z_.8) standard errors. With several, the seeds of a study may happen to
        be closer together or further apart, which moves its critical difference: the power is the
        average over that.
        """
        error = float(np.sqrt(self.users + max(0.0, self.between - self.within)))
        if error == 0.0:
            return 0.0
        true_between = max(self.between, self.within)
        thresholds = np.array(
            [
                replace(self, between=true_between * float(draw)).critical(alpha) / error
                for draw in _chi2_quantiles(self.seeds - 1, 8)
            ]
        )

        def power_gap(errors: float) -> float:
            return POWER - float(ndtr(errors - thresholds).mean())

        margins = ndtri(POWER) + np.array([-0.001, 0.001])
        return float(
            error * brentq(power_gap, thresholds.min() + margins[0], thresholds.max() + margins[1])
        )


@lru_cache
def _chi2_quantiles(free: int, number: int) -> Values:
    """`number` equally likely values of chi^2_free / free, float64 ascending; [1] if `free` is 0.

    `free` is the degrees of freedom.
    """
    if free == 0:
        return np.ones(1)
    # chi^2_free is the gamma distribution of shape free / 2, doubled.
    levels = (np.arange(number) + 0.5) / number
    values: Values = 2 * gammaincinv(free / 2, levels) / free
    return values


def _spread(values: Values) -> _Spread:
    """The variance components of values [S, U].

    It is the analysis of variance of two crossed factors with one value for each combination.
    """
    seeds, users = values.shape
    by_user, by_seed = values.mean(0), values.mean(1)
    user_variance = float(by_user.var(ddof=1)) / users
    if seeds == 1:
        return _Spread(user_variance, 0.0, 0.0, seeds)
    residuals = values - by_user - by_seed[:, None] + values.mean()
    within = float(np.square(residuals).sum()) / ((seeds - 1) * (users - 1)) / (seeds * users)
    return _Spread(user_variance, float(by_seed.var(ddof=1)) / seeds, within, seeds)


def _interval(
    values: Values, level: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """(low, high) of the interval around the mean of values [S, U].

    They are percentiles of the means over resampled users, to each of which a draw of the seeds'
    part is added.
    """
    means = resampled_means(values.mean(0), resamples, generator)
    if len(values) > 1:
        free = len(values) - 1
        variance = _spread(values).seeds_variance(generator.chisquare(free, resamples) / free)
        means += np.sqrt(variance) * generator.standard_normal(resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _effect(by_user: Values) -> float:
    mean = float(by_user.mean())
    if np.all(np.abs(by_user) <= ROUNDING):
        return 0.0
    if np.ptp(by_user) <= ROUNDING:
        return float(np.copysign(np.inf, mean))
    return mean / float(by_user.std(ddof=1))


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
