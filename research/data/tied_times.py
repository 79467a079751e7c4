"""Ties: interactions of one user at the same time, whose order the file decides and not the times.

Preparation counts them by the times as the source gives them, and writes the counts into the report
of the corpus. The audit and the profile see whole seconds, and read there if finer times decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.findings import share_of

Times = NDArray[np.int64] | NDArray[np.float64]


def tie_shares(times: Times, offsets: NDArray[np.int64]) -> dict[str, float]:
    """How often equal times leave the order open, as shares (0 to 1) of interactions and of users.

    `times` [N] are in the order of a corpus with these `offsets` [U + 1].
    """
    same = np.zeros(len(times) + 1, dtype=np.bool_)
    same[1:-1] = times[1:] == times[:-1]
    same[offsets] = False
    tied = same[1:] | same[:-1]
    ends = offsets[1:][np.diff(offsets) > 1] - 1
    return {
        # Interactions that have the same time as another one of the same user.
        "tied_interactions": share_of(int(tied.sum()), len(times)),
        # Users whose last two interactions have the same time.
        "users_with_tied_last_two": share_of(int(same[ends].sum()), len(offsets) - 1),
    }


def num_finer_steps(
    seconds: NDArray[np.int64], exact_times: Times, offsets: NDArray[np.int64]
) -> int:
    """How many interactions are in the second of their user's one before, but at a later time.

    All arrays are in the order of the corpus: `seconds` [N], `exact_times` [N], `offsets` [U + 1].
    """
    is_step = (seconds[1:] == seconds[:-1]) & (exact_times[1:] != exact_times[:-1])
    is_step[offsets[1:-1] - 1] = False
    return int(is_step.sum())


@final
@dataclass(frozen=True)
class FinerTimes:
    """Times finer than seconds, which ordered a corpus that does not keep them."""

    tied_share: float
    """Share (0 to 1) of interactions with the very time of another one of the same user."""
    most_doubles: int
    """No more interactions than this have the user, item and very time of an earlier one."""

    @staticmethod
    def of(corpus: Corpus) -> FinerTimes | None:
        """What the corpus's report says of them.

        None: seconds decided the order, or an older version, which did not say, prepared the
        corpus.
        """
        report = corpus.manifest.report
        tied_share, duplicates = report.get("tied_interactions"), report.get("duplicates")
        if report.get("ordered_by_finer_times") is not True or not isinstance(duplicates, Mapping):
            return None
        doubles = duplicates.get("exact_doubles_among_them")
        if not isinstance(tied_share, float) or not isinstance(doubles, int):
            return None
        # Each policy but "keep" removes all exact doubles.
        return FinerTimes(tied_share, doubles if duplicates.get("policy") == "keep" else 0)
