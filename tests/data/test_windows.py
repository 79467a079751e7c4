"""Window rules: which pieces of the training histories are rows, by hand and against loops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from research.data.splits import Indices, Ranges
from research.data.windows import EveryPrefix, LastItems, Sliding, Windows, WindowsConfig
from research.errors import InputError
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemShift
from tests.data.reference_loader import windows_of
from tests.support.synthetic import all_rows, batch_of, catalogue_of, ends, flat

Rows = list[tuple[int, int, int]]


def training_of(lengths: list[int], gap: int = 3) -> Ranges:
    """One range a user, with held-out items (the gap) between them."""
    starts = ends([range(length + gap) for length in lengths])[:-1]
    return Ranges(flat([range(len(lengths))]), starts, starts + flat([lengths]))


def listed(rows: Ranges | Windows) -> Rows:
    if isinstance(rows, Windows):
        rows = all_rows(rows)
    return list(zip(rows.users.tolist(), rows.starts.tolist(), rows.stops.tolist(), strict=True))


def test_last_items_keeps_the_newest_L_plus_one() -> None:
    rows = LastItems().windows(training_of([2, 3, 5]), 2)
    assert listed(rows) == [(0, 0, 2), (1, 5, 8), (2, 13, 16)]


def test_every_prefix_of_the_newest_L_is_a_row() -> None:
    rows = EveryPrefix().windows(training_of([1, 4]), 3)
    # User 1 trains on items 4..7; the newest three are 5, 6, 7.
    assert listed(rows) == [(0, 0, 1), (1, 5, 6), (1, 5, 7), (1, 5, 8)]


@given(lengths=st.lists(st.integers(1, 12), max_size=6), length=st.integers(1, 8))
def test_there_are_as_many_prefixes_as_in_the_authors_code(lengths: list[int], length: int) -> None:
    # datasets.py of S3-Rec: cut to max_len, then one row for each i in range(len(input_ids)).
    rows = EveryPrefix().windows(training_of(lengths), length)
    twins = []
    for user, start, stop in listed(training_of(lengths)):
        kept = list(range(start, stop))[-length:]
        twins += [(user, kept[0], kept[place] + 1) for place in range(len(kept))]
    assert listed(rows) == twins


def test_sliding_windows_step_back_from_the_newest() -> None:
    rows = Sliding(stride=2).windows(training_of([3, 8]), 3)
    # User 1 trains on 6..13: windows of four, two apart, and the first three items.
    assert listed(rows) == [(0, 0, 3), (1, 10, 14), (1, 8, 12), (1, 6, 10), (1, 6, 9)]


def test_the_oldest_sliding_window_is_moved_to_hold_the_first_L() -> None:
    rows = Sliding(stride=3).windows(training_of([6, 7, 8]), 3)
    # Users train on 0..5, 9..15 and 19..26; the oldest window ends three, one, two before.
    assert listed(rows) == [
        (0, 2, 6), (0, 0, 3),
        (1, 12, 16), (1, 9, 13), (1, 9, 12),
        (2, 23, 27), (2, 20, 24), (2, 19, 22),
    ]  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_history_of_L_plus_one_has_two_sliding_windows_and_one_of_L_has_one(stride: int) -> None:
    rows = Sliding(stride=stride).windows(training_of([4, 3]), 3)
    assert listed(rows) == [(0, 0, 4), (0, 0, 3), (1, 7, 10)]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    length=st.integers(1, 8),
    data=st.data(),
)
def test_sliding_windows_cover_every_interaction_a_stride_apart(
    lengths: list[int], length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, length))
    training = training_of(lengths)
    rows = listed(Sliding(stride=stride).windows(training, length))
    for user, start, stop in listed(training):
        mine = [(begin, end) for owner, begin, end in rows if owner == user]
        covered = {place for begin, end in mine for place in range(begin, end)}
        assert covered == set(range(start, stop))
        *newer, oldest = mine
        assert oldest == (start, min(start + length, stop))
        assert newer == [(end - (length + 1), end) for end in range(stop, start + length, -stride)]


def seen_by(corruption: MaskItems | NextItemShift, size: int, length: int, stride: int) -> set[int]:
    """Places of a history of `size` that are an input or a target in some sliding window."""
    rows = Sliding(stride=stride).windows(training_of([size]), length)
    windows = [list(range(start, stop)) for _, start, stop in listed(rows)]
    catalogue = catalogue_of([range(size)], size)
    view = corruption.view(batch_of(windows, length=length), catalogue)
    return set(torch.cat([view.packed.items_T, view.items_P]).tolist())


@pytest.mark.parametrize("size", range(2, 15))
def test_next_item_sees_every_interaction_of_sliding_windows(size: int) -> None:
    assert seen_by(NextItemShift(), size, 4, 2) == set(range(size))


@pytest.mark.parametrize("size", range(1, 5))
def test_cloze_sees_every_interaction_of_a_short_history(size: int) -> None:
    assert seen_by(MaskItems(keep_share=1.0), size, 4, 2) == set(range(size))


@pytest.mark.parametrize("size", range(5, 15))
def test_cloze_sees_every_interaction_of_sliding_windows(size: int) -> None:
    assert seen_by(MaskItems(keep_share=1.0), size, 4, 2) == set(range(size))


@pytest.mark.parametrize("stride", [0, 5, -1])
def test_a_stride_that_would_skip_items_is_refused(stride: int) -> None:
    with pytest.raises(InputError) as caught:
        Sliding(stride=stride).windows(training_of([3]), 4)
    assert f"windows.stride is {stride}; it must be from 1 to encoder.length (4)" in str(
        caught.value
    )


def test_sliding_windows_are_half_a_length_apart_unless_said() -> None:
    training = training_of([11])
    assert listed(Sliding().windows(training, 5)) == listed(Sliding(stride=2).windows(training, 5))


RULES = [LastItems(), EveryPrefix(), Sliding(), Sliding(stride=1)]


def all_at_once(rule: WindowsConfig, training: Ranges, length: int) -> Ranges:
    """Every row of a rule by array operations, which hold them all."""
    starts, stops = training.starts, training.stops
    if isinstance(rule, LastItems):
        return Ranges(training.users, np.maximum(starts, stops - (length + 1)), stops)
    if isinstance(rule, EveryPrefix):
        starts = np.maximum(starts, stops - length)
        counts = stops - starts
        rows = np.repeat(np.arange(len(training)), counts)
        sizes = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        return Ranges(training.users[rows], starts[rows], starts[rows] + sizes)
    assert isinstance(rule, Sliding)
    stride = rule.stride or max(1, length // 2)
    counts = 1 + np.maximum(0, -(-(stops - starts - length) // stride))
    rows = np.repeat(np.arange(len(training)), counts)
    steps = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    first_stops = np.minimum(starts + length, stops)
    stops = np.maximum(stops[rows] - steps * stride, first_stops[rows])
    return Ranges(training.users[rows], np.maximum(starts[rows], stops - (length + 1)), stops)


@given(
    rule=st.sampled_from(RULES),
    lengths=st.lists(st.integers(1, 40), max_size=6),
    length=st.integers(1, 8),
    data=st.data(),
)
def test_a_row_is_the_same_whoever_counts_to_it(
    rule: WindowsConfig, lengths: list[int], length: int, data: st.DataObject
) -> None:
    training = training_of(lengths)
    windows = rule.windows(training, length)
    expected = windows_of(rule, training, length)
    assert listed(windows) == listed(all_at_once(rule, training, length)) == expected
    assert windows.num_rows == len(expected)
    if expected:
        asked = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=8))
        found = windows.ranges(np.array(asked, dtype=np.int64))
        assert listed(found) == [expected[row] for row in asked]


def test_rows_are_counted_and_never_listed() -> None:
    # Two users of 10^12 items: a list of their prefixes would take 48 terabytes.
    whole = 10**12
    training = Ranges(flat([[4, 9]]), flat([[0, whole]]), flat([[whole, 2 * whole]]))
    windows = EveryPrefix().windows(training, whole)
    assert windows.num_rows == 2 * whole
    rows = windows.ranges(flat([[0, whole - 1, whole, 2 * whole - 1]]))
    assert listed(rows) == [
        (4, 0, 1), (4, 0, whole), (9, whole, whole + 1), (9, whole, 2 * whole),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LongPairs(WindowsConfig):
    """A rule of one's own: every two neighbours of a history that has at least `least` items."""

    least: int

    def windows(self, training: Ranges, length: int) -> Windows:
        def place(histories: Ranges, numbers: Indices) -> Ranges:
            starts = histories.starts + numbers
            return Ranges(histories.users, starts, starts + 2)

        sizes = training.stops - training.starts
        return Windows(training, np.where(sizes < self.least, 0, sizes - 1), place)


def test_a_rule_of_ones_own_is_one_class_and_may_pass_users_over() -> None:
    rows = LongPairs(least=3).windows(training_of([2, 3, 1, 1, 4, 2]), 5)
    # Users train on 0..1, 5..7, 11, 15, 19..22, 26..27.
    assert listed(rows) == [(1, 5, 7), (1, 6, 8), (4, 19, 21), (4, 20, 22), (4, 21, 23)]
    assert LongPairs(least=9).windows(training_of([2, 3]), 5).num_rows == 0
