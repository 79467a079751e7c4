"""Randomisation and bootstrap of one value a user, fast enough for 10^5 users.

`statistics.py` asks for a p or for resampled means; the slow twins that draw a sign or an index for
each user stand in the tests. Randomness comes in as a generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
# Above so many different values neighbours share a place at their mean: a resample's mean moves by
# less than a thousandth of its standard error, as long as values vary by a 50th of their range.
LEVELS = 1024
# Users' means that are this close to 0 differ from it by rounding alone.
ROUNDING = 1e-15


def sign_flip_p(differences: Values, resamples: int, generator: np.random.Generator) -> float:
    """Two-sided p of the paired randomisation test: how often random signs give such a sum.

    `differences`: [U]. All sign patterns are tried when they are no more than `resamples`;
    otherwise p = (1 + exceedances) / (1 + resamples) (Phipson and Smyth 2010).
    """
    sizes = np.abs(differences)[np.abs(differences) > ROUNDING]
    # Equal sums that rounding tells apart count as equal.
    reached = abs(float(differences.sum())) - 1e-12 * float(sizes.sum())
    if len(sizes) == 0:
        return 1.0
    if 2 ** min(len(sizes), 62) <= resamples:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate((sums + size, sums - size))
        return float((np.abs(sums) >= reached).mean())
    sums = _flipped_sums(sizes, resamples, generator)
    return (1 + int((np.abs(sums) >= reached).sum())) / (1 + resamples)


def _flipped_sums(sizes: Values, resamples: int, generator: np.random.Generator) -> Values:
    """[resamples] sums of sizes [N] under random signs.

    A random byte signs eight users at once: their 256 possible sums are looked up, not added.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    signs = 2.0 * bits.T.astype(np.float64) - 1.0
    groups = np.pad(sizes, (0, -len(sizes) % 8)).reshape(-1, 8)
    sums = np.zeros(resamples)
    for first in range(0, len(groups), 256):
        possible = groups[first : first + 256] @ signs
        drawn = generator.integers(0, 256, (len(possible), resamples), dtype=np.uint8)
        for table, chosen in zip(possible, drawn):
            sums += table.take(chosen)
    return sums


def resampled_means(values: Values, resamples: int, generator: np.random.Generator) -> Values:
    """[resamples] means of as many values as there are, drawn from them with replacement.

    How often each different value is drawn is multinomial, so the cost does not grow with users.
    """
    place = np.unique(values, return_inverse=True)[1]
    if place.max() >= LEVELS:
        scaled = (values - values.min()) * (LEVELS / np.ptp(values))
        place = np.minimum(scaled.astype(np.int64), LEVELS - 1)
    counts = np.bincount(place)
    kept = counts > 0
    means = np.bincount(place, values)[kept] / counts[kept]
    drawn = generator.multinomial(len(values), counts[kept] / len(values), resamples)
    resampled: Values = drawn @ means / len(values)
    return resampled
