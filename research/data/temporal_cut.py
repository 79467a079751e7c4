"""One point in time cuts training from test: the global temporal split of "Time to Split".

Gusak, Volodkevich, Klenitskiy et al., "Time to Split: Exploring Data Splitting Strategies for
Offline Evaluation of Sequential Recommenders" (RecSys 2025, arXiv 2507.16289), with their names for
what is asked after the cut and for how validation is taken from before it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from research.config import check_types
from research.data.corpus import Corpus
from research.data.held_out import (
    HeldOut,
    Indices,
    Ranges,
    Split,
    first_of_each_item,
    flat_indices,
)
from research.data.time_cuts import (
    AtQuantile,
    CutConfig,
    check_quantile,
    moment,
    nobody_left,
    stops_through,
    time_at_quantile,
    times_of,
    units_of_days,
)
from research.errors import InputError
from research.randomness import below, fold, permutation, seed_of

Target = Literal["last", "first", "random", "successive", "all"]

# Interactions that a training row has at least: one to read and one to predict.
SHORTEST_ROW = 2


@dataclass(frozen=True, eq=False)
class BeforeTheCut:
    """What a validation rule is given: the histories up to the cut, and how the split asks."""

    corpus: Corpus
    histories: Ranges
    """The interactions up to the cut of each user who has at least `SHORTEST_ROW` of them."""
    last_time: int
    """The time of the cut."""
    target: Target
    """See `TemporalCut.target`."""
    gap: int
    """The gap in the unit of the corpus's times."""
    seed: int
    """See `TemporalCut.seed`."""


class CutValidation(ABC):
    """Abstract: how validation is taken from before the cut; each is a frozen dataclass."""

    @abstractmethod
    def held_out(self, before: BeforeTheCut) -> tuple[Ranges, HeldOut]:
        """(training rows, questions of validation).

        `InputError` if nobody remains to train on, or nobody is asked.
        """


@dataclass(frozen=True, kw_only=True)
class ByLastItem(CutValidation):
    """Each user's last interaction up to the cut is the target of validation, not trained on.

    A user of two such interactions is asked and not trained on, as one is left.
    """

    def held_out(self, before: BeforeTheCut) -> tuple[Ranges, HeldOut]:
        """See `CutValidation`."""
        rows = before.histories
        asked = Ranges(rows.users, rows.starts, rows.stops - 1)
        training = asked.select(asked.stops - asked.starts >= SHORTEST_ROW)
        if len(training) == 0:
            raise nobody_left(
                before.corpus,
                before.last_time,
                f"with {SHORTEST_ROW + 1} interactions to train on",
                "Choose a later cut, or split.validation=ByUsers.",
            )
        return training, HeldOut(asked, asked.stops)


@dataclass(frozen=True, kw_only=True)
class ByUsers(CutValidation):
    """Some users are not trained on; the last interaction of each up to the cut is the target."""

    users: int = 1024
    """How many users are drawn for it, of those with two interactions up to the cut or more."""
    seed: int = 0
    """Seed of the draw, apart from the run's seed, so that runs of all seeds share one split."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.users < 1:
            raise InputError(
                f"split.validation.users is {self.users}; give a whole number from 1 on"
            )

    def held_out(self, before: BeforeTheCut) -> tuple[Ranges, HeldOut]:
        """See `CutValidation`."""
        rows = before.histories
        if self.users >= len(rows):
            raise nobody_left(
                before.corpus,
                before.last_time,
                f"to train on, as {len(rows):,} have {SHORTEST_ROW} interactions up to it and "
                f"split.validation.users is {self.users:,}",
                "Choose fewer users, or split.validation=ByLastItem.",
            )
        order = permutation(seed_of("validation users", self.seed), len(rows)).numpy()
        drawn = np.zeros(len(rows), dtype=np.bool_)
        drawn[order[: self.users]] = True
        asked = rows.select(drawn)
        asked = Ranges(asked.users, asked.starts, asked.stops - 1)
        return rows.select(~drawn), HeldOut(asked, asked.stops)


@dataclass(frozen=True, kw_only=True)
class ByTime(CutValidation):
    """The interactions up to the cut are cut once more, and asked for as after the first cut."""

    quantile: float = 0.9
    """Share of the interactions that are up to the earlier cut, above 0 and below 1; of those up to
    the cut, of users with two or more up to it."""

    def __post_init__(self) -> None:
        check_types(self)
        check_quantile(self.quantile, "split.validation.quantile")

    def held_out(self, before: BeforeTheCut) -> tuple[Ranges, HeldOut]:
        """See `CutValidation`."""
        corpus, rows, times = before.corpus, before.histories, times_of(before.corpus)
        last_time = time_at_quantile(times[flat_indices(rows)], self.quantile)
        stops = np.minimum(stops_through(corpus, times, last_time)[rows.users], rows.stops)
        training = Ranges(rows.users, rows.starts, stops)
        training = training.select(stops - rows.starts >= SHORTEST_ROW)
        after_gap = stops_through(corpus, times, last_time + before.gap)[rows.users]
        seed = seed_of("validation target", before.seed)
        asked = questions_from(corpus, rows, after_gap, before.target, seed)
        for part, is_empty in (("to train on", not len(training)), ("to validate", not len(asked))):
            if is_empty:
                raise nobody_left(
                    corpus,
                    last_time,
                    part,
                    "It is the cut of the validation, before the one at "
                    f"{moment(before.last_time, int(times.max()))}: choose another "
                    "split.validation.quantile, or split.validation=ByLastItem.",
                )
        return training, asked


@dataclass(frozen=True, kw_only=True)
class TemporalCut:
    """A point in time cuts all histories: before it is trained on, after it is asked for.

    An interaction at the very time of the cut is trained on, with users of two or more up to it. An
    interaction after the cut can be asked for if its user has an earlier one, before the cut or
    after it; its history has all earlier ones of the user that `target` allows, those after the cut
    and those in the gap too, as a system knows them when it is asked, whenever it was trained.
    """

    cut: CutConfig = AtQuantile()
    """Where in time the cut is: AtQuantile, or AtTime."""
    target: Target = "last"
    """Which of a user's interactions after the cut are asked for: "last", "first", "random" (one
    drawn), "successive" (each, after all before it; a user's figure is the mean over them), "all"
    (the set of them, after what precedes the first)."""
    validation: CutValidation = ByLastItem()
    """How validation is taken from before the cut: ByLastItem, ByUsers, or ByTime."""
    gap_days: float = 0.0
    """Days after the cut whose interactions are neither trained on nor asked for, as between the
    training of a system and its use; with ByTime also after the earlier cut."""
    seed: int = 0
    """Seed of the target "random", which alone has one; apart from the run's seed, so that runs of
    all seeds share one split."""

    def __post_init__(self) -> None:
        check_types(self)
        if not (0.0 <= self.gap_days < math.inf):
            raise InputError(f"split.gap_days is {self.gap_days}; give 0 or a number of days above")
        if self.seed != TemporalCut.seed and self.target != "random":
            raise InputError(
                f"split.seed is {self.seed}, but split.target {self.target} draws nothing; leave "
                "the seed out, or choose the target random"
            )

    def split(self, corpus: Corpus) -> Split:
        """The split of a corpus.

        Raises `InputError` if the corpus has no timestamps, if the cut is outside of them, or if
        nobody remains to train on, to validate or to test.
        """
        times, last_time = times_of(corpus), self.cut.last_time(corpus)
        gap = units_of_days(corpus, self.gap_days, "split.gap_days") if self.gap_days else 0
        starts, ends = np.asarray(corpus.offsets[:-1]), np.asarray(corpus.offsets[1:])
        users = np.arange(corpus.num_users, dtype=np.int64)
        before_cut = Ranges(users, starts, stops_through(corpus, times, last_time))
        rows = before_cut.select(before_cut.stops - starts >= SHORTEST_ROW)
        if len(rows) == 0:
            raise nobody_left(
                corpus,
                last_time,
                f"with {SHORTEST_ROW} interactions to train on",
                "Choose a later cut, such as split.cut.quantile=0.95.",
            )
        test = questions_from(
            corpus,
            Ranges(users, starts, ends),
            stops_through(corpus, times, last_time + gap),
            self.target,
            seed_of("test target", self.seed),
        )
        if len(test) == 0:
            raise nobody_left(
                corpus,
                last_time,
                "to test" + (f", {self.gap_days:g} days of gap after it" if gap else ""),
                "Choose an earlier cut, such as split.cut.quantile=0.8"
                + (", or a shorter gap." if gap else "."),
            )
        before = BeforeTheCut(corpus, rows, last_time, self.target, gap, self.seed)
        training, validation = self.validation.held_out(before)
        return Split(
            training=training,
            validation=validation,
            test=test,
            not_evaluated=corpus.num_users - len(np.unique(test.histories.users)),
        )


def questions_from(
    corpus: Corpus, histories: Ranges, after: Indices, target: Target, seed: int
) -> HeldOut:
    """The questions about each history's interactions from index `after` (int64 [R]) on.

    The first of a history is never asked for, as nothing precedes it. `seed` (64 random bits) draws
    the "random" target, by user.
    """
    users, starts, stops = histories.users, histories.starts, histories.stops
    firsts = np.maximum(after, starts + 1)
    counts = np.maximum(stops - firsts, 0)
    if target in ("successive", "all"):
        targets = flat_indices(Ranges(users, firsts, firsts + counts))
        rows = np.repeat(np.arange(len(users)), counts)
        if target == "successive":
            return HeldOut(Ranges(users[rows], starts[rows], targets), targets)
        kept = first_of_each_item(corpus, users[rows], targets)
        rows, targets = rows[kept], targets[kept]
        return HeldOut(Ranges(users[rows], starts[rows], firsts[rows]), targets)
    asked = np.flatnonzero(counts)
    users, starts, firsts, counts = users[asked], starts[asked], firsts[asked], counts[asked]
    if target == "random":
        bits = fold(seed, torch.from_numpy(users))
        targets = firsts + below(bits, torch.from_numpy(counts)).numpy()
    else:
        targets = firsts if target == "first" else stops[asked] - 1
    return HeldOut(Ranges(users, starts, targets), targets)
