"""Lists of items equal those of a plain loop, whatever is asked for and however it is batched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.popularity import popularity
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.names import Names
from research.data.splits import AtTime, GlobalTemporal, TemporalCut
from research.errors import InputError
from research.evaluation.best import highest
from research.packed import Packed
from research.recommend import recommendations
from research.recommend.recommendations import Recommendations, recommend
from research.recommend.requests import Requests, known_users, new_histories
from research.recommend.selection import select_items
from research.runs.parts import RunParts
from tests.evaluation.reference_ranks import EncodedRows, FixedScores, corpus_of
from tests.recommend.reference_lists import ByNewest, Row, best_rows
from tests.support.synthetic import ends, flat

# Whatever is drawn, leave-one-out has someone to ask about.
LONG = [1, 2, 0, 2]


def parts_of(corpus: Corpus) -> RunParts:
    config = popularity()
    split = config.split.split(corpus)
    return RunParts(config, corpus, split, Catalogue.of(corpus, split))


def with_attributes(corpus: Corpus, attributes: Sequence[Sequence[int]], number: int) -> Corpus:
    """The corpus with attributes a0, a1, ... for each item."""
    return replace(
        corpus,
        attribute_offsets=ends(attributes),
        attribute_ids=flat(attributes).astype(np.int32),
        attribute_names=Names.from_strings([f"a{number}" for number in range(number)]),
    )


def rows_of(batches: Iterable[Recommendations]) -> list[Row]:
    return [
        row
        for batch in batches
        for row in zip(
            batch.request_N.tolist(),
            batch.item_N.tolist(),
            batch.score_N.tolist(),
            batch.rank_N.tolist(),
            batch.by_popularity_N.tolist(),
            strict=True,
        )
    ]


def items_of(parts: RunParts, ranker: object, requests: Requests, **options: object) -> list[str]:
    """The raw ids that are recommended, of all requests in order."""
    batches = recommend(parts, ranker, requests, **options)  # type: ignore[arg-type]
    return [parts.corpus.item_names[item] for _, item, *_ in rows_of(batches)]


@dataclass(frozen=True)
class World:
    num_items: int
    histories: list[list[int]]
    attributes: list[list[int]]
    wanted: list[int] | None
    candidates: list[int] | None
    exclude: list[int]
    users: list[int]
    k: int
    keeps_seen: bool
    batch_size: int | None

    @property
    def allowed(self) -> list[int]:
        return [
            item
            for item in range(self.num_items)
            if (self.candidates is None or item in self.candidates)
            and item not in self.exclude
            and (self.wanted is None or set(self.wanted) & set(self.attributes[item]))
        ]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Histories of no to nine events of 3 to 70 items, over several tiles of 16 columns."""
    num_items = draw(st.integers(3, 70))
    item = st.integers(0, num_items - 1)
    some = st.lists(item, max_size=2 * num_items)
    histories = [*draw(st.lists(st.lists(item, max_size=9), max_size=20)), LONG]
    attribute = st.lists(st.integers(0, 3), unique=True, max_size=3).map(sorted)
    return World(
        num_items,
        histories,
        draw(st.lists(attribute, min_size=num_items, max_size=num_items)),
        draw(st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=2)),
        draw(st.none() | some),
        draw(some),
        draw(st.lists(st.integers(0, len(histories) - 1), max_size=12)),
        draw(st.integers(1, 80)),
        draw(st.booleans()),
        draw(st.none() | st.integers(1, 7)),
    )


@settings(max_examples=150, deadline=None)
@given(worlds(), st.booleans())
def test_lists_equal_those_of_the_loop(world: World, are_known: bool) -> None:
    corpus = with_attributes(corpus_of(world.histories, world.num_items), world.attributes, 4)
    parts = parts_of(corpus)

    def items(numbers: list[int] | None) -> list[str] | None:
        return None if numbers is None else [f"i{number}" for number in numbers]

    if are_known:
        requests = known_users(parts, [f"u{user}" for user in world.users])
    else:
        raw = [[f"i{item}" for item in world.histories[user]] for user in world.users]
        requests = new_histories(parts, raw)
    conditions = {
        "candidates": items(world.candidates),
        "exclude": items(world.exclude) or (),
        "attributes": None if world.wanted is None else [f"a{each}" for each in world.wanted],
    }
    if not world.allowed:
        with pytest.raises(InputError, match="none is left by the candidates, exclusions and"):
            select_items(corpus, **conditions)  # type: ignore[arg-type]
        return
    selection = select_items(corpus, **conditions)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommendations, "CPU_TILE", 1 << 12)
        batches = recommend(
            parts,
            ByNewest(world.num_items),
            requests,
            k=world.k,
            seen="kept" if world.keeps_seen else "excluded",
            selection=selection,
            batch_size=world.batch_size,
        )
        got = rows_of(batches)
    assert got == best_rows(
        [world.histories[user] for user in world.users],
        world.num_items,
        world.k,
        trained=[row[:-2] if len(row) >= 3 else row for row in world.histories],
        keeps_seen=world.keeps_seen,
        candidates=world.allowed,
    )


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda columns: st.lists(
            st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=columns, max_size=columns),
            min_size=1,
            max_size=5,
        )
    ),
    st.integers(1, 8),
)
def test_of_equal_scores_the_lower_column_is_higher(rows: list[list[float]], number: int) -> None:
    scores_RK, columns_RK = highest(torch.tensor(rows), number)
    for row, scores, columns in zip(rows, scores_RK.tolist(), columns_RK.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))[:number]
        assert scores == [row[column] for column in order]
        finite = [column for column in order if row[column] > -np.inf]
        assert columns[: len(finite)] == finite


def test_batches_are_small_and_lists_do_not_depend_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [[user % 7, user % 5, user % 3] for user in range(50)]
    parts = parts_of(corpus_of(histories, 40))
    whole = rows_of(recommend(parts, ByNewest(40), known_users(parts), k=6))
    assert len(whole) == 50 * 6
    for size in (1, 3, 49, 50, 51):
        ranker = ByNewest(40)
        batches = list(recommend(parts, ranker, known_users(parts), k=6, batch_size=size))
        assert rows_of(batches) == whole
        assert max(ranker.sizes) == min(size, 50)
    # A tile of scores, and a tile of lists, bound a batch too.
    monkeypatch.setattr(recommendations, "CPU_TILE", 512)
    for k in (6, 40):
        ranker = ByNewest(40)
        lists = rows_of(recommend(parts, ranker, known_users(parts), k=k))
        assert max(ranker.sizes) == min(32, 512 // k)
        assert k == 40 or lists == whole
    monkeypatch.setattr(recommendations, "CPU_TOKENS", 7)
    ranker = ByNewest(40)
    assert rows_of(recommend(parts, ranker, known_users(parts), k=6)) == whole
    assert max(ranker.sizes) == 2


def test_an_empty_history_gets_what_is_popular_and_says_so() -> None:
    # Training counts: item 2 three times, item 0 twice, items 1 and 3 once, item 4 never.
    parts = parts_of(corpus_of([[2, 0, 4, 4], [2, 0, 4, 4], [2, 1, 4, 4], [3], []], 5))
    requests = known_users(parts, ["u4", "u3"])
    rows = rows_of(recommend(parts, ByNewest(5), requests, k=3))
    assert rows[:3] == [(0, 2, 3.0, 1, True), (0, 0, 2.0, 2, True), (0, 1, 1.0, 3, True)]
    assert [row[0] for row in rows[3:]] == [1, 1, 1]
    assert not any(row[4] for row in rows[3:])
    new = new_histories(parts, [[], ["nobody knows it"]], unknown="skip")
    assert (new.unknown_events, new.lengths_R.tolist()) == (1, [0, 0])
    rows = rows_of(recommend(parts, ByNewest(5), new, k=1))
    assert rows == [(0, 2, 3.0, 1, True), (1, 2, 3.0, 1, True)]


def test_the_history_of_a_user_is_all_of_it_unless_said() -> None:
    parts = parts_of(corpus_of([[0, 1, 2, 3], [4, 5], []], 6))
    lengths = {
        "all": [4, 2, 0],
        # Leave-one-out holds nothing of u1 out.
        "train": [2, 2, 0],
        "test": [3, 2, 0],
    }
    for history, expected in lengths.items():
        requests = known_users(parts, history=history)  # type: ignore[arg-type]
        assert requests.lengths_R.tolist() == expected
        packed = requests.pack(np.arange(3))
        assert packed.items_T.tolist() == [*range(expected[0]), 4, 5]


def test_the_history_of_the_test_ends_at_its_point_in_time() -> None:
    corpus = corpus_of(
        [[0, 1, 2, 3], [4, 5], [1, 3], [5]], 6, timestamps=[[0, 1, 8, 9], [0, 2], [8, 9], [9]]
    )
    split = GlobalTemporal(validation_share=0.25, test_share=0.25).split(corpus)
    parts = RunParts(popularity(), corpus, split, Catalogue.of(corpus, split))
    assert known_users(parts, history="test").lengths_R.tolist() == [3, 2, 1, 0]


def test_of_several_histories_of_a_test_the_shortest_is_listed_after() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4], [4, 5]], 6, timestamps=[[0, 1, 2, 8, 9], [0, 2]])
    split = TemporalCut(cut=AtTime(time="2"), target="successive").split(corpus)
    parts = RunParts(popularity(), corpus, split, Catalogue.of(corpus, split))
    assert known_users(parts, history="test").lengths_R.tolist() == [3, 0]


def test_a_list_after_the_tests_history_holds_the_held_out_item_at_its_rank() -> None:
    """Recommendations and evaluation rank alike, so one can be computed from the other."""
    draws = np.random.default_rng(0)
    histories = [draws.permutation(20)[:5].tolist() for _ in range(30)]
    parts = parts_of(corpus_of(histories, 20))
    table_UV = torch.from_numpy(draws.permuted(np.tile(np.arange(20.0), (30, 1)), axis=1))
    ranks = parts.tables(FixedScores(table_UV), "test")["full"]
    requests = known_users(parts, history="test")
    rows = rows_of(recommend(parts, FixedScores(table_UV), requests, k=20))
    found = {(request, item): rank for request, item, _, rank, _ in rows}
    pairs = zip(ranks.user.tolist(), ranks.item.tolist(), strict=True)
    assert [found[pair] for pair in pairs] == ranks.rank.tolist()


def test_items_older_than_what_the_encoder_reads_are_seen_too() -> None:
    class Newest(ByNewest):
        def encode(self, histories: Packed, users_S: Tensor) -> EncodedRows:
            return super().encode(histories.newest(1), users_S)

    parts = parts_of(corpus_of([[0, 1, 2]], 5))
    assert sorted(items_of(parts, Newest(5), known_users(parts))) == ["i3", "i4"]


def test_unknown_ids_are_named_or_counted() -> None:
    corpus = with_attributes(corpus_of([LONG], 3), [[0], [1], []], 2)
    parts = parts_of(corpus)
    with pytest.raises(InputError, match=r"^users: 'u00' is not among the 1 names\. Similar names"):
        known_users(parts, ["u0", "u00"])
    with pytest.raises(InputError, match=r"^histories: 'i9' is not among the 3 names"):
        new_histories(parts, [["i0"], ["i9"]])
    for name in ("candidates", "exclude", "attributes"):
        with pytest.raises(InputError, match=f"^{name}: 'x' is not among the"):
            select_items(corpus, **{name: ["x"]})  # type: ignore[arg-type]
    users = known_users(parts, ["u9", "u0", "u0", "u8"], unknown="skip")
    assert (users.unknown_users, users.labels_R.tolist()) == (2, [0, 0])
    new = new_histories(parts, [["i1", "i9", "i2"], ["i9"], ["i0"]], unknown="skip")
    assert new.unknown_events == 2
    assert new.pack(np.arange(3)).items_T.tolist() == [1, 2, 0]
    assert new.lengths_R.tolist() == [2, 0, 1]
    selection = select_items(
        corpus, candidates=["i1", "x", "i0"], exclude=["y"], attributes=["a0", "z"], unknown="skip"
    )
    assert selection.unknown == 3
    assert selection.allowed_V is not None
    assert selection.allowed_V.tolist() == [True, False, False]


def test_what_is_no_list_of_raw_ids_is_refused() -> None:
    parts = parts_of(corpus_of([LONG], 3))
    with pytest.raises(InputError, match=r"^users: 'u0' is one text; give a list of raw ids"):
        known_users(parts, "u0")
    with pytest.raises(InputError, match=r"^users: 0 is of type int; raw ids are text, as in '0'"):
        known_users(parts, [0])  # type: ignore[list-item]
    for histories in ("i0", ["i0", "i1"]):
        with pytest.raises(InputError, match="give a list of lists of raw item ids"):
            new_histories(parts, histories)
    with pytest.raises(InputError, match="1 names for 2 histories"):
        new_histories(parts, [["i0"], ["i1"]], names=["a"])
    with pytest.raises(InputError, match="names: give the name of each history as text"):
        new_histories(parts, [["i0"]], names=[7])  # type: ignore[list-item]
    with pytest.raises(InputError, match="history is 'past'; allowed: all, train, test"):
        known_users(parts, history="past")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown is 'ignore'; allowed: error, skip"):
        known_users(parts, [], unknown="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seen is 'zero'; allowed: excluded, kept"):
        recommend(parts, ByNewest(3), known_users(parts), seen="zero")  # type: ignore[arg-type]
    for name in ("k", "batch_size"):
        with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
            recommend(parts, ByNewest(3), known_users(parts), **{name: 0})  # type: ignore[arg-type]


def test_a_score_that_is_not_finite_names_who_it_is_for() -> None:
    parts = parts_of(corpus_of([LONG, LONG], 3))
    ranker = FixedScores([[0.0, 0.0, 0.0], [0.0, np.nan, 0.0]])
    with pytest.raises(FloatingPointError, match="first for user 'u1'; a model has diverged"):
        list(recommend(parts, ranker, known_users(parts)))


def test_nobody_gets_nothing() -> None:
    parts = parts_of(corpus_of([LONG], 3))
    assert list(recommend(parts, ByNewest(3), known_users(parts, []))) == []
    assert list(recommend(parts, ByNewest(3), new_histories(parts, []))) == []


def test_requests_are_encoded_in_their_order() -> None:
    parts = parts_of(corpus_of([LONG, [0, 1, 2], [2]], 3))
    packed = known_users(parts, ["u2", "u0"]).pack(np.arange(2))
    bounds = packed.offsets.tolist()
    assert [packed.items_T[a:b].tolist() for a, b in pairwise(bounds)] == [[2], LONG]
