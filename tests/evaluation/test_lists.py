"""The lists of an evaluation: those of a plain loop, of `recommend`, and of several processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.data.splits import GlobalTemporal, HeldOut, LeaveOneOut, Split, training_counts
from research.errors import InputError
from research.evaluation import lists as module
from research.evaluation.list_table import ListTable
from research.evaluation.lists import list_table, users_by_item
from research.evaluation.ranker import Ranker
from research.evaluation.ranking import RankingShard
from research.evaluation.tiles import SeenPolicy
from research.recommend.recommendations import recommend
from research.recommend.requests import known_users
from research.runs.parts import RunParts
from tests.evaluation.reference_list_metrics import table_of
from tests.evaluation.reference_ranks import FixedScores, corpus_of
from tests.support.synthetic import write_histories

# The test's history of user 0 is 0, 1, 2, that of user 1 is 3, 4, that of user 2 is 0, 0, 5.
HISTORIES = [[0, 1, 2, 4], [3, 4, 1], [0, 0, 5, 3]]


def made(
    ranker: Ranker,
    corpus: Corpus,
    k: int,
    *,
    seen: SeenPolicy = "excluded",
    split: Split | None = None,
    held_out: HeldOut | None = None,
    shard: RankingShard = RankingShard(),
) -> ListTable:
    split = split or LeaveOneOut().split(corpus)
    return list_table(
        ranker,
        corpus,
        split.test if held_out is None else held_out,
        k,
        seen=seen,
        protocol={"part": "test"},
        training=split.training,
        counts_V=training_counts(corpus, split),
        shard=shard,
    )


def lists_of(table: ListTable) -> list[list[int]]:
    return [[int(table.item[place]) for place in row if place >= 0] for row in table.place]


def assert_same(first: ListTable, second: ListTable) -> None:
    for each in fields(ListTable):
        one, other = getattr(first, each.name), getattr(second, each.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.tolist() == other.tolist(), each.name
        else:
            assert one == other, each.name


def test_hand_lists_and_what_is_known_of_their_items(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path, HISTORIES, num_items=6, attributes=[[0], [0, 1], [], [2], [1, 2], [0]]
    )
    # User 0 likes what comes later, user 1 all alike, user 2 item 5, which it has, then 1 and 2.
    ranker = FixedScores([[0, 1, 2, 3, 4, 5], [1] * 6, [0, 5, 5, 0, 0, 9]])
    table = made(ranker, corpus, 2)
    assert lists_of(table) == [[5, 4], [0, 1], [1, 2]]
    assert table.user.tolist() == [0, 1, 2]
    assert table.item.tolist() == [0, 1, 2, 4, 5]
    assert not table.repeated.any()
    # Trained on are 0, 1 of user 0, 3 of user 1, and 0, 0 of user 2.
    assert table.item_count.tolist() == [3, 1, 0, 0, 0]
    assert table.item_users.tolist() == [2, 1, 0, 0, 0]
    assert table.history_popularity.tolist() == pytest.approx([4 / 3, 1 / 2, 2.0])
    assert table.attribute_offsets.tolist() == [0, 1, 3, 3, 5, 6]
    assert table.attribute_ids.tolist() == [0, 0, 1, 1, 2, 0]
    assert (table.num_items, table.num_users, table.num_attributes) == (6, 3, 3)
    assert table.protocol == {"part": "test", "seen": "excluded"}


def test_kept_items_of_the_history_are_marked() -> None:
    corpus = corpus_of(HISTORIES, 6)
    ranker = FixedScores([[0, 1, 2, 3, 4, 5], [1] * 6, [0, 5, 5, 0, 0, 9]])
    table = made(ranker, corpus, 3, seen="kept")
    assert lists_of(table) == [[5, 4, 3], [0, 1, 2], [5, 1, 2]]
    assert table.repeated.tolist() == [[False] * 3, [False] * 3, [True, False, False]]
    assert table.protocol["seen"] == "kept"


def test_a_list_ends_where_no_item_is_left() -> None:
    corpus = corpus_of([[0, 1, 2, 0], [0, 1, 0]], 4)
    table = made(FixedScores(torch.zeros(2, 4)), corpus, 9)
    assert table.place.tolist() == [[1, -1, -1, -1], [0, 1, -1, -1]]
    assert lists_of(table) == [[3], [2, 3]]


def test_columns_after_the_items_are_in_no_list() -> None:
    corpus = corpus_of(HISTORIES, 6)
    table = made(FixedScores([[0.0] * 6 + [9.0, 8.0]] * 3), corpus, 6)
    assert table.item.max() < 6


def test_a_user_with_several_questions_has_one_list() -> None:
    corpus = corpus_of([[0, 1, 2, 3], [1, 4, 5, 0]], 6, [[1, 2, 9, 10], [3, 7, 11, 12]])
    split = GlobalTemporal(validation_share=0.1, test_share=0.4).split(corpus)
    assert len(split.test) == 4
    table = made(FixedScores(torch.zeros(2, 6)), corpus, 2, split=split)
    assert table.user.tolist() == [0, 1]
    assert lists_of(table) == [[2, 3], [0, 2]]


@given(
    st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=7), min_size=1, max_size=6),
    st.integers(1, 11),
    st.sampled_from(["excluded", "kept"]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_lists_are_those_of_a_loop_and_of_recommend(
    histories: list[list[int]], k: int, seen: SeenPolicy, seed: int
) -> None:
    corpus = corpus_of([*histories, [0, 1, 0]], 9)
    scores = np.random.default_rng(seed).integers(0, 4, (len(histories) + 1, 9))
    ranker = FixedScores(scores.tolist())
    table = made(ranker, corpus, k, seen=seen)
    expected = []
    for user, whole in enumerate([*histories, [0, 1, 0]]):
        history = whole[:-1]
        free = [item for item in range(9) if seen == "kept" or item not in history]
        expected.append(sorted(free, key=lambda item: (-scores[user, item], item))[:k])
    assert lists_of(table) == expected
    config = popularity()
    parts = RunParts(config, corpus, config.split.split(corpus), None)  # type: ignore[arg-type]
    requests = known_users(parts, history="test")
    assert seen in ("excluded", "kept")
    rows = [
        (int(request), int(item))
        for batch in recommend(parts, ranker, requests, k=k, seen=seen)
        for request, item in zip(batch.request_N, batch.item_N)
    ]
    assert rows == [(user, item) for user, items in enumerate(expected) for item in items]


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_every_process_has_the_table_of_one(processes: int) -> None:
    draws = np.random.default_rng(3)
    histories = [draws.integers(0, 12, size).tolist() for size in draws.integers(3, 9, 7)]
    corpus, scores = corpus_of(histories, 12), draws.integers(0, 5, (7, 12)).tolist()
    alone = made(FixedScores(scores), corpus, 4, seen="kept")
    given: list[Tensor] = []

    def add(found: Tensor) -> Tensor:
        given.append(found)
        return torch.stack(given).sum(0)

    tables = [
        made(FixedScores(scores), corpus, 4, seen="kept", shard=RankingShard(rank, processes, add))
        for rank in range(processes)
    ]
    assert_same(tables[-1], alone)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    scores = torch.zeros(3, 6)
    scores[1, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="first for user 1 "):
        made(FixedScores(scores), corpus_of(HISTORIES, 6), 2)


def test_what_gives_no_lists_is_refused() -> None:
    corpus, ranker = corpus_of(HISTORIES, 6), FixedScores(torch.zeros(3, 6))
    with pytest.raises(InputError, match="choose seen items excluded or kept"):
        made(ranker, corpus, 2, seen="zero")
    split = LeaveOneOut().split(corpus)
    with pytest.raises(InputError, match="holds nothing out"):
        made(ranker, corpus, 2, held_out=split.test.select(np.zeros(3, bool)))
    every = corpus_of([[0, 1, 0], [1, 0, 1]], 2)
    with pytest.raises(InputError, match="every user has every item"):
        made(FixedScores(torch.zeros(2, 2)), every, 2)


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_users_of_an_item_are_counted_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    corpus = corpus_of([[0, 0, 1, 0, 2, 3], [1, 2, 2, 2, 0], [3, 4, 5]], 6)
    split = LeaveOneOut().split(corpus)
    # Trained on are 0, 0, 1, 0; 1, 2, 2; and 3.
    assert users_by_item(corpus, split.training).tolist() == [1, 2, 1, 1, 0, 0]


# Files


def small() -> ListTable:
    return table_of(
        [[1, 3], [0, 3], [2]], 5, trained=[[0, 1], [0, 2], [4]], length=2,
        attributes=[[0, 2], [1], [], [0], [1]],
    )  # fmt: skip


def test_a_saved_table_is_loaded_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ranks" / "lists-test-kept.npz"
    small().save(path)
    assert_same(ListTable.load(path), small())
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def array(*values: object, dtype: type = np.int32) -> Callable[[], np.ndarray]:
    return lambda: np.array(values, dtype)


@pytest.mark.parametrize(
    "change",
    [
        {"user": array(0, 1, 1)},
        {"user": array(2, 1, 0)},
        {"user": array(-1, 1, 2)},
        {"user": array(0, 1, 2, dtype=np.int64)},
        {"user": array(0, 1)},
        {"place": array([1, 3], [0, 9], [2, -1])},
        {"place": array([1, 1], [0, 3], [2, -1])},
        {"place": array([1, 3], [0, 3], [-1, 2])},
        {"place": array([1, -2], [0, 3], [2, -1])},
        {"place": array(1, 3, 2)},
        {"repeated": array([True], [False], [False], dtype=np.bool_)},
        {"history_popularity": array(1.0, np.nan, 0.0, dtype=np.float64)},
        {"history_popularity": array(1.0, -1.0, 0.0, dtype=np.float64)},
        {"item": array(0, 1, 2, 5)},
        {"item": array(0, 2, 1, 3)},
        {"item_count": array(0, 1, -2, 3)},
        {"item_users": array(0, 1, 4, 3)},
        {"attribute_offsets": array(0, 2, 1, 3, 4, dtype=np.int64)},
        {"attribute_offsets": array(0, 2, 3, 3, 5, dtype=np.int64)},
        {"attribute_ids": array(2, 0, 1, 0)},
        {"attribute_ids": array(0, 7, 1, 0)},
        {"num_items": lambda: 3},
        {"num_users": lambda: 0},
        {"num_users": lambda: "many"},
        {"protocol": lambda: [1]},
    ],
)
def test_tables_that_no_ranking_gives_are_refused(
    tmp_path: Path, change: dict[str, Callable[[], object]]
) -> None:
    path = tmp_path / "lists.npz"
    wrong = replace(small(), **{name: make() for name, make in change.items()})  # type: ignore[arg-type]
    if change.keys() == {"protocol"}:
        with np.load(save(small(), path)) as file:
            stored = dict(file)
        np.savez(path, **{**stored, "protocol": np.array("[1]")})
    else:
        wrong.save(path)
    with pytest.raises(InputError, match=r"lists\.npz is not a list table"):
        ListTable.load(path)


def save(table: ListTable, path: Path) -> Path:
    table.save(path)
    return path


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = save(small(), tmp_path / "lists.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"lists\.npz is not a list table"):
        ListTable.load(path)
    np.savez(path, place=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"lists\.npz is not a list table"):
        ListTable.load(path)
    with pytest.raises(InputError, match=r"absent\.npz does not exist"):
        ListTable.load(tmp_path / "absent.npz")
