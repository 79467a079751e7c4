"""Splits at one point in time: every row typed in, leakage, what is refused, and a slow twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.popularity import PopularityConfig
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.negatives import Negatives, NegativesConfig
from research.data.splits import (
    AtQuantile,
    AtTime,
    ByLastItem,
    ByTime,
    ByUsers,
    GlobalTemporal,
    HeldOut,
    Ranges,
    TemporalCut,
    TimepointLeaveOneOut,
    flat_indices,
    training_counts,
)
from research.data.temporal_cut import CutValidation, Target
from research.data.time_cuts import units_of_days
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.errors import InputError
from research.overrides import override
from research.randomness import below, fold, seed_of
from research.runs.config import RunConfig
from tests.support.synthetic import all_rows, write_histories

DAY = 86_400
MAY_2014 = 1_398_902_400
"""The first second of May 2014 in UTC."""
TARGETS: tuple[Target, ...] = get_args(Target)

# User by user, items at the times in the next list; the cut is at 10, at which user 1 has an event.
# User 2 begins after the cut, user 3 has a single event before it, user 4 none after it.
HISTORIES = [[0, 1, 2, 3, 4, 0], [1, 2, 5], [6, 7, 3], [2, 4], [0, 5]]
TIMES = [[1, 2, 3, 11, 12, 13], [4, 10, 14], [12, 15, 16], [5, 17], [6, 7]]
AT_TEN = AtTime(time="10")


@pytest.fixture
def timed(tmp_path: Path) -> Corpus:
    return write_histories(tmp_path / "timed", HISTORIES, num_items=8, timestamps=TIMES)


def rows_of(corpus: Corpus, ranges: Ranges) -> list[tuple[int, list[int]]]:
    """(user, items) of every row."""
    bounds = zip(ranges.users, ranges.starts, ranges.stops, strict=True)
    return [(int(user), corpus.items[start:stop].tolist()) for user, start, stop in bounds]


def asked(corpus: Corpus, held_out: HeldOut) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of every question."""
    targets = corpus.items[held_out.targets].tolist()
    rows = rows_of(corpus, held_out.histories)
    return [(user, history, item) for (user, history), item in zip(rows, targets, strict=True)]


# What each protocol trains on and asks for, by hand

TESTED: dict[str, list[tuple[int, list[int], int]]] = {
    # The second event of user 2 is his first that anything precedes.
    "last": [(0, [0, 1, 2, 3, 4], 0), (1, [1, 2], 5), (2, [6, 7], 3), (3, [2], 4)],
    "first": [(0, [0, 1, 2], 3), (1, [1, 2], 5), (2, [6], 7), (3, [2], 4)],
    "successive": [
        (0, [0, 1, 2], 3), (0, [0, 1, 2, 3], 4), (0, [0, 1, 2, 3, 4], 0),
        (1, [1, 2], 5),
        (2, [6], 7), (2, [6, 7], 3),
        (3, [2], 4),
    ],
    "all": [
        (0, [0, 1, 2], 3), (0, [0, 1, 2], 4), (0, [0, 1, 2], 0),
        (1, [1, 2], 5),
        (2, [6], 7), (2, [6], 3),
        (3, [2], 4),
    ],
}  # fmt: skip


@pytest.mark.parametrize("target", TESTED)
def test_the_targets_after_a_cut_by_hand(timed: Corpus, target: Target) -> None:
    split = TemporalCut(cut=AT_TEN, target=target).split(timed)
    assert asked(timed, split.test) == TESTED[target]
    # User 4 has nothing after the cut.
    assert split.not_evaluated == 1
    # The last item up to the cut validates; who has two of them is asked and not trained on.
    assert rows_of(timed, split.training) == [(0, [0, 1])]
    assert asked(timed, split.validation) == [(0, [0, 1], 2), (1, [1], 2), (4, [0], 5)]


def test_a_random_target_is_one_of_the_successive_ones(timed: Corpus) -> None:
    drawn = set()
    for seed in range(40):
        test = TemporalCut(cut=AT_TEN, target="random", seed=seed).split(timed).test
        assert test.histories.users.tolist() == [0, 1, 2, 3]
        drawn |= {(user, tuple(history), item) for user, history, item in asked(timed, test)}
    assert drawn == {
        (user, tuple(history), item) for user, history, item in TESTED["successive"]
    }  # fmt: skip
    twice = [TemporalCut(cut=AT_TEN, target="random", seed=7).split(timed) for _ in range(2)]
    assert asked(timed, twice[0].test) == asked(timed, twice[1].test)


def test_an_item_that_returns_after_a_cut_is_asked_for_each_time_but_in_a_set_once(
    tmp_path: Path,
) -> None:
    corpus = write_histories(
        tmp_path / "returns", [[0, 1, 2, 3, 2]], num_items=4, timestamps=[[1, 2, 3, 4, 5]]
    )
    everything = TemporalCut(cut=AtTime(time="3"), target="all").split(corpus)
    assert asked(corpus, everything.test) == [(0, [0, 1, 2], 3), (0, [0, 1, 2], 2)]
    each = TemporalCut(cut=AtTime(time="3"), target="successive").split(corpus)
    assert asked(corpus, each.test) == [(0, [0, 1, 2], 3), (0, [0, 1, 2, 3], 2)]


def test_validation_by_users_by_hand(timed: Corpus) -> None:
    # Users 0, 1 and 4 have two interactions up to the cut; one of them is drawn.
    chosen = set()
    for seed in range(12):
        split = TemporalCut(cut=AT_TEN, validation=ByUsers(users=1, seed=seed)).split(timed)
        ((user, history, item),) = asked(timed, split.validation)
        chosen.add(user)
        whole = {0: [0, 1, 2], 1: [1, 2], 4: [0, 5]}
        assert [*history, item] == whole.pop(user)
        assert rows_of(timed, split.training) == list(whole.items())
        # The drawn user's test question stays.
        assert asked(timed, split.test) == TESTED["last"]
    assert chosen == {0, 1, 4}


def test_validation_by_time_by_hand(tmp_path: Path) -> None:
    # Up to the cut at 10 the times are 1 to 10; the median of them is 5.5.
    corpus = write_histories(
        tmp_path / "twice",
        [[0, 1, 2, 3, 9], [4, 5, 6, 8], [7, 8, 9]],
        num_items=10,
        timestamps=[[1, 2, 6, 7, 11], [3, 4, 8, 12], [5, 9, 10]],
    )
    asked_for: dict[Target, list[tuple[int, list[int], int]]] = {
        "last": [(0, [0, 1, 2], 3), (1, [4, 5], 6), (2, [7, 8], 9)],
        "first": [(0, [0, 1], 2), (1, [4, 5], 6), (2, [7], 8)],
        "all": [(0, [0, 1], 2), (0, [0, 1], 3), (1, [4, 5], 6), (2, [7], 8), (2, [7], 9)],
    }
    for target, questions in asked_for.items():
        config = TemporalCut(cut=AT_TEN, target=target, validation=ByTime(quantile=0.5))
        split = config.split(corpus)
        assert rows_of(corpus, split.training) == [(0, [0, 1]), (1, [4, 5])]
        assert asked(corpus, split.validation) == questions
        # The history of the test has what validated.
        assert asked(corpus, split.test) == [(0, [0, 1, 2, 3], 9), (1, [4, 5, 6], 8)]


def test_a_gap_is_neither_trained_on_nor_asked_for_but_in_histories(tmp_path: Path) -> None:
    days = [[0, 1, 2, 4, 6], [0, 1, 3, 5], [3, 4]]
    times = [[MAY_2014 + day * DAY for day in row] for row in days]
    corpus = write_histories(
        tmp_path / "gap", [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 0]], num_items=10, timestamps=times
    )
    cut = AtTime(time="2014-05-03")  # Events of day 2 are at this very moment.
    config = TemporalCut(cut=cut, target="last", validation=ByUsers(users=1), gap_days=2)
    split = config.split(corpus)
    # One of users 0 and 1 validates, with days up to 2 and up to 1; user 2 has nothing by then.
    assert rows_of(corpus, split.training) in ([(0, [0, 1, 2])], [(1, [5, 6])])
    # Day 3 and day 4 are in the gap; they are history for who is asked later.
    assert asked(corpus, split.test) == [(0, [0, 1, 2, 3], 4), (1, [5, 6, 7], 8)]
    everything = replace(config, target="all").split(corpus).test
    assert asked(corpus, everything) == [(0, [0, 1, 2, 3], 4), (1, [5, 6, 7], 8)]
    without = replace(config, gap_days=0.0).split(corpus).test
    assert [user for user, _, _ in asked(corpus, without)] == [0, 1, 2]


def test_leave_one_out_at_a_point_in_time_by_hand(timed: Corpus) -> None:
    split = TimepointLeaveOneOut(cut=AT_TEN).split(timed)
    assert rows_of(timed, split.training) == [(0, [0, 1]), (1, [1]), (4, [0])]
    assert asked(timed, split.validation) == [(0, [0, 1], 2), (1, [1], 2), (4, [0], 5)]
    # The test history contains the validation item. User 4 has nothing after the cut, users 2 and 3
    # have fewer than two interactions before it.
    assert asked(timed, split.test) == [(0, [0, 1, 2], 3), (1, [1, 2], 5)]
    assert split.not_evaluated == 3


@pytest.mark.parametrize(
    ("times", "quantile", "last"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 0.9, 10),
        # Linear interpolation: place 8.1 of 0..9 is 9.1, and events at 9 are before it.
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9, 9),
        ([0, 10], 0.55, 5),
        ([5, 5, 5, 9], 0.5, 5),
        ([-7, -5], 0.25, -7),
    ],
)
def test_a_quantile_of_times_is_interpolated_and_rounded_down(
    tmp_path: Path, times: list[int], quantile: float, last: int
) -> None:
    corpus = write_histories(tmp_path / "one", [[0] * len(times)], num_items=1, timestamps=[times])
    assert AtQuantile(quantile=quantile).last_time(corpus) == last


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("2014-05-02", MAY_2014 + DAY),
        ("2014-05-02T00:00", MAY_2014 + DAY),
        ("2014-05-02 06:30:15", MAY_2014 + DAY + 6 * 3600 + 30 * 60 + 15),
        ("2014-05-02T02:00+02:00", MAY_2014 + DAY),
        (str(MAY_2014 + 17), MAY_2014 + 17),
    ],
)
@pytest.mark.parametrize("units", [1, 1000])
def test_a_time_may_be_a_date_or_a_number(tmp_path: Path, text: str, last: int, units: int) -> None:
    times = [[MAY_2014 * units, (MAY_2014 + 9 * DAY) * units]]
    corpus = write_histories(tmp_path / "may", [[0, 0]], num_items=1, timestamps=times)
    if text.isdecimal():
        text = str(int(text) * units)
    assert AtTime(time=text).last_time(corpus) == last * units


def test_splits_at_a_point_in_time_are_chosen_by_words(timed: Corpus) -> None:
    base = RunConfig(ranker=PopularityConfig())
    words = ["split=TemporalCut", "split.target=all", "split.cut=AtTime", "split.cut.time=10"]
    words += ["split.validation=ByUsers", "--split.validation.users", "2", "split.gap_days=0.5"]
    assert override(base, words).split == TemporalCut(
        cut=AT_TEN, target="all", validation=ByUsers(users=2), gap_days=0.5
    )
    words = ["--split", "TimepointLeaveOneOut", "--split.cut.quantile", "0.8"]
    assert override(base, words).split == TimepointLeaveOneOut(cut=AtQuantile(quantile=0.8))


# Leakage

CONFIGS: list[TemporalCut | TimepointLeaveOneOut] = [
    *(
        TemporalCut(cut=AtQuantile(quantile=0.7), target=target, validation=validation)
        for target in TARGETS
        for validation in (ByLastItem(), ByUsers(users=3), ByTime(quantile=0.7))
    ),
    TimepointLeaveOneOut(cut=AtQuantile(quantile=0.6)),
]


def random_corpus(folder: Path, seed: int, num_users: int) -> Corpus:
    """Histories of 1 to 9 items of 15, some repeated, at times with many ties."""
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, 10, num_users).tolist()
    histories = [draws.integers(0, 15, length).tolist() for length in lengths]
    times = [sorted(draws.integers(0, 40, length).tolist()) for length in lengths]
    return write_histories(folder, histories, num_items=15, timestamps=times)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_training_knows_nothing_that_is_held_out_or_later(
    tmp_path: Path, config: TemporalCut | TimepointLeaveOneOut, seed: int
) -> None:
    corpus = random_corpus(tmp_path / "c", seed, 40)
    assert corpus.timestamps is not None
    split, cut = config.split(corpus), config.cut.last_time(corpus)
    trained = flat_indices(split.training)
    held_out = {*split.validation.targets.tolist(), *split.test.targets.tolist()}
    assert min(map(len, (split.training, split.validation, split.test))) > 0
    # No event at or before the cut is a test target, and none after it is trained on.
    assert (corpus.timestamps[split.test.targets] > cut).all()
    assert (corpus.timestamps[trained] <= cut).all()
    assert (corpus.timestamps[split.validation.targets] <= cut).all()
    if isinstance(config, TemporalCut) and isinstance(config.validation, ByTime):
        assert corpus.timestamps[trained].max() < corpus.timestamps[split.validation.targets].min()
    # Windows, popularity, negatives and segments are made of the training rows alone.
    for windows in (LastItems(), EveryPrefix(), Sliding(stride=2)):
        rows = all_rows(windows.windows(split.training, 2))
        assert not held_out & set(flat_indices(rows).tolist())
    counts = np.bincount(corpus.items[trained], minlength=15)
    assert training_counts(corpus, split).tolist() == counts.tolist()
    catalogue = Catalogue.of(corpus, split)
    assert catalogue.training.counts_V.tolist() == counts.tolist()
    assert catalogue.training.ranges is split.training
    negatives = Negatives(NegativesConfig(distribution="popularity", exclude="nothing"), catalogue)
    drawn = negatives.draw(fold(3, torch.arange(500)), torch.zeros(500, dtype=torch.int64), 1)
    assert (counts[drawn.numpy()] > 0).all()
    for part in (split.validation, split.test):
        assert (part.histories.stops <= part.targets).all()
        assert (part.histories.stops > part.histories.starts).all()
        assert (part.histories.starts == corpus.offsets[part.histories.users]).all()


# The slow twin: frames and loops, from the paper's words


def frame_of(corpus: Corpus) -> pd.DataFrame:
    """One row an interaction, with its index into the corpus."""
    users = np.repeat(np.arange(corpus.num_users), np.diff(corpus.offsets))
    columns = {"user": users, "item": corpus.items, "time": corpus.timestamps}
    return pd.DataFrame({**columns, "place": np.arange(corpus.num_interactions)})


Questions = list[tuple[int, int, int, int]]
"""(user, first and stop index of the history, index of the target), sorted."""


def slow_questions(frame: pd.DataFrame, cut: float, target: Target, seed: int) -> Questions:
    """The questions about interactions later than `cut`, user by user."""
    questions: Questions = []
    for user, history in frame.groupby("user"):
        places = history.place.tolist()
        later = [n for n, time in enumerate(history.time) if time > cut and n > 0]
        if not later:
            continue
        if target == "last":
            chosen = [(later[-1], later[-1])]
        elif target == "first":
            chosen = [(later[0], later[0])]
        elif target == "random":
            bits = fold(seed, torch.tensor([int(user)]))
            drawn = later[int(below(bits, torch.tensor([len(later)])))]
            chosen = [(drawn, drawn)]
        elif target == "successive":
            chosen = [(n, n) for n in later]
        else:
            items = history.item.tolist()
            new = [n for n in later if items[n] not in items[later[0] : n]]
            chosen = [(later[0], n) for n in new]
        questions += [(int(user), places[0], places[0] + stop, places[n]) for stop, n in chosen]
    return sorted(questions)


def slow_split(
    corpus: Corpus, config: TemporalCut
) -> tuple[dict[int, list[int]], Questions, Questions]:
    """(indices trained on by user, questions of validation, questions of test)."""
    frame = frame_of(corpus)
    cut = frame.time.quantile(config.cut.quantile)  # type: ignore[attr-defined]
    before = frame[frame.time <= cut]
    sizes = before.groupby("user").size()
    before = before[before.user.isin(sizes[sizes >= 2].index)]
    test = slow_questions(frame, cut, config.target, seed_of("test target", config.seed))
    trained = {int(user): rows.place.tolist() for user, rows in before.groupby("user")}
    validation: Questions = []
    if isinstance(config.validation, ByLastItem):
        for user, places in trained.items():
            validation.append((user, places[0], places[-1], places[-1]))
        trained = {user: places[:-1] for user, places in trained.items() if len(places) > 2}
    elif isinstance(config.validation, ByTime):
        earlier = before.time.quantile(config.validation.quantile)
        seed = seed_of("validation target", config.seed)
        validation = slow_questions(before, earlier, config.target, seed)
        kept = before[before.time <= earlier]
        trained = {int(user): rows.place.tolist() for user, rows in kept.groupby("user")}
        trained = {user: places for user, places in trained.items() if len(places) >= 2}
    return trained, validation, test


def fast_questions(held_out: HeldOut) -> Questions:
    columns = (*vars(held_out.histories).values(), held_out.targets)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("validation", [ByLastItem(), ByTime(quantile=0.6)], ids=str)
@pytest.mark.parametrize(("seed", "num_users"), [(0, 7), (1, 30), (2, 61)])
def test_a_cut_equals_the_loop_over_users(
    tmp_path: Path, target: Target, validation: CutValidation, seed: int, num_users: int
) -> None:
    corpus = random_corpus(tmp_path / "c", seed, num_users)
    for quantile in (0.5, 0.75, 0.9):
        cut = AtQuantile(quantile=quantile)
        drawn_by = seed if target == "random" else 0
        config = TemporalCut(cut=cut, target=target, validation=validation, seed=drawn_by)
        trained, validated, tested = slow_split(corpus, config)
        try:
            split = config.split(corpus)
        except InputError:
            assert not (trained and validated and tested)
            continue
        rows = zip(split.training.users, split.training.starts, split.training.stops, strict=True)
        assert {int(u): list(range(a, b)) for u, a, b in rows} == trained
        assert fast_questions(split.validation) == validated
        assert fast_questions(split.test) == tested
        assert split.not_evaluated == num_users - len({user for user, *_ in tested})


@pytest.mark.parametrize(("seed", "num_users"), [(0, 7), (1, 30), (2, 61)])
def test_leave_one_out_at_a_point_in_time_equals_the_loop(
    tmp_path: Path, seed: int, num_users: int
) -> None:
    corpus = random_corpus(tmp_path / "c", seed, num_users)
    frame = frame_of(corpus)
    cut = frame.time.quantile(0.7)
    trained, validated, tested = [], [], []
    for user, history in frame.groupby("user"):
        known = history[history.time <= cut].place.tolist()
        later = history[history.time > cut].place.tolist()
        if len(known) < 2:
            continue
        trained.append((int(user), known[0], known[-1]))
        validated.append((int(user), known[0], known[-1], known[-1]))
        if later:
            tested.append((int(user), known[0], later[0], later[0]))
    split = TimepointLeaveOneOut(cut=AtQuantile(quantile=0.7)).split(corpus)
    rows = vars(split.training).values()
    assert list(zip(*(column.tolist() for column in rows), strict=True)) == trained
    assert fast_questions(split.validation) == validated
    assert fast_questions(split.test) == tested


# What is refused


def refusal(config: TemporalCut | TimepointLeaveOneOut, corpus: Corpus) -> str:
    with pytest.raises(InputError) as caught:
        config.split(corpus)
    return str(caught.value)


@pytest.mark.parametrize("config", [TemporalCut(), TimepointLeaveOneOut(), GlobalTemporal()])
def test_a_cut_needs_times(config: TemporalCut, timed: Corpus) -> None:
    object.__setattr__(timed, "timestamps", None)
    assert refusal(config, timed) == (
        "corpus timed has no timestamps, which a split at points in time (such as TemporalCut) and "
        "popularity of the last days need; choose split=LeaveOneOut or UserHoldout, or prepare it "
        "from a source with times"
    )


@pytest.mark.parametrize("config", [TemporalCut(), TimepointLeaveOneOut(), GlobalTemporal()])
def test_an_empty_corpus_is_refused(config: TemporalCut, tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "empty", [], num_items=0)
    assert refusal(config, corpus) == "corpus empty has no interaction to split"


def months(folder: Path, *days: Sequence[int]) -> Corpus:
    """A corpus with events on these days of May 2014, counted from 0, a sequence a user."""
    times = [[MAY_2014 + day * DAY for day in row] for row in days]
    histories = [list(range(len(row))) for row in days]
    return write_histories(folder, histories, num_items=9, timestamps=times)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            TemporalCut(cut=AtTime(time="2014-05-01")),
            "the cut at 2014-05-01 00:00:00 (1398902400) leaves no user with 2 interactions to "
            "train on; 2 interactions are before it and 6 after it. Choose a later cut, such as "
            "split.cut.quantile=0.95.",
        ),
        (
            TemporalCut(cut=AtTime(time="2014-05-02")),
            "the cut at 2014-05-02 00:00:00 (1398988800) leaves no user with 3 interactions to "
            "train on; 4 interactions are before it and 4 after it. Choose a later cut, or "
            "split.validation=ByUsers.",
        ),
        (
            TemporalCut(cut=AtTime(time="2014-05-04"), validation=ByUsers(users=2)),
            "leaves no user to train on, as 2 have 2 interactions up to it and "
            "split.validation.users is 2; 7 interactions are before it and 1 after it. Choose "
            "fewer users, or split.validation=ByLastItem.",
        ),
        (
            TemporalCut(cut=AtTime(time="2014-05-04"), gap_days=30),
            "leaves no user to test, 30 days of gap after it; 7 interactions are before it and 1 "
            "after it. Choose an earlier cut, such as split.cut.quantile=0.8, or a shorter gap.",
        ),
        (
            TemporalCut(cut=AtTime(time="2014-05-04"), validation=ByTime(quantile=0.1)),
            "the cut at 2014-05-01 00:00:00 (1398902400) leaves no user to train on; 2 "
            "interactions are before it and 6 after it. It is the cut of the validation, before "
            "the one at 2014-05-04 00:00:00 (1399161600): choose another "
            "split.validation.quantile, or split.validation=ByLastItem.",
        ),
        (
            TimepointLeaveOneOut(cut=AtTime(time="2014-05-01")),
            "leaves no user with 2 interactions to train on and to validate; 2 interactions are "
            "before it and 6 after it. Choose a later cut, such as split.cut.quantile=0.95.",
        ),
        (
            TemporalCut(cut=AtTime(time="2015-01-01")),
            "split.cut.time is 2015-01-01, which leaves no interaction of corpus may on one side; "
            "its times are 2014-05-01 00:00:00 (1398902400) to 2014-05-05 00:00:00 (1399248000): "
            "choose a time between them",
        ),
        (
            TimepointLeaveOneOut(cut=AtTime(time="12")),
            "split.cut.time is 12, which leaves no interaction of corpus may on one side; its",
        ),
    ],
)
def test_a_cut_that_leaves_nobody_says_where_it_is_and_what_to_choose(
    tmp_path: Path, config: TemporalCut | TimepointLeaveOneOut, message: str
) -> None:
    corpus = months(tmp_path / "may", [0, 1, 2, 3], [0, 1, 2, 4])
    assert message in refusal(config, corpus)


def test_a_cut_that_leaves_nobody_to_test_says_so(tmp_path: Path) -> None:
    # The only user after the cut has a single event, which nothing precedes.
    corpus = months(tmp_path / "may", [0, 1, 2], [4])
    for config in (
        TemporalCut(cut=AtTime(time="2014-05-04")),
        TimepointLeaveOneOut(cut=AtTime(time="2014-05-04")),
    ):
        assert "to test; 3 interactions are before it and 1 after it. Choose an earlier cut" in (
            refusal(config, corpus)
        )


def test_all_of_the_day_of_a_cut_is_trained_on_where_times_are_whole_days(tmp_path: Path) -> None:
    corpus = months(tmp_path / "may", [0, 1, 2, 3], [0, 1, 2, 3])
    split = TemporalCut(cut=AtTime(time="2014-05-03"), target="all").split(corpus)
    # Day 2 is the 3rd of May: it validates by last item, and the 4th is asked for.
    assert [corpus.timestamps[place] for place in split.test.targets] == [MAY_2014 + 3 * DAY] * 2
    assert all(corpus.timestamps[split.validation.targets] == MAY_2014 + 2 * DAY)


@pytest.mark.parametrize("days", [1e-9, float("inf"), float("nan")])
def test_days_without_end_or_of_less_than_a_unit_are_refused(days: float, tmp_path: Path) -> None:
    corpus = months(tmp_path / "may", [0, 1, 2, 3])
    message = "give more days" if days < 1 else "give a finite number of days"
    with pytest.raises(InputError, match=f"field is {days}.*{message}"):
        units_of_days(corpus, days, "field")
    assert units_of_days(corpus, 1 / DAY, "field") == 1


def test_a_seed_that_draws_nothing_is_refused() -> None:
    for target in TARGETS:
        if target != "random":
            with pytest.raises(InputError, match=f"seed is 3, but split.target {target} draws"):
                TemporalCut(target=target, seed=3)
    assert TemporalCut(target="random", seed=3).seed == 3


def test_days_and_dates_need_times_with_a_unit(timed: Corpus) -> None:
    assert refusal(TemporalCut(gap_days=1.5), timed) == (
        "split.gap_days is 1.5, but the times of corpus timed are no seconds since 1970 and have "
        "no days; prepare it from a source with real times"
    )
    assert refusal(TemporalCut(cut=AtTime(time="2014-05-01")), timed) == (
        "split.cut.time is 2014-05-01, but the times of corpus timed, 1 to 17, are no seconds "
        "since 1970; give one of these numbers"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["split.cut.quantile=0"], "split.cut.quantile is 0.0; it must be above 0 and below 1"),
        (["split.cut.quantile=1.0"], "split.cut.quantile is 1.0; it must be above 0 and below 1"),
        (["split.gap_days=-1"], "split.gap_days is -1.0; give 0 or a number of days above"),
        (["split.target=newest"], "split.target is 'newest'; allowed: last | first | random"),
        (["split.cut=AtTime"], "time"),
        (
            ["split.cut=AtTime", "split.cut.time=May"],
            "split.cut.time is 'May'; allowed: a day such as 2014-05-01, a moment such as",
        ),
        (
            ["split.validation=ByUsers", "split.validation.users=0"],
            "split.validation.users is 0; give a whole number from 1 on",
        ),
        (
            ["split.validation=ByTime", "split.validation.quantile=2"],
            "split.validation.quantile is 2.0; it must be above 0 and below 1",
        ),
        (
            ["split.target=successive", "evaluation.metrics=ndcg@10,coverage@10"],
            "evaluation.metrics has coverage@10, a metric of one recommended list a user, but",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        override(RunConfig(ranker=PopularityConfig()), ["split=TemporalCut", *words])
    assert message in str(caught.value)
