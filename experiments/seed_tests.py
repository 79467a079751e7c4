"""Which test tells two cells apart when their users and their seeds are both drawn?

Two cells are trained with S seeds each and ranked on the same U users. Their differences [S, U] are
simulated as true difference + user's effect + seed's effect + rest, with variances measured between
real runs. Each test is made for one comparison, at the level of 5 %. Without a true difference the
share of studies in which it finds one is its error rate; with one it is its power. The tests:

- users: sign flips over the users' means, which asks about these trained runs only;
- seeds: the t test of the S seeds' means, which asks about these users only;
- bootstrap: the two-stage (hierarchical) bootstrap, which draws seeds and users with replacement,
  as they are crossed ("pigeonhole bootstrap", Owen 2007, Annals of Applied Statistics 1, 386-411);
- mixed model: crossed random effects of users and seeds, variances by REML, which here are those of
  the analysis of variance where none is negative, and Satterthwaite's degrees of freedom (1946,
  Biometrics Bulletin 2, 110-114); for one mean in a balanced layout those of Kenward and Roger are
  the same. Clark (1973) calls it quasi-F;
- generalized: the generalized p-value (`Spread.p`);
- ours: the larger of the first and the last (`difference_p`), which reports give.

Command: python -m experiments.seed_tests [--studies 2000]
         python -m experiments.seed_tests --measure RUNS/CELL RUNS/BASE
         where RUNS is, for example, runs/quickstart/ml-100k: prints the variances between them.
Hardware: one core, 1 GB; half an hour. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.special import stdtr

from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.resampling import Values, sign_flip_p
from research.evaluation.statistics import difference_p, paired_differences
from research.evaluation.variance_components import spread_of

LEVEL = 0.05
RESAMPLES = 1000
SEEDS = (1, 2, 3, 5, 10)
# The true difference of the power, in standard errors of a study of five seeds.
ERRORS = 3.0
TABLE = Path("ranks") / "test-full.npz"
Test = Callable[[Values, np.random.Generator], float]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where differences between two cells come from."""

    name: str
    """What the row of the table is called."""
    num_users: int
    """U."""
    users: float
    """Standard deviation of the users' effects."""
    seeds: float
    """Standard deviation of the seeds' effects."""
    rest: float
    """Standard deviation of what remains: a user's own reaction to a seed."""
    share: float = 1.0
    """Share of users' effects and of rests that are not 0: they are as large and positive or
    negative. 1: they are normal."""

    @property
    def error(self) -> float:
        """The standard error of the mean over five seeds and the users."""
        by_seed = self.seeds**2 + self.rest**2 / self.num_users
        return float(np.sqrt(self.users**2 / self.num_users + by_seed / 5))


# Measured in NDCG@10 on ML-100K (943 users, ten seeds) and Beauty (22,363 users, three seeds; here
# with 943 users, and the seeds' deviation larger by as much as the users' standard error).
SETTINGS = (
    Setting(
        name="one encoder, two pretrainings", num_users=943, users=0.03, seeds=0.0035, rest=0.15
    ),
    Setting(name="two encoders", num_users=943, users=0.15, seeds=0.0018, rest=0.15),
    Setting(name="two losses on Beauty", num_users=943, users=0.13, seeds=0.0041, rest=0.1),
    Setting(name="seeds do not vary", num_users=943, users=0.15, seeds=0.0, rest=0.15),
    Setting(name="seeds vary much", num_users=943, users=0.05, seeds=0.01, rest=0.15),
    Setting(name="hits of 60 users", num_users=60, users=0.2, seeds=0.02, rest=0.3, share=0.2),
)


def differences(
    setting: Setting, num_seeds: int, true_difference: float, generator: np.random.Generator
) -> Values:
    """Differences of a simulated study: float64 [S, U]."""

    def drawn(deviation: float, shape: tuple[int, ...]) -> Values:
        values: Values = generator.standard_normal(shape)
        if setting.share == 1.0:
            return deviation * values
        is_there = generator.random(shape) < setting.share
        sparse: Values = deviation * np.sign(values) * is_there / setting.share**0.5
        return sparse

    users = drawn(setting.users, (setting.num_users,))
    seeds = setting.seeds * generator.standard_normal((num_seeds, 1))
    rest = drawn(setting.rest, (num_seeds, setting.num_users))
    return true_difference + users + seeds + rest


def users_p(values: Values, generator: np.random.Generator) -> float:
    """p of the sign flips over the users' means of values [S, U]."""
    return sign_flip_p(values.mean(0), RESAMPLES, generator)


def seeds_p(values: Values, generator: np.random.Generator) -> float:
    """p of the t test over the seeds' means of values [S, U], S at least 2."""
    by_seed = values.mean(1)
    error = by_seed.std(ddof=1) / len(by_seed) ** 0.5
    return float(2 * stdtr(len(by_seed) - 1, -abs(by_seed.mean()) / error))


@lru_cache
def user_weights(num_users: int) -> Values:
    """How often each user is drawn, over their number: float64 [U, RESAMPLES].

    All studies share them, as drawing them takes longer than all else.
    """
    draws = np.random.default_rng(num_users).multinomial(
        num_users, np.full(num_users, 1 / num_users), RESAMPLES
    )
    weights: Values = draws.T / num_users
    return weights


def bootstrap_p(values: Values, generator: np.random.Generator) -> float:
    """p of the two-stage bootstrap of values [S, U]: twice the share of means beyond 0."""
    num_seeds, num_users = values.shape
    seed_weights = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), RESAMPLES)
    means = (seed_weights.T / num_seeds * (values @ user_weights(num_users))).sum(0)
    beyond = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * beyond / (1 + RESAMPLES))


def mixed_model_p(values: Values, generator: np.random.Generator) -> float:
    """p of the mean of values [S, U], S at least 2, in the mixed model with crossed effects."""
    spread, free_seeds, free_users = spread_of(values), len(values) - 1, values.shape[1] - 1
    # REML: a variance of the seeds that would be negative is 0, and users alone have one.
    variance, free = spread.users, float(free_users)
    if spread.between > spread.within:
        variance += spread.between - spread.within
        free = variance**2 / (
            spread.users**2 / free_users
            + spread.between**2 / free_seeds
            + spread.within**2 / (free_users * free_seeds)
        )
    return float(2 * stdtr(free, -abs(values.mean()) / variance**0.5))


def generalized_p(values: Values, generator: np.random.Generator) -> float:
    """The generalized p-value of the mean of values [S, U]."""
    return spread_of(values).p(float(values.mean()))


def ours_p(values: Values, generator: np.random.Generator) -> float:
    """The p-value that reports give."""
    return difference_p(values, RESAMPLES, generator)


TESTS: dict[str, Test] = {
    "users": users_p,
    "seeds": seeds_p,
    "bootstrap": bootstrap_p,
    "mixed model": mixed_model_p,
    "generalized": generalized_p,
    "ours": ours_p,
}
# These need two seeds.
SEVERAL = ("seeds", "mixed model", "generalized")


def found_shares(
    setting: Setting, num_seeds: int, true_difference: float, studies: int
) -> dict[str, float]:
    """By test, the share of `studies` simulated studies in which it finds a difference."""
    tests = {name: test for name, test in TESTS.items() if num_seeds > 1 or name not in SEVERAL}
    found = dict.fromkeys(tests, 0)
    generator = np.random.default_rng([num_seeds, int(true_difference > 0)])
    for _ in range(studies):
        values = differences(setting, num_seeds, true_difference, generator)
        for name, test in tests.items():
            found[name] += test(values, generator) < LEVEL
    return {name: count / studies for name, count in found.items()}


def measured(cell: Path, base: Path, metric: str) -> tuple[int, dict[str, float]]:
    """(seeds, the standard deviations of a `Setting`) of the differences between two cells.

    The folders have SEED/ranks/test-full.npz; `InputError` where they share fewer than two seeds.
    """
    seeds = sorted(
        path.name
        for path in cell.glob("*")
        if all((f / path.name / TABLE).is_file() for f in (cell, base))
    )
    if len(seeds) < 2:
        raise InputError(f"{cell} and {base} share {len(seeds)} seeds; at least two are needed")
    tables = [[RankTable.load(f / seed / TABLE) for seed in seeds] for f in (cell, base)]
    values = paired_differences(tables[0], tables[1], metric, "expected")
    spread, (num_seeds, num_users) = spread_of(values), values.shape
    variances = {
        "users": num_users * (spread.users - spread.within),
        "seeds": num_seeds * (spread.between - spread.within),
        "rest": num_seeds * num_users * spread.within,
    }
    deviations = {name: max(0.0, value) ** 0.5 for name, value in variances.items()}
    return num_seeds, {"num_users": num_users, **deviations}


def print_table(studies: int, errors: float) -> None:
    """Print a Markdown table of percentages: a row for each setting and number of seeds.

    The true difference is `errors` standard errors.
    """
    print(f"| setting | seeds | {' | '.join(TESTS)} |", "|---" * (2 + len(TESTS)) + "|", sep="\n")
    for setting in SETTINGS:
        for num_seeds in SEEDS:
            shares = found_shares(setting, num_seeds, errors * setting.error, studies)
            entries = [f"{100 * shares[name]:.1f}" if name in shares else "" for name in TESTS]
            print(f"| {setting.name} | {num_seeds} | {' | '.join(entries)} |", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print the error rates and the powers, or the variances between the runs of two cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--measure", type=Path, nargs=2, metavar=("CELL", "BASE"))
    parser.add_argument("--metric", default="ndcg@10")
    options = parser.parse_args(words)
    if options.measure:
        cell, base = options.measure
        num_seeds, deviations = measured(cell, base, options.metric)
        print(f"{num_seeds} seeds", *(f"{name} {value:.5g}" for name, value in deviations.items()))
        return
    print(f"Error rates (%), {options.studies} studies, level 5 %\n")
    print_table(options.studies, 0.0)
    print(f"\nPower (%), true difference of {ERRORS:g} standard errors of five seeds\n")
    print_table(options.studies, ERRORS)


if __name__ == "__main__":
    main()
