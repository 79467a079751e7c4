"""Leave-one-out at a point in time, without the leak of leave-one-out over all time.

It is the "split-by-timepoint leave-one-out" of the code yangl-iml/SRS_data_leakage, of "Temporal
Consistency and Data Leakage in Offline Evaluation of Sequential Recommender Systems". The leak is
that of Ji, Sun, Zhang and Li, "A Critical Study on Data Leakage in Recommender System Offline
Evaluation" (TOIS 2023, arXiv 2010.11060).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.data.corpus import Corpus
from research.data.held_out import HeldOut, Ranges, Split
from research.data.time_cuts import AtQuantile, CutConfig, nobody_left, stops_through, times_of


@dataclass(frozen=True, kw_only=True)
class TimepointLeaveOneOut:
    """Each user's last interaction up to a point in time validates, the next one after it tests.

    Those before the last are for training. Users with fewer than two interactions up to the cut are
    neither trained on nor asked about, and those without one after it have no test question. The
    history of the test contains the validation item.
    """

    cut: CutConfig = AtQuantile()
    """Where in time the cut is: AtQuantile, or AtTime."""

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus; an interaction at the very time of the cut is before it.

        Raises `InputError` if the corpus has no timestamps, if the cut is outside of them, or if
        nobody remains to train on or to test.
        """
        times, last_time = times_of(corpus), self.cut.last_time(corpus)
        starts = np.asarray(corpus.offsets[:-1])
        stops = stops_through(corpus, times, last_time)
        users = np.arange(corpus.num_users, dtype=np.int64)
        known = Ranges(users, starts, stops).select(stops - starts >= 2)
        if len(known) == 0:
            raise nobody_left(
                corpus,
                last_time,
                "with 2 interactions to train on and to validate",
                "Choose a later cut, such as split.cut.quantile=0.95.",
            )
        tested = known.select(known.stops < np.asarray(corpus.offsets[1:])[known.users])
        if len(tested) == 0:
            raise nobody_left(
                corpus,
                last_time,
                "with 2 interactions up to it and one after it to test",
                "Choose an earlier cut, such as split.cut.quantile=0.8.",
            )
        training = Ranges(known.users, known.starts, known.stops - 1)
        return Split(
            training=training,
            validation=HeldOut(training, training.stops),
            test=HeldOut(tested, tested.stops),
            not_evaluated=corpus.num_users - len(tested),
        )
