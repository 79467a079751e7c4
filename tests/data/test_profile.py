"""The profile of a corpus: numbers by hand, and the Gini coefficient against its definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.data.corpus import Corpus
from research.data.names import Names
from research.data.profile import (
    LengthBin,
    PopularItem,
    events_per_month,
    gini,
    length_bins,
    profile_of,
    quantiles_of,
    timeline,
    top_share,
)
from research.data.time_units import units_of_a_second
from tests.support.synthetic import write_histories

# 1 January 2020, 00:00 UTC.
NEW_YEAR = 1_577_836_800
DAY = 86_400


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Four users of 5, 3, 1 and 1 interactions with 4 of 5 items, from January to March 2020."""
    histories = [[0, 1, 0, 2, 0], [0, 3, 1], [0], [0]]
    times = [[0, 0, 1, 40, 61], [2, 3, 70], [5], [71]]
    return write_histories(
        tmp_path / "c",
        histories,
        num_items=5,
        timestamps=[[NEW_YEAR + DAY * day for day in row] for row in times],
        attributes=[[0, 1], [1], [], [1, 2], []],
    )


def test_a_profile_by_hand(corpus: Corpus) -> None:
    profile = profile_of(corpus)
    assert (profile.users, profile.items, profile.interactions) == (4, 5, 10)
    assert (profile.name, profile.fingerprint) == ("c", corpus.fingerprint)
    assert profile.mean_length == 2.5
    assert profile.lengths == (
        (0.0, 1.0), (0.05, 1.0), (0.25, 1.0), (0.5, 1.0), (0.75, 3.0), (0.95, 5.0), (1.0, 5.0),
    )  # fmt: skip
    assert profile.length_bins == (LengthBin(1, 1, 2), LengthBin(2, 3, 1), LengthBin(4, 7, 1))
    # Item 0 has 6 of 10 interactions, and is the top item of both shares.
    assert profile.top_shares == ((0.01, 0.6), (0.1, 0.6))
    assert profile.items_without == 1
    assert profile.repeat_share == 0.2
    assert len(profile.popularity_curve) == 101
    assert profile.popularity_curve[0] == (0.0, 0.0)
    assert profile.popularity_curve[40] == (0.4, 0.8)
    assert profile.popularity_curve[-1] == (1.0, 1.0)


def test_a_time_line_by_hand(corpus: Corpus) -> None:
    line = profile_of(corpus).timeline
    assert line is not None
    assert (line.first, line.last, line.days) == (NEW_YEAR, NEW_YEAR + 71 * DAY, 71.0)
    assert line.months == (("2020-01", 6), ("2020-02", 1), ("2020-03", 3))
    # The first two of user 0.
    assert line.tied_share == 0.2


def test_attributes_by_hand(corpus: Corpus) -> None:
    found = profile_of(corpus).attributes
    assert (found.attributes, found.items_without, found.most_per_item) == (3, 2, 2)
    assert found.per_item == 1.0
    assert found.most_common == (("a1", 3), ("a0", 1), ("a2", 1))


def test_the_most_popular_items_have_their_titles(corpus: Corpus) -> None:
    found = profile_of(corpus).most_popular
    # Of items with as many interactions the first; item 4 has none.
    assert [(item.name, item.interactions) for item in found] == [
        (corpus.item_names[0], 6), (corpus.item_names[1], 2),
        (corpus.item_names[2], 1), (corpus.item_names[3], 1),
    ]  # fmt: skip
    assert {item.title for item in found} == {""}
    titled = replace(corpus, item_titles=Names.from_strings(["Tea", "", "Cups", "Pot", "Tray"]))
    assert profile_of(titled).most_popular[:2] == (
        PopularItem(corpus.item_names[0], "Tea", 6), PopularItem(corpus.item_names[1], "", 2),
    )  # fmt: skip


def test_a_corpus_without_times_has_no_time_line(corpus: Corpus) -> None:
    assert timeline(replace(corpus, timestamps=None)) is None


@pytest.mark.parametrize("finer", [10**3, 10**6, 10**9])
def test_months_are_the_same_in_finer_units(corpus: Corpus, finer: int) -> None:
    assert corpus.timestamps is not None
    line = timeline(replace(corpus, timestamps=corpus.timestamps * finer))
    assert line is not None
    assert line.days == 71.0
    assert line.months == (("2020-01", 6), ("2020-02", 1), ("2020-03", 3))


@pytest.mark.parametrize("change", [-NEW_YEAR, -NEW_YEAR - 100])
def test_times_that_are_an_order_have_no_months(corpus: Corpus, change: int) -> None:
    assert corpus.timestamps is not None
    line = timeline(replace(corpus, timestamps=corpus.timestamps + change))
    assert line is not None
    assert (line.days, line.months) == (None, ())


def test_months_over_a_century_are_not_listed() -> None:
    assert events_per_month(np.array([-(1 << 63), NEW_YEAR]), DAY) == ()
    assert events_per_month(np.array([-DAY, 0]), DAY) == (("1969-12", 1), ("1970-01", 1))


@pytest.mark.parametrize(
    ("newest", "units"),
    [
        (0, None), (99_999_999, None), (10**8, 1), (99_999_999_999, 1), (10**11, 10**3),
        (1_600_000_000_000, 10**3), (1_600_000_000_000_000, 10**6),
        (1_600_000_000_000_000_000, 10**9), ((1 << 63) - 1, 10**9),
    ],
)  # fmt: skip
def test_the_unit_of_times_is_guessed_by_their_size(newest: int, units: int | None) -> None:
    assert units_of_a_second(newest) == units


# Pieces


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([3, 3, 3], 0.0), ([0, 0, 0, 8], 0.75), ([1, 3], 0.25), ([7], 0.0), ([0, 0], 0.0), ([], 0.0)],
)
def test_gini_by_hand(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts, dtype=np.int64)) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("seed", "size"), [(0, 1), (1, 2), (2, 17), (3, 60)])
def test_gini_equals_its_definition(seed: int, size: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 50, size).tolist()
    counts[0] += 1
    differences = sum(abs(one - other) for one in counts for other in counts)
    expected = differences / (2 * size * sum(counts))
    # Sums of whole numbers are exact; the two divisions round.
    assert gini(np.array(counts)) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_lengths_fall_into_bins_that_double() -> None:
    lengths = np.array([0, 1, 2, 3, 4, 7, 8, 1 << 20])
    bins = [(each.low, each.high, each.users) for each in length_bins(lengths) if each.users]
    assert bins == [
        (0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1), (1 << 20, (1 << 21) - 1, 1),
    ]  # fmt: skip
    assert length_bins(np.array([], dtype=np.int64)) == ()
    assert quantiles_of(np.array([], dtype=np.int64)) == ()


def test_the_top_share_is_of_whole_items_rounded_up() -> None:
    descending = np.array([10, 5, 3, 1, 1])
    # A fifth of five items is one, and a little more is two.
    assert [top_share(descending, share) for share in (0.0, 0.2, 0.21, 1.0)] == [
        0.0,
        0.5,
        0.75,
        1.0,
    ]
    assert top_share(np.array([], dtype=np.int64), 0.1) == 0.0


def test_a_corpus_of_nobody_has_a_profile(tmp_path: Path) -> None:
    profile = profile_of(write_histories(tmp_path / "none", [], num_items=2))
    assert (profile.users, profile.lengths, profile.timeline) == (0, (), None)
    assert (profile.gini, profile.repeat_share) == (0.0, 0.0)
