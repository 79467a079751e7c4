"""What a rank table tells for slices: times since the last event, and frequent attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.evaluation import slice_columns as module
from research.evaluation.candidates import AllItems
from research.evaluation.rank_table import RankTable
from research.evaluation.ranking import rank_tables
from research.evaluation.slice_columns import frequent_attributes, times_since_last
from tests.evaluation.reference_ranks import FixedScores, corpus_of
from tests.support.rank_tables import small_table
from tests.support.synthetic import write_histories

DAY = 86_400
# 2020-09-13.
START = 1_600_000_000
ATTRIBUTES = [[0], [0, 2], [], [2], [1, 2], [2]]


def test_times_are_those_from_the_newest_event_of_the_history() -> None:
    corpus = corpus_of(
        [[0, 1, 2], [3, 4, 5, 0]],
        6,
        [[START, START + DAY, START + 3 * DAY], [START, START, START + 5, START + 5]],
    )
    split = LeaveOneOut().split(corpus)
    found = times_since_last(corpus, split.test)
    assert found is not None
    assert found.tolist() == [2 * DAY, 0]
    found = times_since_last(corpus, split.validation)
    assert found is not None
    assert found.tolist() == [DAY, 5]
    assert corpus.timestamps is not None
    milliseconds = replace(corpus, timestamps=1000 * corpus.timestamps + 1)
    found = times_since_last(milliseconds, split.test)
    assert found is not None
    assert found.tolist() == [2 * DAY, 0]


def test_numbers_that_only_order_events_are_no_times() -> None:
    corpus = corpus_of([[0, 1, 2]], 6, [[1, 2, 3]])
    assert times_since_last(corpus, LeaveOneOut().split(corpus).test) is None
    corpus = corpus_of([[0, 1, 2]], 6)
    assert times_since_last(corpus, LeaveOneOut().split(corpus).test) is None


def test_attributes_come_by_the_number_of_held_out_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_histories(
        tmp_path, [[0, 1, 2]], num_items=6, attributes=ATTRIBUTES, num_attributes=4
    )
    # Attribute 2 is of 1, 3, 4, 5; 0 of 0, 1 and 1; 1 of 4; 3 of none.
    items = np.array([1, 1, 2, 4, 5, 0])
    bits, names = frequent_attributes(corpus, items)
    assert names == ("a2", "a0", "a1")
    assert bits is not None
    assert bits.tolist() == [0b011, 0b011, 0, 0b101, 0b001, 0b010]
    monkeypatch.setattr(module, "ATTRIBUTES", 1)
    bits, names = frequent_attributes(corpus, items)
    assert names == ("a2",)
    assert bits is not None
    assert bits.tolist() == [1, 1, 0, 1, 1, 0]
    # Of equal frequency, the first of the corpus.
    assert frequent_attributes(corpus, np.array([0, 3]))[1] == ("a0",)
    assert frequent_attributes(corpus, np.array([2, 2])) == (None, ())


def test_a_ranking_tells_both_and_a_table_keeps_them(tmp_path: Path) -> None:
    times = [[START, START + 1, START + 9], [START, START + 2, START + 4]]
    corpus = write_histories(
        tmp_path / "c", [[0, 1, 2], [3, 4, 5]], num_items=6, timestamps=times,
        attributes=ATTRIBUTES,
    )  # fmt: skip
    table = rank_tables(
        FixedScores(torch.zeros(2, 6)), corpus, LeaveOneOut().split(corpus).test, [AllItems()],
        seen="excluded", protocol={}, counts_V=torch.ones(6),
    )["full"]  # fmt: skip
    table.save(tmp_path / "table.npz")
    loaded = RankTable.load(tmp_path / "table.npz")
    assert loaded.since_last is not None
    assert loaded.since_last.tolist() == [8, 2]
    assert loaded.attribute_names == ("a2",)
    assert loaded.has_attribute(0).tolist() == [False, True]
    half = loaded.select(np.array([False, True]))
    assert half.since_last is not None
    assert (half.user.tolist(), half.since_last.tolist()) == ([1], [2])
    assert half.has_attribute(0).tolist() == [True]


@pytest.mark.parametrize(
    "change",
    [
        {"since_last": np.array([1, 2])},
        {"since_last": np.array([1.0, 2.0, 3.0])},
        {"attribute_bits": np.array([[1, 0, 1]])},
        {"attribute_bits": np.array([1, 0, 1]), "attribute_names": np.array('["a", 3]')},
        {"attribute_bits": np.array([1, 0, 1]), "attribute_names": np.array('{"a": 3}')},
        {"attribute_bits": np.array([1, 0, 1]), "attribute_names": np.array(str(["a"] * 63))},
        {"attribute_names": np.array('["a"]')},
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = tmp_path / "table.npz"
    small_table().save(path)
    with np.load(path) as file:
        stored = dict(file)
    np.savez(path, **{**stored, **change})
    with pytest.raises(InputError, match=r"table\.npz is not a rank table"):
        RankTable.load(path)
