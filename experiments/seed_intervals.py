"""Which interval of a bounded metric stays in its range, and holds the true mean as it says?

A cell is trained with S seeds and ranked on U users. Its HR [S, U] is simulated: each hit is drawn
with a chance whose logit is a constant + user's effect + seed's effect. The true mean, over all
users and seeds, is known. Five 95 % intervals are made from the same draws:

- linear: the seeds' part is added to the means of resampled users as it is;
- clipped: the linear one, its ends moved to 0 and 1 where they are beyond;
- truncated: percentiles of those draws of the linear one that are from 0 to 1;
- logit: the seeds' part is added on the logit scale by the delta method;
- arcsine: it is added on the arcsine scale, as in the intervals of reports (`moved_within`).

Command: python -m experiments.seed_intervals [--studies 600]
Hardware: one core; ten minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from research.evaluation.resampling import Values, resampled_means
from research.evaluation.variance_components import moved_within, spread_of

RESAMPLES = 2000
SEEDS = (2, 3, 5)
ENDS = [0.025, 0.975]
Interval = Callable[[Values, Values, float], Values]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where hits come from, on the logit scale."""

    num_users: int
    """U."""
    constant: float
    """The logit of the chance of a hit of a middling user and seed."""
    users: float
    """Standard deviation of the users' effects."""
    seeds: float
    """Standard deviation of the seeds' effects."""

    @property
    def true_mean(self) -> float:
        """The mean of the chance of a hit over all users and seeds."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        deviation = (self.users**2 + self.seeds**2) ** 0.5
        return float(expit(self.constant + deviation * nodes) @ weights / weights.sum())

    def hits(self, num_seeds: int, generator: np.random.Generator) -> Values:
        """0 or 1 for each seed and user: float64 [S, U]."""
        users = self.users * generator.standard_normal(self.num_users)
        seeds = self.seeds * generator.standard_normal((num_seeds, 1))
        chances = expit(self.constant + users + seeds)
        hits: Values = (generator.random(chances.shape) < chances).astype(np.float64)
        return hits


SETTINGS = tuple(
    Setting(num_users=num_users, constant=constant, users=2.0, seeds=seeds)
    for constant in (-5.0, -3.0, 0.0)
    for num_users, seeds in ((943, 0.05), (943, 0.2), (943, 0.6), (60, 0.2))
)


def quantiles(draws: Values) -> Values:
    """The ends of the 95 % interval of draws [R]: float64 [2]."""
    ends: Values = np.quantile(draws, ENDS)
    return ends


def truncated(means: Values, shifts: Values, center: float) -> Values:
    """The ends of the truncated interval."""
    moved = means + shifts
    return quantiles(moved[(moved >= 0.0) & (moved <= 1.0)])


def logit_scale(means: Values, shifts: Values, center: float) -> Values:
    """The ends of the logit interval."""
    slope = max(center * (1.0 - center), 1e-150)
    return quantiles(expit(logit(means) + shifts / slope))


# From means over resampled users, shifts that seeds may add, and the mean of all values.
INTERVALS: dict[str, Interval] = {
    "linear": lambda means, shifts, center: quantiles(means + shifts),
    "clipped": lambda means, shifts, center: np.clip(quantiles(means + shifts), 0.0, 1.0),
    "truncated": truncated,
    "logit": logit_scale,
    "arcsine": lambda means, shifts, center: quantiles(
        moved_within(means, shifts, center, (0.0, 1.0))
    ),
}


def ends_of(setting: Setting, num_seeds: int, studies: int) -> dict[str, Values]:
    """By interval, its ends in each study: float64 [studies, 2]."""
    ends: dict[str, list[Values]] = {name: [] for name in INTERVALS}
    generator = np.random.default_rng(num_seeds)
    for _ in range(studies):
        hits = setting.hits(num_seeds, generator)
        means = resampled_means(hits.mean(0), RESAMPLES, generator)
        draws = generator.chisquare(num_seeds - 1, RESAMPLES) / (num_seeds - 1)
        deviations = np.sqrt(spread_of(hits).seeds_variance(draws))
        shifts = deviations * generator.standard_normal(RESAMPLES)
        for name, interval in INTERVALS.items():
            ends[name].append(interval(means, shifts, float(hits.mean())))
    return {name: np.stack(pairs) for name, pairs in ends.items()}


def row_of(setting: Setting, num_seeds: int, studies: int) -> str:
    """A row of the Markdown table: for each interval its coverage and its median width."""
    true_mean = setting.true_mean
    ends = ends_of(setting, num_seeds, studies)
    outside = (ends["linear"][:, 0] < 0.0) | (ends["linear"][:, 1] > 1.0)
    entries = [f"{true_mean:.3f}", setting.num_users, setting.seeds, num_seeds]
    entries.append(f"{100 * outside.mean():.0f}")
    for pairs in ends.values():
        covers = (pairs[:, 0] <= true_mean) & (true_mean <= pairs[:, 1])
        width = np.median(pairs[:, 1] - pairs[:, 0])
        entries.append(f"{100 * covers.mean():.1f}, {width:.3f}")
    return f"| {' | '.join(map(str, entries))} |"


def main(words: Sequence[str] | None = None) -> None:
    """Print coverage and median width of each interval as a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=600)
    studies = parser.parse_args(words).studies
    head = ["true mean", "users", "seeds' deviation", "seeds", "linear outside (%)"]
    head += [f"{name}: coverage (%), width" for name in INTERVALS]
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for setting in SETTINGS:
        for num_seeds in SEEDS:
            print(row_of(setting, num_seeds, studies), flush=True)


if __name__ == "__main__":
    main()
