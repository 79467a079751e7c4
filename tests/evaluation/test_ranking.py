"""Ranks of held-out items: hand numbers, the brute-force twin, and what must never happen."""

import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from math import inf, log2, nan
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.splits import GlobalTemporal, HeldOut, LeaveOneOut, UserHoldout
from research.errors import InputError
from research.evaluation import chunks
from research.evaluation.candidates import AllItems, CandidateSet, Listed
from research.evaluation.metrics import metrics, missed_share
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.ranking import rank_tables
from research.evaluation.sampled_candidates import sample_candidates
from research.evaluation.tiles import SeenPolicy
from research.model.kernels.scored_rows import ScoredRows
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import EncodedStates, TrainedRanker
from research.packed import Packed
from tests.evaluation.reference_ranks import FixedScores, corpus_of, question_rank, scores_of_all
from tests.support.rank_tables import small_table
from tests.support.synthetic import encoder_of

# Item v has been trained on v times.
COUNTS_V = torch.arange(100)
SMALL = TransformerConfig(length=3, width=4, layers=1, heads=2, feed_forward=8)


def table_of(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    candidates: CandidateSet | None = None,
    exclude_seen: bool = True,
) -> RankTable:
    chosen = candidates or AllItems()
    return rank_tables(
        ranker,
        corpus,
        held_out,
        [chosen],
        seen="excluded" if exclude_seen else "kept",
        protocol={"part": "test"},
        counts_V=COUNTS_V,
    )[chosen.name]


def test_of(corpus: Corpus) -> HeldOut:
    return LeaveOneOut().split(corpus).test


test_of.__test__ = False  # type: ignore[attr-defined]


# One user who saw items 0 to 3 and whose answer is item 4: item 5 is better, item 6 ties.
LADDER = [[9.0, 9.0, 9.0, 9.0, 0.5, 0.7, 0.5, 0.1]]


def test_rank_is_one_plus_better_plus_half_of_the_ties() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    table = table_of(FixedScores(LADDER), corpus, test_of(corpus))
    assert table.rank.tolist() == [2.5]
    assert table.ties.tolist() == [1]


def test_seen_items_take_part_when_they_are_kept() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    table = table_of(FixedScores(LADDER), corpus, test_of(corpus), exclude_seen=False)
    assert table.rank.tolist() == [6.5]


def test_only_listed_negatives_compete() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    only = Listed("file-2", torch.tensor([[7, 6]]))
    assert table_of(FixedScores(LADDER), corpus, test_of(corpus), only).rank.tolist() == [1.5]


def test_an_answer_among_its_own_negatives_does_not_compete_with_itself() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    only = Listed("file-2", torch.tensor([[4, 5]]))
    table = table_of(FixedScores(LADDER), corpus, test_of(corpus), only)
    assert (table.rank.tolist(), table.ties.tolist()) == ([2.0], [0])


def test_a_table_holds_users_items_and_history_lengths_in_the_order_of_the_questions() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4], [5, 6, 7], [1, 2, 3, 4]], 8)
    table = table_of(FixedScores(torch.zeros(3, 8)), corpus, test_of(corpus))
    assert table.user.tolist() == [0, 1, 2]
    assert table.item.tolist() == [4, 7, 4]
    assert table.history_length.tolist() == [4, 2, 3]
    assert table.item_count.tolist() == [4, 7, 4]
    whole = (table.user, table.item, table.history_length, table.item_count)
    assert [each.dtype for each in (*whole, table.rank)] == [*[np.int32] * 4, np.float64]


def test_the_protocol_says_what_was_asked() -> None:
    corpus = corpus_of([[0, 1, 2]], 4)
    table = table_of(FixedScores([[0.0] * 4]), corpus, test_of(corpus), exclude_seen=False)
    assert table.protocol == {"part": "test", "candidates": "full", "seen": "kept", "ties": "mean"}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Corpus, list[list[int]], list[list[int]]]:
    """A corpus of at least 12 items, its histories, and a table of scores with many ties."""
    num_items = draw(st.integers(12, 20))
    item = st.integers(0, num_items - 1)
    histories = draw(st.lists(st.lists(item, min_size=3, max_size=8), min_size=1, max_size=20))
    row = st.lists(st.integers(-2, 1), min_size=num_items, max_size=num_items)
    table = draw(st.lists(row, min_size=len(histories), max_size=len(histories)))
    return corpus_of(histories, num_items), histories, table


def brute_force(
    histories: Sequence[Sequence[int]],
    table: Sequence[Sequence[float]],
    negatives: Sequence[Sequence[int]] | None,
    exclude_seen: bool,
) -> list[float]:
    return [
        question_rank(
            table[user],
            history[:-1],
            history[-1],
            None if negatives is None else negatives[user],
            exclude_seen,
        )
        for user, history in enumerate(histories)
    ]


@settings(max_examples=60, deadline=None)
@given(worlds(), st.booleans())
def test_full_ranks_equal_the_brute_force_ranker(
    world: tuple[Corpus, list[list[int]], list[list[int]]], exclude_seen: bool
) -> None:
    corpus, histories, scores = world
    table = table_of(FixedScores(scores), corpus, test_of(corpus), exclude_seen=exclude_seen)
    assert table.rank.tolist() == brute_force(histories, scores, None, exclude_seen)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.booleans(), st.data())
def test_ranks_among_a_files_negatives_equal_the_brute_force_ranker(
    world: tuple[Corpus, list[list[int]], list[list[int]]], exclude_seen: bool, data: st.DataObject
) -> None:
    corpus, histories, scores = world
    orders = [data.draw(st.permutations(range(corpus.num_items))) for _ in histories]
    rows = [
        [item for item in order if item != history[-1]][:4]
        for order, history in zip(orders, histories)
    ]
    listed = Listed("file-4", torch.tensor(rows))
    table = table_of(FixedScores(scores), corpus, test_of(corpus), listed, exclude_seen)
    assert table.rank.tolist() == brute_force(histories, scores, rows, exclude_seen)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.booleans(), st.sampled_from(["uniform", "popularity"]))
def test_ranks_among_sampled_negatives_equal_the_brute_force_ranker(
    world: tuple[Corpus, list[list[int]], list[list[int]]], exclude_seen: bool, kind: str
) -> None:
    corpus, histories, scores = world
    counts_V = torch.arange(corpus.num_items) % 3 + 1
    asked = test_of(corpus)
    drawn = sample_candidates(corpus, asked, kind, 3, counts_V, 0)  # type: ignore[arg-type]
    table = table_of(FixedScores(scores), corpus, asked, drawn, exclude_seen)
    rows = drawn.negatives_QN.tolist()
    assert table.rank.tolist() == brute_force(histories, scores, rows, exclude_seen)


@settings(max_examples=30, deadline=None)
@given(worlds())
def test_ties_are_the_other_candidates_with_the_very_score(
    world: tuple[Corpus, list[list[int]], list[list[int]]],
) -> None:
    corpus, histories, scores = world
    everyone = Listed("file-all", torch.arange(corpus.num_items).repeat(len(histories), 1))
    ranker = FixedScores(scores)
    full = table_of(ranker, corpus, test_of(corpus))
    listed = table_of(ranker, corpus, test_of(corpus), everyone)
    expected = [
        sum(row[item] == row[history[-1]] for item in range(len(row))
            if item != history[-1] and item not in history[:-1])
        for row, history in zip(scores, histories)
    ]  # fmt: skip
    assert full.ties.tolist() == expected
    assert listed.ties.tolist() == expected


def test_the_column_of_the_answer_does_not_matter() -> None:
    histories = [[0, 1, 2, 3, 4], [5, 6, 7, 0], [2, 2, 3]]
    scores = torch.tensor(
        [[3, 1, 2, 2, 2, 1, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1], [0, 5, 1, 5, 5, 0, 1, 7]]
    )
    renamed = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    moved_scores = torch.empty_like(scores)
    moved_scores[:, renamed] = scores
    moved_histories = [renamed[history].tolist() for history in histories]
    original = corpus_of(histories, 8)
    moved = corpus_of(moved_histories, 8)
    before = table_of(FixedScores(scores), original, test_of(original))
    after = table_of(FixedScores(moved_scores), moved, test_of(moved))
    assert before.rank.tolist() == after.rank.tolist()
    assert before.ties.tolist() == after.ties.tolist()


def constant_table() -> RankTable:
    """Users of 3 items each among 23; so 21 candidates, and the constant scorer's rank is 11."""
    corpus = corpus_of([[user, user + 1, user + 2] for user in range(10)], 23)
    return table_of(FixedScores(torch.full((10, 23), 0.3)), corpus, test_of(corpus))


def test_constant_scorer_has_the_middle_rank() -> None:
    assert constant_table().rank.tolist() == [11.0] * 10


def test_constant_scorer_does_not_beat_chance() -> None:
    # Chance: the answer is equally likely to stand in each of the 21 places.
    table = constant_table()
    for k in range(1, 22):
        names = [f"hr@{k}", f"ndcg@{k}", f"mrr@{k}", f"map@{k}"]
        discounted = sum(1 / log2(place + 1) for place in range(1, k + 1)) / 21
        reciprocal = sum(1 / place for place in range(1, k + 1)) / 21
        # Sums of at most 21 terms.
        assert list(metrics(table, names).values()) == pytest.approx(
            [k / 21, discounted, reciprocal, reciprocal], rel=1e-14
        )


def test_a_constant_scorer_stands_at_the_middle_where_ties_have_their_mean_rank() -> None:
    """A miss below the middle and a hit at it; among thousands of items no k in use comes near."""
    assert metrics(constant_table(), ["hr@10", "hr@11"], "mean") == {"hr@10": 0.0, "hr@11": 1.0}


def test_seen_items_cannot_win_when_all_scores_are_negative() -> None:
    corpus = corpus_of([[0, 1, 2, 3]], 5)
    scores = [[-1.0, -1.0, -1.0, -9.0, -10.0]]
    assert table_of(FixedScores(scores), corpus, test_of(corpus)).rank.tolist() == [1.0]


@pytest.mark.parametrize("objective", [NextItemConfig(), ClozeConfig()])
def test_seen_means_the_whole_history_and_not_the_encoders_window(
    objective: NextItemConfig | ClozeConfig,
) -> None:
    history = [0, 1, 2, 3, 4, 5, 6, 7]
    corpus = corpus_of([history], 20)
    split = LeaveOneOut().split(corpus)
    encoder = encoder_of(SMALL, 20, seed=0)
    built = objective.build(ModelComponents(SMALL, Catalogue.of(corpus, split), 0), 0)
    # Old items, outside the encoder's window of three, score as highly as the answer.
    with torch.no_grad():
        encoder.item_table.weight[:4] = encoder.item_table.weight[7]
    ranker = TrainedRanker(encoder, built)  # type: ignore[arg-type]
    scores = scores_of_all(ranker, Packed.from_lists([history[:-1]]))[0].tolist()
    table = table_of(ranker, corpus, split.test)
    assert table.rank.tolist() == [question_rank(scores, history[:-1], 7, None, True)]
    assert table.rank.tolist() != [question_rank(scores, history[4:-1], 7, None, True)]


def test_a_held_out_item_that_stands_in_the_history_is_a_miss() -> None:
    corpus = corpus_of([[1, 2, 1, 3, 1], [0, 2, 3]], 5)
    best_first = FixedScores([[0.0, 9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0, 0.0]])
    table = table_of(best_first, corpus, test_of(corpus))
    assert table.rank.tolist() == [inf, 1.0]
    assert missed_share(table) == 0.5
    assert metrics(table, ["hr@10", "mrr"]) == {"hr@10": 0.5, "mrr": 0.5}


def test_a_held_out_item_that_stands_in_the_history_can_be_hit_when_seen_items_are_kept() -> None:
    corpus = corpus_of([[1, 2, 1, 3, 1], [0, 2, 3]], 5)
    best_first = FixedScores([[0.0, 9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0, 0.0]])
    table = table_of(best_first, corpus, test_of(corpus), exclude_seen=False)
    assert table.rank.tolist() == [1.0, 1.0]
    assert missed_share(table) == 0.0


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("column", [0, 2, 4])  # seen, the answer, another
def test_a_score_that_is_not_finite_is_an_error_that_names_the_user(
    value: float, column: int
) -> None:
    corpus = corpus_of([[0, 1, 2]] * 3, 5)
    scores = torch.zeros(3, 5)
    scores[1, column] = value
    with pytest.raises(FloatingPointError, match=r"NaN or infinite scores.*user 1 "):
        table_of(FixedScores(scores), corpus, test_of(corpus))


def test_opposite_infinities_are_an_error_too() -> None:
    corpus = corpus_of([[0, 1, 2]], 5)
    with pytest.raises(FloatingPointError, match="user 0 "):
        table_of(FixedScores([[inf, -inf, 0.0, 0.0, 0.0]]), corpus, test_of(corpus))


def test_finite_scores_without_a_finite_bound_are_no_error() -> None:
    # The bound is twice the product of 2e38 and 1.
    corpus = corpus_of([[0, 1, 2]], 3000)
    rows = ScoredRows(torch.ones(3000, 1))

    class Huge:
        def encode(self, histories: Packed, users_S: Tensor) -> EncodedStates:
            return EncodedStates(torch.full((len(users_S), 1), 2e38), rows)

    encoded = Huge().encode(Packed.from_lists([[0]]), torch.tensor([0]))
    assert encoded.largest_S.tolist() == [inf]
    assert table_of(Huge(), corpus, test_of(corpus)).ties.tolist() == [2997]


def test_ranks_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    histories = [draws.integers(0, 9, size).tolist() for size in draws.integers(3, 12, 50)]
    corpus = corpus_of(histories, 9)
    ranker = FixedScores(torch.from_numpy(draws.integers(0, 3, (50, 9))))
    whole = table_of(ranker, corpus, test_of(corpus))
    monkeypatch.setattr(chunks, "CPU_TILE", 1)
    ranker.asked.clear()
    pieces = table_of(ranker, corpus, test_of(corpus))
    assert [len(chunk) for chunk in ranker.asked] == [16, 16, 16, 2]
    assert whole.rank.tolist() == pieces.rank.tolist()
    assert whole.ties.tolist() == pieces.ties.tolist()


def test_one_pass_of_scores_serves_all_candidate_sets() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4]], 8)
    ranker = FixedScores(LADDER)
    sets = [
        AllItems(),
        Listed("file-1", torch.tensor([[6]])),
        Listed("file-2", torch.tensor([[5, 7]])),
    ]
    tables = rank_tables(
        ranker, corpus, test_of(corpus), sets, seen="excluded", protocol={}, counts_V=COUNTS_V
    )
    assert {name: table.rank.tolist() for name, table in tables.items()} == {
        "full": [2.5], "file-1": [1.5], "file-2": [2.0]
    }  # fmt: skip
    assert len(ranker.asked) == 1


def test_the_test_history_contains_the_validation_item() -> None:
    corpus = corpus_of([[0, 1, 2, 3], [4, 3, 2]], 5)
    split = LeaveOneOut().split(corpus)
    ranker = FixedScores(torch.zeros(2, 5))
    table_of(ranker, corpus, split.validation)
    table_of(ranker, corpus, split.test)
    # Shorter histories are asked first.
    assert ranker.asked == [[[4], [0, 1]], [[4, 3], [0, 1, 2]]]


def test_a_temporal_split_has_one_row_for_each_user_and_held_out_item() -> None:
    corpus = corpus_of(
        [[0, 1, 2, 3], [4, 5, 0], [1, 2], [3, 4]],
        6,
        [[1, 2, 9, 10], [3, 7, 11], [4, 5], [12, 13]],
    )
    # 11 interactions; the newest five (times 9 to 13) test, time 7 validates.
    split = GlobalTemporal(validation_share=0.1, test_share=0.4).split(corpus)
    ranker = FixedScores(torch.zeros(4, 6))
    table = table_of(ranker, corpus, split.test)
    assert list(zip(table.user.tolist(), table.item.tolist())) == [(0, 2), (0, 3), (1, 0)]
    assert table.history_length.tolist() == [2, 2, 2]
    # The history that two questions share is encoded once.
    assert ranker.asked == [[[4, 5], [0, 1]]]


def test_a_split_that_holds_nothing_out_cannot_be_ranked() -> None:
    corpus = corpus_of([[0, 1]] * 10, 3)
    nothing = UserHoldout(validation_share=0.0).split(corpus).validation
    with pytest.raises(InputError, match="holds nothing out"):
        table_of(FixedScores(torch.zeros(10, 3)), corpus, nothing)


COLUMNS = ("user", "item", "rank", "ties", "history_length", "item_count")


def test_a_saved_table_is_loaded_as_it_was(tmp_path: Path) -> None:
    table = small_table()
    table.save(tmp_path / "ranks" / "test-full.npz")
    loaded = RankTable.load(tmp_path / "ranks" / "test-full.npz")
    for name in COLUMNS:
        before, after = getattr(table, name), getattr(loaded, name)
        assert before.tolist() == after.tolist()
        assert before.dtype == after.dtype
    assert loaded.protocol == table.protocol
    assert [path.name for path in (tmp_path / "ranks").iterdir()] == ["test-full.npz"]


def test_a_table_of_an_earlier_version_says_that_the_run_must_be_done_again(tmp_path: Path) -> None:
    table = small_table()
    columns = {name: getattr(table, name) for name in COLUMNS if name != "item_count"}
    path = tmp_path / "table.npz"
    np.savez(path, **{**columns, "protocol": np.array("{}")})
    with pytest.raises(InputError, match=r"table\.npz was written by an earlier version.*again"):
        RankTable.load(path)


def test_a_table_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npz does not exist"):
        RankTable.load(tmp_path / "absent.npz")


def test_every_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    small_table().save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        # Some bytes of a zip file mean nothing, such as times; contents have checksums.
        with suppress(InputError):
            assert RankTable.load(path).rank.tolist() == [1.0, 2.5, inf]


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_cut_off_table_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "table.npz"
    small_table().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"table.npz is not a rank table"):
        RankTable.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("user item rank\n")
    bare = tmp_path / "bare.npz"
    with bare.open("wb") as file:
        np.save(file, np.arange(3))
    other = tmp_path / "other.npz"
    np.savez(other, weights=np.arange(3))
    archive = tmp_path / "archive.npz"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("rank", "1 2 3")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, rank=np.array([{"a": 1}], dtype=object))
    for path in (text, bare, other, archive, pickled, tmp_path):
        with pytest.raises(InputError, match=f"{path.name} is not a rank table"):
            RankTable.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": np.array([1.0, 2.0])},
        {"rank": np.array([[1.0, 2.0, 3.0]])},
        # Two that tie have a rank between two places, and four the first place 1 or later.
        {"rank": np.array([1.0, 2.0, 3.25])},
        {"rank": np.array([1.0, 2.0, 5.0]), "ties": np.array([0, 0, 1], np.int32)},
        {"rank": np.array([1.0, 2.0, 1.5]), "ties": np.array([0, 0, 3], np.int32)},
        {"user": np.array(["a", "b", "c"])},
        {"protocol": np.array(json.dumps([1, 2]))},
        {"protocol": np.array("no json")},
    ],
)
def test_tables_whose_columns_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray]
) -> None:
    table = small_table()
    columns = {name: getattr(table, name) for name in COLUMNS}
    path = tmp_path / "table.npz"
    np.savez(path, **{**columns, "protocol": np.array("{}"), **change})
    with pytest.raises(InputError, match=r"table.npz is not a rank table"):
        RankTable.load(path)


def test_seen_items_at_score_zero_float_above_negative_scores() -> None:
    # Item 0 is the history, 1 validates, 2 is the answer; all raw scores are negative.
    corpus = corpus_of([[0, 1, 2]], 4)
    scores = FixedScores([[-5.0, -6.0, -1.0, -2.0]])
    asked = test_of(corpus)
    ranks = {
        seen: rank_tables(
            scores, corpus, asked, [AllItems()], seen=seen, protocol={}, counts_V=COUNTS_V
        )["full"].rank
        for seen in get_args(SeenPolicy)
    }
    assert {seen: rank.tolist() for seen, rank in ranks.items()} == {
        "excluded": [1.0], "kept": [1.0], "zero": [3.0],
    }  # fmt: skip


def test_a_seen_answer_at_score_zero_can_be_hit() -> None:
    # The answer, 0, stands in the history: it gets score 0 as well, and item 3 alone beats it.
    corpus = corpus_of([[0, 1, 0]], 4)
    table = rank_tables(
        FixedScores([[9.0, -6.0, -1.0, 2.0]]),
        corpus,
        test_of(corpus),
        [AllItems()],
        seen="zero",
        protocol={},
        counts_V=COUNTS_V,
    )["full"]
    # Item 1, seen too, ties with it at 0.
    assert (table.rank.tolist(), table.ties.tolist()) == ([2.5], [1])
    assert table.protocol["seen"] == "zero"


def test_columns_after_the_items_compete_in_full_ranking_alone() -> None:
    corpus = corpus_of([[0, 1, 2]], 4)
    asked = test_of(corpus)
    sets = [AllItems(), Listed("file-1", torch.tensor([[3]]))]
    scores = FixedScores([[0.0, 0.0, 1.0, 0.5, 7.0, 8.0]])
    tables = rank_tables(
        scores, corpus, asked, sets, seen="excluded", protocol={}, counts_V=COUNTS_V
    )
    assert tables["full"].rank.tolist() == [3.0]
    assert tables["full"].protocol["special_candidates"] == 2
    assert tables["file-1"].rank.tolist() == [1.0]
    assert "special_candidates" not in tables["file-1"].protocol
