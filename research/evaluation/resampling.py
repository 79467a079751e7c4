"""The paired randomisation test and the bootstrap over users, fast enough for 10^5 users.

`statistics.py` calls them with one value a user, for a p-value and for resampled means. Their slow
twins, which draw a sign or an index for each user, are in the tests. The caller passes the random
generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
# With more distinct values than this, neighbouring values are binned and replaced by their mean.
# The standard error of resampled means then changes by less than a thousandth of itself, as long as
# the standard deviation of the values is at least a 50th of their range.
LEVELS = 1024
# A user's mean that is this close to 0 differs from 0 by rounding alone.
ROUNDING = 1e-15


def sign_flip_p(differences: Values, resamples: int, generator: np.random.Generator) -> float:
    """Two-sided p-value of the paired randomisation test on `differences`, one a user, [U].

    It is the share of sign patterns that bring the sum at least as far from 0 as it is. If there
    are at most `resamples` patterns, all are tried; otherwise `resamples` random ones are, and
    p = (1 + exceedances) / (1 + resamples) (Phipson and Smyth 2010).
    """
    magnitudes = np.abs(differences)[np.abs(differences) > ROUNDING]
    # Sums that differ by rounding alone count as equal.
    threshold = abs(float(differences.sum())) - 1e-12 * float(magnitudes.sum())
    if len(magnitudes) == 0:
        return 1.0
    if 2 ** min(len(magnitudes), 62) <= resamples:
        sums = np.zeros(1)
        for size in magnitudes:
            sums = np.concatenate((sums + size, sums - size))
        return float((np.abs(sums) >= threshold).mean())
    sums = _flipped_sums(magnitudes, resamples, generator)
    return (1 + int((np.abs(sums) >= threshold).sum())) / (1 + resamples)


def _flipped_sums(sizes: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Sums of `sizes` [N] under random signs: float64 [resamples].

    One random byte gives the signs of eight users; their 256 possible sums are computed once and
    looked up.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    signs = 2.0 * bits.T.astype(np.float64) - 1.0
    groups = np.pad(sizes, (0, -len(sizes) % 8)).reshape(-1, 8)
    sums = np.zeros(resamples)
    for first in range(0, len(groups), 256):
        group_sums = groups[first : first + 256] @ signs
        patterns = generator.integers(0, 256, (len(group_sums), resamples), dtype=np.uint8)
        for table, pattern in zip(group_sums, patterns):
            sums += table.take(pattern)
    return sums


def resampled_means(values: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Bootstrap means of `values` [U]: float64 [resamples], each of U draws with replacement.

    How often each distinct value is drawn is multinomial, so the cost does not grow with U.
    """
    level = np.unique(values, return_inverse=True)[1]
    if level.max() >= LEVELS:
        scaled = (values - values.min()) * (LEVELS / np.ptp(values))
        level = np.minimum(scaled.astype(np.int64), LEVELS - 1)
    counts = np.bincount(level)
    is_drawn = counts > 0
    means = np.bincount(level, values)[is_drawn] / counts[is_drawn]
    draws = generator.multinomial(len(values), counts[is_drawn] / len(values), resamples)
    resampled: Values = draws @ means / len(values)
    return resampled
