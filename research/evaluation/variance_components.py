"""The variance of a mean over seeds and users: its parts, its interval, and the p-value from it.

`statistics.py` calls it with values [S, U], one for each seed and user: those of a cell, or a
difference or another contrast of cells. They are a two-way layout of two crossed random factors
with one value for each combination,

    value of seed s for user u = mean + effect of u + effect of s + rest,

where users and seeds are both taken as drawn from many, and the rest is each user's own reaction to
a seed. The mean over S seeds and U users has the variance

    var(users' means) / U  +  what the seeds add.

Users are many, and are resampled. Seeds are few. The variance of the mean over the S seed means is
`between` = var / S. A part `within` of it comes from the rest alone, and the users' means contain
that part already. Resampling S values would show only (S - 1) / S of their variance and nothing of
its uncertainty. So the part of the seeds is normal with a variance that is itself drawn from those
that could have given these S means: max(0, between (S - 1) / chi^2_(S-1) - within). With two seeds
almost any remains possible. What follows is the generalized p-value (Tsui and Weerahandi 1989,
JASA 84, 602-607) and the generalized confidence interval (Weerahandi 1993, JASA 88, 899-905), which
are fiducial (Hannig, Iyer and Patterson 2006, JASA 101, 254-269); without users' effects they are
those of the t test, and with `within` 0 the test is that of Behrens and Fisher (1935).

`experiments/seed_tests.py` simulates tests at the level of 5 % with variances of real runs. Without
a difference this one finds one in 0.4 to 5.0 % of studies of two to ten seeds. The mixed model with
Satterthwaite's degrees of freedom does in up to 12.1 % (S = 2), 7.0 % (S = 3) and 5.6 % (more), and
the two-stage bootstrap in up to 14.4, 8.8 and 5.5 %. What holding the level costs is power: where
seeds vary as much as users, a difference of three standard errors of five seeds is found in 19 %
(S = 2), 53 % (S = 3) and 78 % (S = 5) of studies, by the mixed model in 59, 72 and 83 %.
With ten seeds the two agree.

Intervals stay within the bounds of the metric: the draws of the seeds' part, whose tails are heavy,
are added to its arcsine by the delta method (for proportions: Bartlett 1947, Biometrics 3, 39-52).
`experiments/seed_intervals.py` compares it with draws that are added as they are, whose ends pass
the bounds: coverage is as high, to a tenth of a point, or higher, and the width about the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri

from research.evaluation.resampling import Values, resampled_means

POWER = 0.8


@dataclass(frozen=True)
class Spread:
    """The parts of the variance of the mean of values [S, U]; see the module's docstring."""

    users: float
    """Variance of the users' means, divided by U."""
    between: float
    """Variance of the seeds' means, divided by S; 0 with one seed."""
    within: float
    """The part of `between` that comes from each user's own reaction to a seed."""
    seeds: int
    """S, the number of seeds."""

    def p(self, difference: float, possible: int = 4096) -> float:
        """Two-sided p-value of a mean of `difference`, if the true mean is 0; see `upper_p`."""
        return 2 * self.upper_p(abs(difference), possible)

    def upper_p(self, difference: float, possible: int = 4096) -> float:
        """One-sided p-value of a mean of `difference`, if the true mean is 0 or less.

        It is averaged over `possible` equally likely values of the seeds' variance, which
        approximates the integral over that variance.
        """
        deviations = np.sqrt(
            self.users + self.seeds_variance(_chi2_quantiles(self.seeds - 1, possible))
        )
        # The bound avoids 0 / 0: without any variance every difference but 0 is significant.
        return float(ndtr(-difference / np.maximum(deviations, 1e-150)).mean())

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
            upper_bound * _root(lambda share: self.p(share * upper_bound, 256) - alpha, 0.0, 1.001)
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
            error * _root(power_gap, thresholds.min() + margins[0], thresholds.max() + margins[1])
        )


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a continuous function between two places where its signs differ."""
    # The import takes a fifth of a second, and only a report's powers need it.
    from scipy.optimize import brentq

    return float(brentq(function, low, high))


def spread_of(values: Values) -> Spread:
    """The parts of the variance of the mean of values [S, U], U at least 2.

    It is the analysis of variance of two crossed factors with one value for each combination.
    """
    seeds, users = values.shape
    by_user, by_seed = values.mean(0), values.mean(1)
    user_variance = float(by_user.var(ddof=1)) / users
    if seeds == 1:
        return Spread(user_variance, 0.0, 0.0, seeds)
    residuals = values - by_user - by_seed[:, None] + values.mean()
    within = float(np.square(residuals).sum()) / ((seeds - 1) * (users - 1)) / (seeds * users)
    return Spread(user_variance, float(by_seed.var(ddof=1)) / seeds, within, seeds)


def interval_of(
    values: Values,
    level: float,
    resamples: int,
    generator: np.random.Generator,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """(low, high) of the interval around the mean of values [S, U]; it stays within `bounds`.

    They are percentiles of `resamples` `possible_means`; `level` is the interval's coverage.
    """
    means = possible_means(values, resamples, generator, bounds)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def possible_means(
    values: Values,
    resamples: int,
    generator: np.random.Generator,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Values:
    """Means over users and seeds that may be the true one of values [S, U]: float64 [resamples].

    They are means over resampled users, each moved by a draw of the seeds' part. None leaves
    `bounds`, the least and the greatest value that a mean can have: (0, 1) for most metrics, (-1,
    1) for their differences, infinite for neither.
    """
    means = resampled_means(values.mean(0), resamples, generator)
    if len(values) == 1:
        # A user's value of a metric of all lists together may be outside of the metric's range.
        return np.clip(means, *bounds)
    free = len(values) - 1
    variance = spread_of(values).seeds_variance(generator.chisquare(free, resamples) / free)
    shifts = np.sqrt(variance) * generator.standard_normal(resamples)
    return moved_within(means, shifts, float(values.mean()), bounds)


def moved_within(
    means: Values, shifts: Values, center: float, bounds: tuple[float, float]
) -> Values:
    """Means [R] moved by shifts [R], on the arcsine scale between finite `bounds`; all stay there.

    `center` is the mean of all values. By the delta method a shift on that scale is a shift here
    over the slope at `center`.
    """
    half = (bounds[1] - bounds[0]) / 2
    if not np.isfinite(half):
        return np.clip(means + shifts, *bounds)
    middle = bounds[0] + half
    # Rounding may take a mean past a bound. Where all values are at one bound, nothing varies.
    angles = np.arcsin(np.clip((np.append(means, center) - middle) / half, -1.0, 1.0))
    slope = max(half * float(np.cos(angles[-1])), 1e-150)
    moved_angles = np.clip(angles[:-1] + shifts / slope, -np.pi / 2, np.pi / 2)
    moved: Values = middle + half * np.sin(moved_angles)
    return moved


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
