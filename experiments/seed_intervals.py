"""Which interval of a bounded metric stays in its range, and holds the true mean as it says?

A cell is trained with S seeds and ranked on U users. Its HR [S, U] is simulated: each hit is drawn
with a chance whose logit is a constant + user's effect + seed's effect. The true mean, over all
users and seeds, is known. Four 95 % intervals are made from the same draws of `possible_means`:

- linear: the part of the seeds is added to the mean as it is;
- clipped: the linear one, its ends moved to 0 and 1 where they are beyond;
- truncated: percentiles of those draws of the linear one that are from 0 to 1;
- logit: the part of the seeds is added on the logit scale by the delta method, as reports have it.

Command: python -m experiments.seed_intervals [--studies 1000]
Hardware: one core; ten minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from research.evaluation.resampling import Values
from research.evaluation.variance_components import possible_means

RESAMPLES = 2000
SEEDS = (2, 3, 5, 10)
ENDS = [0.025, 0.975]
Interval = Callable[[Values, Values], Values]


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


# From the draws without bounds, and those within 0 and 1.
INTERVALS: dict[str, Interval] = {
    "linear": lambda linear, bounded: quantiles(linear),
    "clipped": lambda linear, bounded: np.clip(quantiles(linear), 0.0, 1.0),
    "truncated": lambda linear, bounded: quantiles(linear[(linear >= 0.0) & (linear <= 1.0)]),
    "logit": lambda linear, bounded: quantiles(bounded),
}


def ends_of(setting: Setting, num_seeds: int, studies: int) -> dict[str, Values]:
    """By interval, its ends in each study: float64 [studies, 2]."""
    ends: dict[str, list[Values]] = {name: [] for name in INTERVALS}
    generator = np.random.default_rng(num_seeds)
    for number in range(studies):
        hits = setting.hits(num_seeds, generator)
        linear, bounded = (
            possible_means(hits, RESAMPLES, np.random.default_rng(number), *bounds)
            for bounds in ((), ((0.0, 1.0),))
        )
        for name, interval in INTERVALS.items():
            ends[name].append(interval(linear, bounded))
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
    parser.add_argument("--studies", type=int, default=1000)
    studies = parser.parse_args(words).studies
    head = ["true mean", "users", "seeds' deviation", "seeds", "linear outside (%)"]
    head += [f"{name}: coverage (%), width" for name in INTERVALS]
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for setting in SETTINGS:
        for num_seeds in SEEDS:
            print(row_of(setting, num_seeds, studies), flush=True)


if __name__ == "__main__":
    main()
