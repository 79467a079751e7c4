"""The audit finds each planted fault of a corpus, is quiet on a clean one, counts as loops do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from research.data.audit import audit_corpus
from research.data.corpus import Corpus, write_corpus
from research.data.findings import Finding, level_of, percent
from research.data.names import Names
from research.data.repeats import Repeats
from research.data.split_checks import Seen
from research.data.splits import (
    AtQuantile,
    ByTime,
    GlobalTemporal,
    HeldOut,
    LeaveOneOut,
    Split,
    SplitConfig,
    TemporalCut,
    TimepointLeaveOneOut,
    UserHoldout,
    flat_indices,
)
from research.errors import InputError
from tests.support.synthetic import ends, flat, write_histories

USERS, LENGTH = 12, 5
# Every item is trained on, nobody has an item twice, and all held-out items are the newest.
CLEAN = [[(user + place) % USERS for place in range(LENGTH)] for user in range(USERS)]
TIMES = [[1000 + 100 * place + user for place in range(LENGTH)] for user in range(USERS)]


def by_check(
    corpus: Corpus, config: SplitConfig = LeaveOneOut(), seen: Seen = "excluded"
) -> dict[str, Finding]:
    findings = audit_corpus(corpus, config, seen)
    assert len({found.check for found in findings}) == len(findings)
    return {found.check: found for found in findings}


def faults(found: dict[str, Finding]) -> dict[str, str]:
    """The levels of all findings that are not fine."""
    return {check: each.level for check, each in found.items() if each.level != "fine"}


def corpus_of(
    folder: Path,
    histories: Sequence[Sequence[int]] = CLEAN,
    times: Sequence[Sequence[int]] | None = TIMES,
    *,
    num_items: int = USERS,
    attributes: Sequence[Sequence[int]] = (),
    user_names: Sequence[str] = (),
) -> Corpus:
    """A corpus; without `times` it has none."""
    attributes = attributes or [[item % 3] for item in range(num_items)]
    user_names = user_names or [f"u{user}" for user in range(len(histories))]
    num_attributes = max((1 + each for row in attributes for each in row), default=0)
    return write_corpus(
        folder,
        name=folder.name,
        items=flat(histories).astype(np.int32),
        offsets=ends(histories),
        timestamps=None if times is None else flat(times),
        attribute_offsets=ends(attributes),
        attribute_ids=flat(attributes).astype(np.int32),
        user_names=Names.from_strings(user_names),
        item_names=Names.from_strings([f"i{item}" for item in range(num_items)]),
        attribute_names=Names.from_strings([f"a{each}" for each in range(num_attributes)]),
        item_titles=None,
        options={},
        report={},
    )


def test_a_clean_corpus_is_quiet(tmp_path: Path) -> None:
    found = by_check(corpus_of(tmp_path / "clean"))
    assert faults(found) == {}
    assert set(found) == {
        "ids of users", "ids of items", "doubles", "repeats", "spread of times", "unit of times",
        "attributes", "ties in validation", "ties in test", "targets in the history, validation",
        "targets in the history, test", "cold items, validation", "cold items, test",
        "users not evaluated", "rows without a target", "later events",
    }  # fmt: skip


# Planted faults


def test_without_times_a_fixed_order_of_the_items_is_told(tmp_path: Path) -> None:
    rising = [list(range(user % 3, 120)) for user in range(6)]
    found = by_check(corpus_of(tmp_path / "a", rising, None, num_items=120))["order"]
    assert (found.numbers["pairs"], found.numbers["same_way_share"]) == (119, 1.0)
    assert "it looks less like an order of time than like one of the items" in found.sentence
    either = [row if user % 2 else row[::-1] for user, row in enumerate(rising)]
    found = by_check(corpus_of(tmp_path / "b", either, None, num_items=120))["order"]
    assert "39.6 % go the same way" in found.sentence
    assert "looks less like" not in found.sentence


def test_held_out_items_at_the_time_of_the_item_before_are_ties(tmp_path: Path) -> None:
    times = [list(row) for row in TIMES]
    times[0][4], times[3][4], times[5][3] = times[0][3], times[3][3], times[5][2]
    found = by_check(corpus_of(tmp_path / "c", times=times))
    assert faults(found) == {"ties in validation": "warning", "ties in test": "problem"}
    assert found["ties in test"].numbers == {"questions": 12, "tied": 2, "share": 2 / 12}
    assert found["ties in validation"].numbers["tied"] == 1
    assert found["ties in test"].sentence.startswith("16.7 % of the test's held-out items have")


def test_a_corpus_without_times_is_ordered_by_its_file(tmp_path: Path) -> None:
    found = by_check(corpus_of(tmp_path / "c", times=None))
    assert faults(found) == {"order": "warning"}
    assert not {"later events", "ties in test", "unit of times"} & set(found)


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        ("excluded", "warning", "each is a certain miss"),
        ("zero", "warning", "items of the history score 0"),
        ("kept", "fine", "each can be hit"),
    ],
)
def test_a_target_in_its_own_history_is_told_with_what_becomes_of_it(
    tmp_path: Path, seen: Seen, level: str, said: str
) -> None:
    histories = [list(row) for row in CLEAN]
    histories[7][4] = histories[7][1]
    found = by_check(corpus_of(tmp_path / "c", histories), seen=seen)
    target = found["targets in the history, test"]
    assert (target.level, target.numbers["seen"]) == (level, 1)
    assert said in target.sentence
    assert found["targets in the history, validation"].numbers["seen"] == 0
    assert found["repeats"].numbers["interactions"] == 1


def test_an_item_that_is_only_held_out_is_cold(tmp_path: Path) -> None:
    histories = [list(row) for row in CLEAN]
    histories[0][3], histories[1][4], histories[2][4] = 12, 12, 13
    found = by_check(corpus_of(tmp_path / "c", histories, num_items=14))
    assert found["cold items, test"].numbers == {"questions": 12, "cold": 2, "share": 2 / 12}
    assert found["cold items, validation"].numbers["cold"] == 1
    assert faults(found) == {"cold items, test": "problem", "cold items, validation": "warning"}
    assert "--item-core" in found["cold items, test"].sentence


def test_new_items_after_a_cut_are_not_removed_by_filters(tmp_path: Path) -> None:
    histories = [[*row[:-1], 12] for row in CLEAN]
    found = by_check(corpus_of(tmp_path / "c", histories, num_items=13), TemporalCut())
    cold = found["cold items, test"]
    # Six of the 60 events are after the cut.
    assert (cold.level, cold.numbers["share"]) == ("problem", 1.0)
    assert cold.sentence.endswith(
        "Say this share beside the figures, or rank by content vectors (items.vectors)."
    )


def test_users_too_short_for_the_split_are_counted_with_their_interactions(
    tmp_path: Path,
) -> None:
    histories = [*CLEAN, [0, 1], [2]]
    times = [*TIMES, [1050, 1060], [1070]]
    found = by_check(corpus_of(tmp_path / "c", histories, times))
    short = found["users not evaluated"]
    # Leave-one-out trains on them.
    assert short.numbers == {
        "users": 2, "share": 2 / 14, "interactions_unused": 0, "interactions_unused_share": 0.0,
    }  # fmt: skip
    assert short.level == "warning"
    assert found["rows without a target"].numbers["users"] == 1


def test_interactions_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    # At points in time, who comes after the cut is neither trained on nor asked.
    histories = [*CLEAN, [0, 1, 2]]
    times = [*TIMES, [1500, 1501, 1502]]
    found = by_check(corpus_of(tmp_path / "c", histories, times), GlobalTemporal())
    assert found["users not evaluated"].numbers["interactions_unused"] == 3


def test_a_row_of_one_item_has_no_next_item(tmp_path: Path) -> None:
    histories = [*CLEAN, [0, 1, 2], [3, 4, 5]]
    times = [*TIMES, [1050, 1350, 1450], [1051, 1351, 1451]]
    found = by_check(corpus_of(tmp_path / "c", histories, times))
    assert found["rows without a target"].numbers == {"users": 2, "share": 2 / 14}
    assert faults(found) == {"rows without a target": "warning"}


def test_training_that_knows_of_later_days_is_told(tmp_path: Path) -> None:
    # The last user joins when the others have gone.
    times = [*TIMES[:-1], [2000, 2010, 2020, 2030, 2040]]
    found = by_check(corpus_of(tmp_path / "c", times=times))
    later = found["later events"]
    assert later.level == "warning"
    assert later.numbers["share"] == 11 / 12
    # Test items of the others are at 1400 to 1410, the newest training event at 2020.
    assert later.numbers["median_lag"] == 2020 - 1405
    assert later.numbers["median_later_training_share"] == pytest.approx(3 / 36)
    split_by_time = by_check(Corpus.open(tmp_path / "c"), GlobalTemporal())
    assert split_by_time["later events"].numbers["share"] == 0.0
    assert "ties in test" not in split_by_time


def test_a_lag_of_seconds_is_told_in_days(tmp_path: Path) -> None:
    day, begin = 86_400, 900_000_000
    times = [[begin + day * place for place in range(LENGTH)] for _ in range(USERS)]
    times[0] = [time + 10 * day for time in times[0]]
    found = by_check(corpus_of(tmp_path / "c", times=times))
    assert "at the median by 8.0 days" in found["later events"].sentence


def test_exact_doubles_are_told_from_repeats(tmp_path: Path) -> None:
    # Item 5 twice at one time with another item between, item 1 again later.
    histories = [[5, 6, 5, 1, 2, 3, 1, 4, 7], *CLEAN[1:]]
    times = [[1000, 1000, 1000, 1001, 1002, 1003, 1004, 1300, 1400], *TIMES[1:]]
    found = by_check(corpus_of(tmp_path / "c", histories, times))
    assert found["doubles"].numbers["interactions"] == 1
    assert found["doubles"].level == "warning"
    assert found["repeats"].numbers["interactions"] == 2
    found = by_check(corpus_of(tmp_path / "untimed", histories, None))
    assert found["doubles"].numbers["interactions"] == 0
    assert found["repeats"].numbers["interactions"] == 2


@pytest.mark.parametrize(
    ("attributes", "level"),
    [
        ([[0], [1], [0], [1]] * 3, "fine"),
        ([[]] * 7 + [[0], [1], [0], [1], [0]], "warning"),
        ([[item] for item in range(12)], "warning"),
        ([[0]] * 12, "warning"),
        ([[]] * 12, "fine"),
    ],
)
def test_attributes_that_say_next_to_nothing_are_told(
    tmp_path: Path, attributes: list[list[int]], level: str
) -> None:
    found = by_check(corpus_of(tmp_path / "c", attributes=attributes))
    assert found["attributes"].level == level


def test_ids_that_look_alike_are_told_with_examples(tmp_path: Path) -> None:
    names = ["1", "2", "1.0", *(f"u{user}" for user in range(9))]
    found = by_check(corpus_of(tmp_path / "c", user_names=names))
    assert faults(found) == {"ids of users": "problem"}
    assert found["ids of users"].numbers == {"ids": 2, "groups": 1, "share": 2 / 12}
    assert "('1' and '1.0')" in found["ids of users"].sentence


def test_times_within_a_second_order_nothing(tmp_path: Path) -> None:
    times = [[1000, 1000, 1000, 1000, 1001]] * USERS
    found = by_check(corpus_of(tmp_path / "c", times=times))
    assert found["spread of times"].level == "problem"


@pytest.mark.parametrize(
    ("shift", "unit", "spread"),
    [
        (
            874_724_710,
            "The times are seconds from 1997-09-20 to 1997-09-20.",
            "The times run from 874725710 to 874726121: from 1997-09-20 to 1997-09-20.",
        ),
        (
            0,
            "The times are too small for seconds since 1970 to tell days; they may be numbers "
            "that only order events.",
            "The times run from 1000 to 1411.",
        ),
    ],
)
def test_times_are_told_as_days_where_they_may_be_seconds(
    tmp_path: Path, shift: int, unit: str, spread: str
) -> None:
    times = [[time + shift for time in row] for row in TIMES]
    found = by_check(corpus_of(tmp_path / "c", times=times))
    assert found["unit of times"].sentence == unit
    assert found["spread of times"].sentence == spread


def test_times_in_milliseconds_are_told(tmp_path: Path) -> None:
    times = [[1_600_000_000_000 + time for time in row] for row in TIMES]
    found = by_check(corpus_of(tmp_path / "c", times=times))
    assert faults(found) == {"unit of times": "warning"}


def test_a_corpus_that_cannot_be_split_has_a_problem(tmp_path: Path) -> None:
    found = by_check(corpus_of(tmp_path / "c", [[0, 1], [2]], [[1, 5], [9]]))
    assert found["split"].level == "problem"
    assert "no user has the 3 interactions" in found["split"].sentence


def test_a_damaged_corpus_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "c")
    path = corpus.folder / "items.npy"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="the corpus was changed"):
        audit_corpus(Corpus.open(corpus.folder))


def test_levels_and_shares() -> None:
    assert [level_of(share) for share in (0.0, 0.0099, 0.01, 0.0999, 0.1)] == [
        "fine", "fine", "warning", "warning", "problem",
    ]  # fmt: skip
    assert [percent(share) for share in (0.0, 1e-6, 0.125, 1.0)] == [
        "0.0 %", "under 0.1 %", "12.5 %", "100.0 %",
    ]  # fmt: skip


# Slow twins


SPLITS = [
    LeaveOneOut(),
    LeaveOneOut(validation_in_training=True),
    UserHoldout(validation_share=0.2, test_share=0.3, seed=1),
    GlobalTemporal(validation_share=0.2, test_share=0.2),
    TemporalCut(cut=AtQuantile(quantile=0.6)),
    TemporalCut(cut=AtQuantile(quantile=0.6), target="successive", validation=ByTime(quantile=0.6)),
    TimepointLeaveOneOut(cut=AtQuantile(quantile=0.6)),
]


def random_corpus(folder: Path, seed: int, num_users: int) -> Corpus:
    """Histories of 1 to 9 items of 15, some repeated, at times with many ties."""
    draws = np.random.default_rng(seed)
    lengths = draws.integers(1, 10, num_users).tolist()
    histories = [draws.integers(0, 15, length).tolist() for length in lengths]
    times = [sorted(draws.integers(0, 40, length).tolist()) for length in lengths]
    return write_histories(folder, histories, num_items=15, timestamps=times)


def questions(held_out: HeldOut) -> list[tuple[int, int, int]]:
    """(start and stop of the history, target) of every question."""
    histories = held_out.histories
    return [
        (int(start), int(stop), int(target))
        for start, stop, target in zip(histories.starts, histories.stops, held_out.targets)
    ]


def slow_counts(corpus: Corpus, split: Split, held_out: HeldOut) -> dict[str, int]:
    """Ties, targets in the history and cold items, question by question."""
    items = corpus.items.tolist()
    trained = {items[place] for place in flat_indices(split.training).tolist()}
    counts = {"tied": 0, "seen": 0, "cold": 0}
    for start, stop, target in questions(held_out):
        assert corpus.timestamps is not None
        counts["tied"] += int(corpus.timestamps[target] == corpus.timestamps[stop - 1])
        counts["seen"] += items[target] in items[start:stop]
        counts["cold"] += items[target] not in trained
    return counts


def slow_later(corpus: Corpus, split: Split) -> tuple[float, float, float]:
    """Share of test items with later training events of others, lag, share of such events."""
    assert corpus.timestamps is not None
    times = corpus.timestamps.tolist()
    rows = list(zip(split.training.users, split.training.starts, split.training.stops))
    lags, shares = [], []
    users = split.test.histories.users.tolist()
    for user, (_, _, target) in zip(users, questions(split.test)):
        others = [times[place] for u, a, b in rows if u != user for place in range(a, b)]
        later = [time for time in others if time > times[target]]
        num_training = sum(int(stop - start) for _, start, stop in rows)
        shares.append(len(later) / num_training)
        if later:
            lags.append(max(later) - times[target])
    lag = statistics.median(lags) if lags else 0.0
    return len(lags) / len(users), lag, statistics.median(shares)


@pytest.mark.parametrize("config", SPLITS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize(("seed", "num_users"), [(0, 7), (1, 30), (2, 61)])
def test_counts_equal_those_of_a_loop(
    tmp_path: Path, config: SplitConfig, seed: int, num_users: int
) -> None:
    corpus = random_corpus(tmp_path / "c", seed, num_users)
    split, found = config.split(corpus), by_check(corpus, config)
    for part, held_out in (("validation", split.validation), ("test", split.test)):
        slow = slow_counts(corpus, split, held_out)
        if not isinstance(config, GlobalTemporal):
            assert found[f"ties in {part}"].numbers["tied"] == slow["tied"]
        assert found[f"targets in the history, {part}"].numbers["seen"] == slow["seen"]
        assert found[f"cold items, {part}"].numbers["cold"] == slow["cold"]
    share, lag, later = slow_later(corpus, split)
    numbers = found["later events"].numbers
    assert (numbers["share"], numbers["median_lag"]) == (share, lag)
    # Both divide counts below 1,000; a subtraction from 1 rounds once.
    assert numbers["median_later_training_share"] == pytest.approx(later, abs=1e-12)


@pytest.mark.parametrize(("seed", "num_users", "block"), [(3, 1, 4), (4, 30, 4), (5, 30, 1000)])
def test_repeats_equal_those_of_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, num_users: int, block: int
) -> None:
    monkeypatch.setattr("research.data.repeats._BLOCK", block)
    corpus = random_corpus(tmp_path / "c", seed, num_users)
    repeats = Repeats.of(corpus)
    assert corpus.timestamps is not None
    for user in range(num_users):
        first: dict[int, int] = {}
        events: set[tuple[int, int]] = set()
        for place in range(int(corpus.offsets[user]), int(corpus.offsets[user + 1])):
            item, time = int(corpus.items[place]), int(corpus.timestamps[place])
            assert repeats.first_N[place] == first.setdefault(item, place)
            assert repeats.double_N[place] == ((item, time) in events)
            assert repeats.repeated_N[place] == (first[item] < place)
            events.add((item, time))


def test_an_empty_corpus_has_no_repeats(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "c", [], [])
    assert Repeats.of(corpus).first_N.tolist() == []
