"""Effects of crossed factors: main effects and two-way interactions, as contrasts of cells.

A contrast is a sum of cells' values with weights that add up to 0, taken user by user and seed by
seed; the difference of two cells is one. So `statistics.comparison_of` gives the interval and the
p-value of any contrast, paired as those of a comparison.

The main effect of a factor's level against its reference is the difference of the two, meaned over
all combinations of the other factors' levels. The interaction of two factors is the difference of
such differences: how much the effect of one changes when the other goes from its reference to its
level, meaned over all combinations of the rest. Every combination counts alike, whatever it has in
users or seeds. (Montgomery, Design and Analysis of Experiments, chapter 5; there an interaction is
halved, so that with two levels it has the variance of a main effect. Here it is not, as a
difference of differences can be read off a table.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from research.evaluation.resampling import Values

# A level of each factor, in the order of the factors.
Combination = tuple[str, ...]


@dataclass(frozen=True)
class Contrast:
    """A main effect or a two-way interaction, as a weighted sum of combinations of levels."""

    factors: tuple[str, ...]
    """One factor (a main effect), or two (an interaction)."""
    levels: tuple[str, ...]
    """A level of each of them."""
    references: tuple[str, ...]
    """The level of each of them that the former is compared with."""
    weights: Mapping[Combination, float]
    """The weight of each combination that takes part, by the levels of all factors of the study."""


def contrasts_of(
    factors: Mapping[str, Sequence[str]], references: Mapping[str, str]
) -> list[Contrast]:
    """All main effects, then all two-way interactions, of factors with these levels.

    Each level but the reference is compared with it, so a factor of k levels has k - 1 main
    effects. `references` has a level of each factor.
    """
    compared = {
        factor: [level for level in levels if level != references[factor]]
        for factor, levels in factors.items()
    }
    chosen = [*((factor,) for factor in factors), *itertools.combinations(factors, 2)]
    return [
        Contrast(
            names, levels, tuple(references[name] for name in names),
            _weights(factors, references, dict(zip(names, levels))),
        )
        for names in chosen
        for levels in itertools.product(*(compared[name] for name in names))
    ]  # fmt: skip


def weighted_sum(terms: Iterable[tuple[float, Values]]) -> Values:
    """The sum of weights times values [S, U]; values [1, U] serve every seed. At least one term."""
    total: Values | None = None
    for weight, values in terms:
        total = weight * values if total is None else total + weight * values
    assert total is not None
    return total


def range_of_sum(
    weights: Iterable[float], range_of_values: tuple[float, float]
) -> tuple[float, float]:
    """The least and the greatest weighted sum of values that are within a range."""
    least, greatest = range_of_values
    above, below = 0.0, 0.0
    for weight in weights:
        above, below = above + max(weight, 0.0), below + min(weight, 0.0)
    return above * least + below * greatest, above * greatest + below * least


def _weights(
    factors: Mapping[str, Sequence[str]], references: Mapping[str, str], levels: Mapping[str, str]
) -> dict[Combination, float]:
    """The weights of the contrast of `levels`, by factor, with the references."""
    averaged = math.prod(
        len(choices) for factor, choices in factors.items() if factor not in levels
    )
    # Each factor of the contrast goes from its reference (-1) to its level (+1).
    signs = [
        {levels[factor]: 1.0, references[factor]: -1.0}
        if factor in levels
        else dict.fromkeys(choices, 1.0)
        for factor, choices in factors.items()
    ]
    return {
        combination: math.prod(sign[level] for sign, level in zip(signs, combination)) / averaged
        for combination in itertools.product(*signs)
    }
