"""`ColdItems`: a split that holds out items, with all their events, and asks for them.

Whether a model can recommend what nobody has taken yet is asked of items that training never saw. A
split consists of ranges of `Corpus.items`, and what is held out here stands between other events.
So the corpus is arranged first: in each user's history the events of the items of training come
first and those of held-out items last, each in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from research.config import check_types
from research.data.corpus import Corpus
from research.data.splits import HeldOut, Indices, Ranges, Split, flat_indices
from research.errors import InputError
from research.randomness import permutation, seed_of


@dataclass(frozen=True, kw_only=True)
class ColdItems:
    """Items are held out for test: no training or validation history has an event of theirs.

    A user has one question: the held-out item that the user took up last, at the first event with
    it. The history is the user's events before that one, without those of held-out items; where it
    is empty there is no question. Of the other items, a user's last one is for validation, as in
    leave-one-out, and the rest for training. Training may be later than a question: other users'
    events as there, and the user's own events with other items after it as well.

    Held-out items remain items of the catalogue. They are among the classes of a full softmax and
    what label smoothing is spread over, and are drawn as uniform negatives, so that training tells
    the model that they are not the answer; and content vectors are standardized over all items.
    The same holds for items that begin after a temporal cut, here and in the code of "Time to
    Split" (`temporal_cut.py`). The corpus should have content vectors (`items.vectors`): embeddings
    of ids learn nothing else of held-out items.
    """

    share: float = 0.1
    """Share of the items with events that are held out, at least one."""
    choice: Literal["random", "newest"] = "random"
    """Which items: drawn by `seed`, or those whose first event is newest, which needs times."""
    seed: int = 0
    """Seed of the choice "random", which alone has one; apart from the run's seed, so that runs of
    all seeds share one split."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.share < 1.0:
            raise InputError(f"split.share is {self.share}; it must be above 0 and below 1")
        if self.seed != ColdItems.seed and self.choice != "random":
            raise InputError(
                f"split.seed is {self.seed}, but split.choice {self.choice} draws nothing; leave "
                "the seed out, or choose random"
            )

    def items(self, corpus: Corpus) -> Indices:
        """int64 [C], ascending: the items that are held out.

        `InputError` where fewer than two items have events, and where times are needed and absent.
        """
        with_events = np.unique(corpus.items).astype(np.int64)
        number = max(1, round(self.share * len(with_events)))
        if number >= len(with_events):
            raise InputError(
                f"corpus {corpus.name}: split.share {self.share} of its {len(with_events)} items "
                "with events leaves none to train on; hold out fewer, or prepare a larger corpus"
            )
        if self.choice == "random":
            order = permutation(seed_of("cold items", self.seed), len(with_events)).numpy()
            return np.sort(with_events[order[:number]])
        if corpus.timestamps is None:
            raise InputError(
                f"corpus {corpus.name} has no timestamps, by which split.choice newest finds the "
                "items; choose random"
            )
        newest = np.iinfo(np.int64).max
        first_V = np.full(corpus.num_items, newest, dtype=np.int64)
        np.minimum.at(first_V, corpus.items, corpus.timestamps)
        # Of items that begin at one time, those of higher ids are held out first.
        order = np.lexsort((with_events, first_V[with_events]))
        return np.sort(with_events[order[len(with_events) - number :]])

    def arranged_split(self, corpus: Corpus) -> tuple[Corpus, Split]:
        """The corpus in memory, arranged (see above), and the split as ranges of that.

        `InputError` as for `items`, and where no user has an event of both kinds.
        """
        starts, stops = np.array(corpus.offsets[:-1]), np.array(corpus.offsets[1:])
        users = np.arange(corpus.num_users, dtype=np.int64)
        is_cold_V = np.zeros(corpus.num_items, dtype=bool)
        is_cold_V[self.items(corpus)] = True
        is_cold_N = is_cold_V[corpus.items]
        owner_N = np.repeat(users, stops - starts)
        order_N = np.lexsort((is_cold_N, owner_N))
        arranged = replace(
            corpus,
            items=corpus.items[order_N],
            timestamps=None if corpus.timestamps is None else corpus.timestamps[order_N],
        )
        warm_before_N = np.concatenate([[0], np.cumsum(~is_cold_N)])
        ends = starts + warm_before_N[stops] - warm_before_N[starts]
        # Of each user's other items the last is for validation, if one is left to train on.
        training_stops = np.where(ends - starts >= 2, ends - 1, ends)
        validated = np.flatnonzero(ends - starts >= 2)
        histories = Ranges(users, starts, training_stops)
        test = _questions(arranged, ends, order_N, warm_before_N)
        split = Split(
            training=histories.select(training_stops > starts),
            validation=HeldOut(histories.select(validated), training_stops[validated]),
            test=test,
            not_evaluated=corpus.num_users - len(np.unique(test.histories.users)),
        )
        if len(split.test) == 0:
            raise InputError(
                f"corpus {corpus.name}: no user has an event with one of the "
                f"{int(is_cold_V.sum())} held-out items after one with another item; hold out a "
                "larger split.share"
            )
        return arranged, split


def _questions(
    arranged: Corpus, ends: Indices, order_N: Indices, warm_before_N: NDArray[np.int64]
) -> HeldOut:
    """The questions: of each user's first events with held-out items the last one.

    Held-out events of user u are from `ends[u]` to the end of the arranged history. `order_N` says
    where each arranged event was, and `warm_before_N` [N + 1] how many events of other items came
    before that, of all users.
    """
    starts, stops = np.array(arranged.offsets[:-1]), np.array(arranged.offsets[1:])
    users = np.repeat(np.arange(len(starts)), stops - ends)
    targets = flat_indices(Ranges(np.arange(len(starts)), ends, stops))
    first = np.unique(users * arranged.num_items + arranged.items[targets], return_index=True)[1]
    first.sort()
    users, targets = users[first], targets[first]
    is_last = np.diff(users, append=-1) != 0
    users, targets = users[is_last], targets[is_last]
    lengths = warm_before_N[order_N[targets]] - warm_before_N[starts[users]]
    questions = HeldOut(Ranges(users, starts[users], starts[users] + lengths), targets)
    return questions.select(lengths > 0)
