"""Leave-one-out: each user's newest items are held out, whenever they happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from research.data.corpus import Corpus
from research.data.held_out import HeldOut, Ranges, Split
from research.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Each user's last item is for test, the one before it for validation, the rest for training.

    Users with fewer than three interactions are trained on and not evaluated.
    """

    validation_in_training: bool = False
    """Whether the validation item is in the training rows too, as in the original BERT4Rec code;
    validation figures then say nothing, and only those of the test are honest."""

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus; `InputError` if no user has three interactions."""
        starts = np.asarray(corpus.offsets[:-1])
        stops = np.asarray(corpus.offsets[1:])
        users = np.arange(corpus.num_users, dtype=np.int64)
        evaluated = np.flatnonzero(stops - starts >= 3)
        if len(evaluated) == 0:
            raise InputError(
                f"corpus {corpus.name}: no user has the 3 interactions that leave-one-out needs "
                f"(the longest history has {int((stops - starts).max(initial=0))}); prepare it "
                "with weaker filters or choose another split"
            )
        training_stops = stops.copy()
        training_stops[evaluated] -= 1 if self.validation_in_training else 2
        everyone = Ranges(users, starts, training_stops)
        histories = Ranges(users, starts, stops).select(evaluated)
        return Split(
            training=everyone.select(training_stops > starts),
            validation=HeldOut(
                Ranges(histories.users, histories.starts, histories.stops - 2),
                histories.stops - 2,
            ),
            test=HeldOut(
                Ranges(histories.users, histories.starts, histories.stops - 1),
                histories.stops - 1,
            ),
            not_evaluated=corpus.num_users - len(evaluated),
        )
