"""Tests within a margin: is a cell no worse than the base by more than the margin, or equivalent?

A difference that is not significant does not show that there is none. These tests turn the question
round: their null hypothesis is that the true difference is outside of the margin. Both one-sided
null hypotheses, a difference of -margin or less and one of +margin or more, are tested at the level
of 5 %. Rejecting the first shows that the cell is no worse (non-inferiority), rejecting both that
it is equivalent (two one-sided tests, TOST: Schuirmann 1987, Journal of Pharmacokinetics and
Biopharmaceutics 15, 657-680); their p-values come from the variance over users and seeds of
`variance_components.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from research.errors import InputError
from research.evaluation.list_table import Table
from research.evaluation.statistics import holm, paired_differences
from research.evaluation.ties import TiePolicy
from research.evaluation.variance_components import spread_of


@dataclass(frozen=True)
class MarginTest:
    """Whether a difference is above -margin, and whether it is between -margin and margin."""

    margin: float
    """The largest difference that does not matter, in the metric's own unit, above 0."""
    no_worse: float
    """One-sided p-value; its null hypothesis is a true difference of -margin or less."""
    equivalent: float
    """The larger p-value of the two one-sided tests; its null hypothesis is a true difference of
    -margin or less, or of margin or more."""


def check_margin(margin: float) -> None:
    """Raise `InputError` unless the margin is a finite number above 0."""
    if not (isfinite(margin) and margin > 0):
        raise InputError(
            f"margin is {margin}; it must be above 0: the largest difference that does not matter, "
            "in the metric's own unit, such as 0.002"
        )


def compare_within(
    tables: Sequence[Table],
    base_tables: Sequence[Table],
    metric: str,
    margin: float,
    *,
    ties: TiePolicy = "expected",
) -> MarginTest:
    """Test whether a cell is within `margin` of the base, paired by user and seed.

    The tables are as for `statistics.compare`; correct the p-values of several cells with
    `holm_within`. The users' part is taken as normal, so that they should be 30 or more. With one
    seed the tests are about these trained runs. `InputError` as for `compare`, and for a margin
    that is not above 0.
    """
    check_margin(margin)
    differences = paired_differences(tables, base_tables, metric, ties)
    spread, difference = spread_of(differences), float(differences.mean())
    no_worse = spread.upper_p(margin + difference)
    return MarginTest(margin, no_worse, max(no_worse, spread.upper_p(margin - difference)))


def holm_within(tests: Sequence[MarginTest]) -> list[MarginTest]:
    """The tests of several cells with Holm's correction over them, for each question apart."""
    no_worse = holm([test.no_worse for test in tests])
    equivalent = holm([test.equivalent for test in tests])
    return [
        MarginTest(test.margin, *p_values) for test, *p_values in zip(tests, no_worse, equivalent)
    ]
