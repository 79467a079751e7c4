"""What trains and what is held out, and that nothing held out leaks into training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.splits import (
    AtQuantile,
    ByTime,
    GlobalTemporal,
    HeldOut,
    LeaveOneOut,
    Ranges,
    Split,
    SplitConfig,
    TemporalCut,
    TimepointLeaveOneOut,
    UserHoldout,
    flat_indices,
    training_counts,
)
from research.data.windows import EveryPrefix, LastItems, Sliding, WindowsConfig
from research.errors import InputError
from tests.support.synthetic import all_rows, write_histories

WINDOWS = [LastItems(), EveryPrefix(), Sliding(stride=2)]
SPLITS = [
    LeaveOneOut(),
    LeaveOneOut(validation_in_training=True),
    UserHoldout(validation_share=0.2, test_share=0.3, seed=1),
    GlobalTemporal(validation_share=0.2, test_share=0.2),
    TemporalCut(cut=AtQuantile(quantile=0.6)),
    TemporalCut(cut=AtQuantile(quantile=0.6), target="successive", validation=ByTime(quantile=0.6)),
    TimepointLeaveOneOut(cut=AtQuantile(quantile=0.6)),
]


def rows_of(corpus: Corpus, ranges: Ranges) -> list[tuple[int, list[int]]]:
    """(user, items) of every row."""
    bounds = zip(ranges.users, ranges.starts, ranges.stops, strict=True)
    return [(int(user), corpus.items[start:stop].tolist()) for user, start, stop in bounds]


def questions(corpus: Corpus, held_out: HeldOut) -> list[tuple[int, list[int], int]]:
    """(user, history, target) of every question."""
    targets = corpus.items[held_out.targets].tolist()
    rows = rows_of(corpus, held_out.histories)
    return [(user, history, item) for (user, history), item in zip(rows, targets, strict=True)]


def test_leave_one_out_by_hand(tiny_corpus: Corpus) -> None:
    split = LeaveOneOut().split(tiny_corpus)
    assert rows_of(tiny_corpus, split.training) == [
        (0, [0, 1, 2]), (1, [1, 2]), (2, [3]), (3, [0, 1]),
    ]  # fmt: skip
    assert questions(tiny_corpus, split.validation) == [
        (0, [0, 1, 2], 3), (1, [1, 2], 0), (2, [3], 4),
    ]  # fmt: skip
    # The test history contains the validation item.
    assert questions(tiny_corpus, split.test) == [
        (0, [0, 1, 2, 3], 4), (1, [1, 2, 0], 5), (2, [3, 4], 5),
    ]  # fmt: skip
    assert split.not_evaluated == 1


def test_the_validation_item_may_stand_in_training(tiny_corpus: Corpus) -> None:
    split = LeaveOneOut(validation_in_training=True).split(tiny_corpus)
    assert rows_of(tiny_corpus, split.training) == [
        (0, [0, 1, 2, 3]), (1, [1, 2, 0]), (2, [3, 4]), (3, [0, 1]),
    ]  # fmt: skip
    plain = LeaveOneOut().split(tiny_corpus)
    assert questions(tiny_corpus, split.test) == questions(tiny_corpus, plain.test)
    assert questions(tiny_corpus, split.validation) == questions(tiny_corpus, plain.validation)


def test_no_user_long_enough_is_an_error(tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "short", [[0, 1], [1]], num_items=2)
    with pytest.raises(InputError) as caught:
        LeaveOneOut().split(corpus)
    assert "corpus short: no user has the 3 interactions that leave-one-out needs" in str(
        caught.value
    )
    assert "(the longest history has 2)" in str(caught.value)


@pytest.fixture
def twenty(tmp_path: Path) -> Corpus:
    """Twenty users of one to five items; the n-th event of user u is at second 10 n + u."""
    histories = [[(user + place) % 9 for place in range(1 + user % 5)] for user in range(20)]
    times = [[10 * place + user for place in range(1 + user % 5)] for user in range(20)]
    return write_histories(tmp_path / "twenty", histories, num_items=9, timestamps=times)


def test_held_out_users_are_whole_and_apart(twenty: Corpus) -> None:
    split = UserHoldout(validation_share=0.2, test_share=0.3, seed=1).split(twenty)
    groups = [
        set(part.users.tolist())
        for part in (split.training, split.validation.histories, split.test.histories)
    ]
    assert len(groups[0] | groups[1] | groups[2]) == sum(map(len, groups))
    assert len(groups[0]) == 10
    # Users of a single item cannot be asked about; they are counted.
    assert len(groups[1]) + len(groups[2]) + split.not_evaluated == 10


def test_held_out_users_are_asked_for_their_last_item(twenty: Corpus) -> None:
    split = UserHoldout(seed=3, test_share=0.5).split(twenty)
    for user, history, item in questions(twenty, split.test):
        begin, end = twenty.offsets[user], twenty.offsets[user + 1]
        assert [*history, item] == twenty.items[begin:end].tolist()
    for user, items in rows_of(twenty, split.training):
        assert items == twenty.items[twenty.offsets[user] : twenty.offsets[user + 1]].tolist()


def test_held_out_users_depend_on_the_split_seed(twenty: Corpus) -> None:
    chosen = [
        UserHoldout(seed=seed, test_share=0.3).split(twenty).test.histories.users.tolist()
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_points_in_time_by_hand(tmp_path: Path) -> None:
    # Times 1..10; the newest fifth (9, 10) tests, the fifth before (7, 8) validates.
    corpus = write_histories(
        tmp_path / "timed",
        [[0, 1, 2, 3], [4, 5, 6, 7], [8], [9]],
        num_items=10,
        timestamps=[[1, 2, 7, 9], [3, 4, 5, 8], [6], [10]],
    )
    split = GlobalTemporal(validation_share=0.2, test_share=0.2).split(corpus)
    assert rows_of(corpus, split.training) == [(0, [0, 1]), (1, [4, 5, 6]), (2, [8])]
    assert questions(corpus, split.validation) == [(0, [0, 1], 2), (1, [4, 5, 6], 7)]
    # Users 1 and 2 have nothing after the cut, user 3 nothing before it.
    assert questions(corpus, split.test) == [(0, [0, 1, 2], 3)]
    assert split.not_evaluated == 3


@pytest.mark.parametrize("number", [100, 200, 1000])
def test_shares_are_those_of_decimals(tmp_path: Path, number: int) -> None:
    # In floating point 1 - .05 - .05 is a little less than .9.
    events = list(range(number))
    corpus = write_histories(tmp_path / "timed", [events], num_items=number, timestamps=[events])
    split = GlobalTemporal(validation_share=0.05, test_share=0.05).split(corpus)
    assert (len(split.validation), len(split.test)) == (number // 20, number // 20)


def test_several_items_after_a_cut_are_several_questions(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "timed", [[0, 1, 2, 3, 4]], num_items=5, timestamps=[[1, 2, 3, 4, 4]]
    )
    split = GlobalTemporal(validation_share=0.2, test_share=0.4).split(corpus)
    # All are asked from what is known at the cut.
    assert questions(corpus, split.test) == [(0, [0, 1, 2], 3), (0, [0, 1, 2], 4)]


def test_events_at_the_second_of_a_cut_fall_after_it(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "ties", [[0, 1], [2, 3], [4, 5]], num_items=6,
        timestamps=[[1, 5], [2, 5], [3, 5]],
    )  # fmt: skip
    split = GlobalTemporal(validation_share=0.4, test_share=0.2).split(corpus)
    assert [item for _, _, item in questions(corpus, split.test)] == [1, 3, 5]


def test_points_in_time_need_times(tmp_path: Path, tiny_corpus: Corpus) -> None:
    object.__setattr__(tiny_corpus, "timestamps", None)
    with pytest.raises(InputError, match="corpus tiny has no timestamps, which a split at points"):
        GlobalTemporal().split(tiny_corpus)


def test_points_in_time_with_no_user_on_both_sides_are_an_error(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "apart", [[0, 1], [2, 3]], num_items=4, timestamps=[[1, 2], [8, 9]]
    )
    with pytest.raises(InputError) as caught:
        GlobalTemporal(validation_share=0.25, test_share=0.5).split(corpus)
    assert str(caught.value) == (
        "corpus apart: the cut at 8 leaves no user with interactions on both sides of it; 2 "
        "interactions are before it and 2 after it. Choose other shares, or another split."
    )


def test_too_few_users_to_hold_out_are_an_error(tiny_corpus: Corpus) -> None:
    with pytest.raises(InputError, match="4 users do not suffice to train on some and hold out 1%"):
        UserHoldout(test_share=0.01, validation_share=0.0).split(tiny_corpus)


@pytest.mark.parametrize(
    ("kind", "shares", "message"),
    [
        (UserHoldout, (-0.1, 0.1), "validation and test users must be 0 or more and leave some"),
        (UserHoldout, (0.5, 0.5), "validation and test users must be 0 or more and leave some"),
        (GlobalTemporal, (0.0, 0.1), "validation and test interactions must be above 0 and leave"),
        (GlobalTemporal, (0.6, 0.5), "validation and test interactions must be above 0 and leave"),
    ],
)
def test_shares_that_leave_nothing_are_refused(
    kind: type, shares: tuple[float, float], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind(validation_share=shares[0], test_share=shares[1])
    assert f"split: shares {shares} of {message}" in str(caught.value)


def held_out_places(split: Split, config: SplitConfig) -> set[int]:
    """Indices of interactions that training must not know."""
    places = set(split.test.targets.tolist())
    if config != LeaveOneOut(validation_in_training=True):
        places |= set(split.validation.targets.tolist())
    return places


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("config", SPLITS, ids=str)
def test_no_held_out_interaction_is_in_a_window(
    twenty: Corpus, config: SplitConfig, windows: WindowsConfig
) -> None:
    split = config.split(twenty)
    rows = all_rows(windows.windows(split.training, 2))
    assert not set(flat_indices(rows).tolist()) & held_out_places(split, config)
    for user, start, stop in zip(rows.users, rows.starts, rows.stops, strict=True):
        assert twenty.offsets[user] <= start < stop <= twenty.offsets[user + 1]


@pytest.mark.parametrize("config", SPLITS, ids=str)
def test_no_held_out_interaction_counts_as_popular_or_as_seen(
    twenty: Corpus, config: SplitConfig
) -> None:
    split = config.split(twenty)
    held_out = held_out_places(split, config)
    counts, pairs = [0] * twenty.num_items, set()
    for user, start, stop in zip(
        split.training.users, split.training.starts, split.training.stops, strict=True
    ):
        for place in range(start, stop):
            assert place not in held_out
            counts[twenty.items[place]] += 1
            pairs.add(int(user) * twenty.num_items + int(twenty.items[place]))
    catalogue = Catalogue.of(twenty, split)
    assert training_counts(twenty, split).tolist() == counts
    assert catalogue.training.counts_V.tolist() == counts
    assert catalogue.training.pairs.tolist() == sorted(pairs)


@pytest.mark.parametrize("config", SPLITS, ids=str)
def test_no_history_contains_its_target(twenty: Corpus, config: SplitConfig) -> None:
    split = config.split(twenty)
    for held_out in (split.validation, split.test):
        assert len(held_out) > 0
        assert (held_out.histories.stops <= held_out.targets).all()
        assert (held_out.histories.stops > held_out.histories.starts).all()


def test_the_catalogue_holds_the_attributes_of_items(tiny_corpus: Corpus) -> None:
    catalogue = Catalogue.of(tiny_corpus, LeaveOneOut().split(tiny_corpus))
    assert catalogue.attribute_offsets.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert catalogue.attribute_ids.tolist() == [0, 1, 2, 0, 1, 2]
    assert (catalogue.num_users, catalogue.num_items, catalogue.num_attributes) == (4, 6, 3)


def test_runs_number_equal_neighbours() -> None:
    users, starts, stops = [0, 0, 0, 1, 1, 0], [2, 2, 2, 5, 5, 2], [4, 4, 5, 9, 9, 4]
    rows = Ranges(np.array(users), np.array(starts), np.array(stops))
    assert rows.runs().tolist() == [0, 0, 1, 2, 2, 3]
    assert rows.select(np.array([], dtype=np.int64)).runs().tolist() == []


def test_flat_indices_lay_rows_end_to_end() -> None:
    rows = Ranges(np.array([0, 1, 2]), np.array([4, 0, 7]), np.array([6, 0, 8]))
    assert flat_indices(rows).tolist() == [4, 5, 7]


def test_an_item_that_returns_after_a_cut_is_one_question(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "returns", [[0, 1, 2, 2, 2]], num_items=3, timestamps=[[1, 2, 3, 4, 5]]
    )
    split = GlobalTemporal(validation_share=0.2, test_share=0.4).split(corpus)
    assert questions(corpus, split.test) == [(0, [0, 1, 2], 2)]
