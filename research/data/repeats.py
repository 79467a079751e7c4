"""Repeats: interactions with an item that the same user has had before.

The audit and the profile of a corpus read them. Users are done in blocks, by sorting.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus

# Interactions of a block of users; a longer history is a block of its own.
_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class Repeats:
    """For each of a corpus's N interactions, whether its user has had its item before."""

    first_N: NDArray[np.int64]
    """[N]: index into `corpus.items` of the user's first interaction with the same item, which may
    be the interaction itself."""
    repeated_N: NDArray[np.bool_]
    """[N]: whether the user has had the item before."""
    double_N: NDArray[np.bool_]
    """[N]: whether an earlier interaction has the same user, item and time; False without times."""

    @staticmethod
    def of(corpus: Corpus) -> Repeats:
        """The repeats of a corpus; twenty million interactions take seconds."""
        first_N = np.empty(corpus.num_interactions, dtype=np.int64)
        repeated_N = np.empty(corpus.num_interactions, dtype=bool)
        double_N = np.zeros(corpus.num_interactions, dtype=bool)
        offsets = np.asarray(corpus.offsets)
        # Users are sorted in blocks that fit into a processor's cache.
        marks = np.arange(0, corpus.num_interactions + _BLOCK, _BLOCK)
        blocks = np.unique(np.r_[0, np.searchsorted(offsets, marks), corpus.num_users])
        for first, last in pairwise(np.minimum(blocks, corpus.num_users).tolist()):
            start, stop = int(offsets[first]), int(offsets[last])
            lengths = np.diff(offsets[first : last + 1])
            pairs = np.repeat(np.arange(last - first), lengths) * corpus.num_items
            pairs += corpus.items[start:stop]
            # Equal pairs become neighbours, the oldest first.
            order = np.argsort(pairs, kind="stable")
            pairs = pairs[order]
            begins = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
            sizes = np.diff(np.flatnonzero(np.append(begins, True)))
            repeated_N[start + order] = ~begins
            first_N[start + order] = start + np.repeat(order[begins], sizes)
            if corpus.timestamps is not None:
                times = corpus.timestamps[start:stop][order]
                doubles = ~begins[1:] & (times[1:] == times[:-1])
                double_N[start + order[1:][doubles]] = True
        return Repeats(first_N, repeated_N, double_N)
