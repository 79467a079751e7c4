"""Ranks are counted tile by tile: the same for any tile, in one look at each, from few scores."""

from __future__ import annotations

from math import inf, nan
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from research.data.corpus import Corpus
from research.data.splits import GlobalTemporal, HeldOut, LeaveOneOut
from research.evaluation import chunks, tiles
from research.evaluation.candidates import AllItems, CandidateSet, Listed
from research.evaluation.chunks import tile_shape
from research.evaluation.popularity import Popularity
from research.evaluation.rank_table import RankTable
from research.evaluation.ranking import Ranker, rank_tables
from research.evaluation.tiles import SeenPolicy
from research.model.kernels.scored_rows import ScoredRows
from research.objectives.ranker import EncodedStates
from research.packed import Packed
from tests.evaluation.reference_ranks import EncodedRows, FixedScores, corpus_of, rank_of

POLICIES = get_args(SeenPolicy)


def tables_of(
    ranker: Ranker,
    corpus: Corpus,
    seen: SeenPolicy = "excluded",
    sets: tuple[CandidateSet, ...] = (AllItems(),),
) -> dict[str, RankTable]:
    held_out = LeaveOneOut().split(corpus).test
    counts_V = torch.zeros(corpus.num_items)
    return rank_tables(ranker, corpus, held_out, sets, seen=seen, protocol={}, counts_V=counts_V)


def question(
    row: list[float], history: list[int], candidates: range | list[int], seen: SeenPolicy
) -> tuple[float, int]:
    """(rank, ties) of the last item of a history, by sorting."""
    *known, answer = history
    scores = {item: row[item] for item in candidates}
    if seen == "zero":
        scores |= {item: 0.0 for item in known if item in scores}
    if seen == "excluded":
        scores = {item: value for item, value in scores.items() if item not in known}
        if answer in known:
            return inf, rank_of({**scores, answer: row[answer]}, answer)[1]
    return rank_of(scores, answer)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[int, list[list[int]], list[list[float]]]:
    """Items, histories over several tiles of 16 columns, and scores with many ties.

    As many columns as items, or two more.
    """
    num_items = draw(st.integers(3, 70))
    item = st.integers(0, num_items - 1)
    histories = draw(st.lists(st.lists(item, min_size=3, max_size=9), min_size=1, max_size=24))
    columns = num_items + draw(st.sampled_from([0, 2]))
    row = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5]), min_size=columns, max_size=columns)
    scores = draw(st.lists(row, min_size=len(histories), max_size=len(histories)))
    return num_items, histories, scores


@settings(max_examples=80, deadline=None)
@given(worlds(), st.sampled_from(POLICIES))
def test_ranks_of_small_tiles_equal_the_brute_force_ranker(
    world: tuple[int, list[list[int]], list[list[float]]], seen: SeenPolicy
) -> None:
    num_items, histories, scores = world
    corpus = corpus_of(histories, num_items)
    listed = Listed("file-all", torch.arange(num_items).repeat(len(histories), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CPU_TILE", 1)
        tables = tables_of(FixedScores(scores), corpus, seen, (AllItems(), listed))
    for table, competing in (
        (tables["full"], range(len(scores[0]))),
        (tables["file-all"], range(num_items)),
    ):
        expected = [question(*each, competing, seen) for each in zip(scores, histories)]
        assert list(zip(table.rank.tolist(), table.ties.tolist())) == expected


@pytest.mark.parametrize("seen", POLICIES)
@pytest.mark.parametrize("num_items", [5, 15, 16, 17, 33, 257])
def test_ranks_do_not_depend_on_the_tile(
    monkeypatch: pytest.MonkeyPatch, num_items: int, seen: SeenPolicy
) -> None:
    draws = np.random.default_rng(num_items)
    histories = [draws.integers(0, num_items, size).tolist() for size in draws.integers(3, 9, 60)]
    corpus = corpus_of(histories, num_items)
    scores = torch.from_numpy(draws.integers(-4, 5, (60, num_items + 2)))
    whole = tables_of(FixedScores(scores), corpus, seen)["full"]
    for tile in (1, 16 * 40, 256 * 48):
        monkeypatch.setattr(chunks, "CPU_TILE", tile)
        table = tables_of(FixedScores(scores), corpus, seen)["full"]
        assert table.rank.tolist() == whole.rank.tolist()
        assert table.ties.tolist() == whole.ties.tolist()


@st.composite
def successive(draw: st.DrawFn) -> tuple[Corpus, HeldOut, list[list[float]]]:
    """Users with many held-out items after one cut in time, and scores with many ties."""
    num_items = draw(st.integers(3, 70))
    item = st.integers(0, num_items - 1)
    histories = draw(st.lists(st.lists(item, min_size=1, max_size=30), min_size=2, max_size=6))
    histories.append([0] * 12 + [1])
    times = [sorted(draw(st.permutations(range(30)))[: len(each)]) for each in histories[:-1]]
    # The last user has interactions on both sides of any cut.
    corpus = corpus_of(histories, num_items, [*times, [*range(-12, 0), 31]])
    share = draw(st.sampled_from([0.2, 0.5, 0.8]))
    held_out = GlobalTemporal(validation_share=0.1, test_share=share).split(corpus).test
    row = st.lists(st.sampled_from([-0.5, 0.0, 0.5]), min_size=num_items, max_size=num_items)
    scores = draw(st.lists(row, min_size=len(histories), max_size=len(histories)))
    return corpus, held_out, scores


@settings(max_examples=80, deadline=None)
@given(
    successive(), st.sampled_from(POLICIES), st.sampled_from([1, 2, 64]), st.sampled_from([1, 4096])
)
def test_ranks_of_successive_held_out_items_equal_the_brute_force_ranker(
    world: tuple[Corpus, HeldOut, list[list[float]]], seen: SeenPolicy, many: int, tile: int
) -> None:
    corpus, held_out, scores = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CPU_TILE", tile)
        for module in (chunks, tiles):
            patch.setattr(module, "MANY_QUESTIONS", many)
        table = rank_tables(
            FixedScores(scores),
            corpus,
            held_out,
            (AllItems(),),
            seen=seen,
            protocol={},
            counts_V=torch.zeros(corpus.num_items),
        )["full"]
    histories, items = held_out.histories, corpus.items.tolist()
    expected = [
        question(scores[user], [*items[start:stop], items[target]], range(len(scores[0])), seen)
        for user, start, stop, target in zip(
            histories.users, histories.starts, histories.stops, held_out.targets
        )
    ]
    assert list(zip(table.rank.tolist(), table.ties.tolist())) == expected


class Touched(TorchDispatchMode):
    """Counts the elements of all tensors that torch's operations are given and give."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, results)):
            self.elements += leaf.numel() if isinstance(leaf, Tensor) else 0
        return results


@pytest.mark.parametrize("seen", POLICIES)
def test_work_grows_no_faster_than_the_history_of_one_user(seen: SeenPolicy) -> None:
    touched = []
    for size in (10_000, 20_000):
        # One user takes every item in turn: a tenth of them are asked for after the others.
        corpus = corpus_of([list(range(size)), [0, 1]], size, [list(range(size)), [0, size]])
        held_out = GlobalTemporal().split(corpus).test
        assert len(held_out) == size // 10 + 1
        ranker = Popularity(torch.arange(size))
        counts_V = torch.zeros(size)
        with Touched() as count:
            rank_tables(
                ranker, corpus, held_out, (AllItems(),), seen=seen, protocol={}, counts_V=counts_V
            )
        touched.append(count.elements)
    assert touched[1] < 2.2 * touched[0]
    assert touched[1] < 100 * 20_000


def test_answers_in_one_tile_need_one_look_at_each_and_others_a_second_at_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CPU_TILE", 1)
    alike = corpus_of([[0, 1, 20], [2, 3, 31]], 50)
    ranker = FixedScores(torch.zeros(2, 52))
    tables_of(ranker, alike)
    # All tiles of items are as wide; the columns after the items are a tile of their own.
    assert ranker.tiles == [(16, 32), (0, 16), (32, 48), (34, 50), (50, 52)]
    apart = corpus_of([[0, 1, 40], [2, 3, 31]], 48)
    ranker = FixedScores(torch.zeros(2, 48))
    tables_of(ranker, apart)
    assert ranker.tiles == [(16, 32), (32, 48), (0, 16), (16, 32)]


def test_questions_whose_answers_share_a_tile_are_ranked_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CPU_TILE", 1)
    # Every other answer stands in the first tile and every other one in the second.
    histories = [[0, 1, 2 if user % 2 else 30] for user in range(32)]
    ranker = FixedScores(torch.zeros(32, 32))
    tables_of(ranker, corpus_of(histories, 32))
    assert ranker.tiles == [(0, 16), (16, 32), (16, 32), (0, 16)]


def test_scores_of_a_whole_catalogue_are_never_held() -> None:
    ranker = FixedScores(torch.zeros(3, 5002))
    tables_of(ranker, corpus_of([[0, 1, 2], [3, 4, 5], [6, 7, 8]], 5000))
    assert ranker.tiles == [(0, 1680), (1680, 3360), (3320, 5000), (5000, 5002)]


def test_a_list_of_candidates_scores_candidates_alone() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    ranker = FixedScores([[9.0, 9.0, 9.0, 9.0, 0.5, 0.7, 0.5, 0.1]])
    alone = tables_of(ranker, corpus, sets=(Listed("file-2", torch.tensor([[6, 5]])),))
    assert ranker.tiles == []
    beside = tables_of(ranker, corpus, sets=(AllItems(), Listed("file-2", torch.tensor([[6, 5]]))))
    assert ranker.tiles == [(0, 8)]
    for tables in (alone, beside):
        assert (tables["file-2"].rank.tolist(), tables["file-2"].ties.tolist()) == ([2.5], [1])


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("column", [0, 20, 40, 41])
def test_a_score_that_is_not_finite_is_met_in_any_tile(
    monkeypatch: pytest.MonkeyPatch, column: int, value: float
) -> None:
    monkeypatch.setattr(chunks, "CPU_TILE", 1)
    corpus = corpus_of([[0, 1, 2]] * 3, 40)
    scores = torch.zeros(3, 42)
    scores[1, column] = value
    with pytest.raises(FloatingPointError, match=r"NaN or infinite scores.*user 1 "):
        tables_of(FixedScores(scores), corpus)
    # Also where the list that is ranked does not reach it.
    with pytest.raises(FloatingPointError, match="user 1 "):
        tables_of(FixedScores(scores), corpus, sets=(Listed("file-1", torch.tensor([[9]] * 3)),))


class Multiplying:
    """A ranker whose states are given: one for each user."""

    def __init__(self, states_UD: Tensor, rows: ScoredRows) -> None:
        self.states_UD = states_UD
        self.rows = rows

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedStates:
        return EncodedStates(self.states_UD[users_S], self.rows)


@pytest.mark.parametrize("users", [1, 2, 3, 19])
@pytest.mark.parametrize("num_items", [2, 7, 17, 101, 1001])
def test_items_of_equal_embeddings_tie_whatever_the_shapes(
    monkeypatch: pytest.MonkeyPatch, num_items: int, users: int
) -> None:
    draws = torch.Generator().manual_seed(num_items)
    answers = torch.arange(users) * 5 % num_items
    histories = [[answer - 1, answer - 1, answer] for answer in answers.tolist()]
    histories = [[item % num_items for item in history] for history in histories]
    corpus = corpus_of(histories, num_items)
    rows = ScoredRows(torch.randn(1, 61, generator=draws).repeat(num_items, 1))
    ranker = Multiplying(torch.randn(users, 61, generator=draws), rows)
    listed = Listed("file-all", torch.arange(num_items).repeat(users, 1))
    for tile in (chunks.CPU_TILE, 1):
        monkeypatch.setattr(chunks, "CPU_TILE", tile)
        for table in tables_of(ranker, corpus, "kept", (AllItems(), listed)).values():
            assert table.ties.tolist() == [num_items - 1] * users
            assert table.rank.tolist() == [(num_items + 1) / 2] * users


@pytest.mark.parametrize("num_items", [1, 2, 16, 100, 2048, 2049, 12101, 26744, 10**6, 10**8])
def test_a_tile_is_about_as_large_as_was_asked_for(num_items: int) -> None:
    questions, columns = tile_shape(num_items, 1 << 19)
    assert columns % 16 == 0
    assert questions >= 200
    assert columns <= max(2064, 16)
    # Rounding to sixteen columns is all that is added.
    assert questions * columns <= (1 << 19) + 16 * questions


def test_tiles_of_a_catalogue_are_equally_wide() -> None:
    # 12,101 items are six tiles of at most 2,048 columns.
    assert tile_shape(12101, 1 << 19) == (258, 2032)
    assert tile_shape(2048, 1 << 19) == (256, 2048)
    assert tile_shape(12101, 1 << 27) == (11081, 12112)


def test_answers_are_read_from_the_tiles_that_are_counted() -> None:
    """Scores of lists may be rounded otherwise; full ranking does not look at them."""

    class Rounded(EncodedRows):
        def scores_of(self, items_SN: Tensor) -> Tensor:
            raise AssertionError("full ranking asks for tiles alone")

    class Ranking(FixedScores):
        def encode(self, histories: Packed, users_S: Tensor) -> EncodedRows:
            return Rounded(self.table_UV[users_S], [])

    corpus = corpus_of([[0, 1, 2]], 40)
    held_out: HeldOut = LeaveOneOut().split(corpus).test
    assert len(held_out) == 1
    assert tables_of(Ranking(torch.zeros(1, 40)), corpus)["full"].ties.tolist() == [37]
