"""Candidate sets: which items a held-out item is ranked among, and files that name them."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from baselines.popularity import PopularityConfig
from research.data.corpus import Corpus
from research.data.names import Names
from research.data.splits import GlobalTemporal, HeldOut, LeaveOneOut, UserHoldout, training_counts
from research.errors import InputError
from research.evaluation.candidates import (
    is_in_history,
    read_candidates,
    seen_notes,
)
from research.evaluation.ranking import rank_tables
from research.evaluation.sampled_candidates import sample_candidates
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.parts import RunParts
from tests.evaluation.reference_ranks import FixedScores, corpus_of, write_to_disk


def ones(corpus: Corpus) -> torch.Tensor:
    return torch.ones(corpus.num_items, dtype=torch.int64)


def many_users() -> Corpus:
    """200 users with 3 to 10 of 40 items."""
    draws = np.random.default_rng(1)
    return corpus_of(
        [draws.integers(0, 40, size).tolist() for size in draws.integers(3, 11, 200)], 40
    )


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_sampled_negatives_are_distinct_and_outside_history_and_answer(kind: str) -> None:
    corpus = many_users()
    asked = LeaveOneOut().split(corpus).test
    counts_V = torch.arange(40) + 1
    listed = sample_candidates(corpus, asked, kind, 25, counts_V, 0, "test")  # type: ignore[arg-type]
    negatives = listed.negatives_QN.tolist()
    assert len(negatives) == 200
    for user, row in enumerate(negatives):
        own = corpus.items[corpus.offsets[user] : corpus.offsets[user + 1]].tolist()
        assert len(set(row)) == 25
        assert not set(row) & set(own)
        assert all(0 <= item < 40 for item in row)


def test_the_name_of_a_sampled_set_carries_its_protocol() -> None:
    corpus = corpus_of([[0, 1, 2]], 10)
    asked = LeaveOneOut().split(corpus).test
    assert sample_candidates(corpus, asked, "uniform", 3, ones(corpus), 0).name == "uniform-3"
    assert sample_candidates(corpus, asked, "popularity", 4, ones(corpus), 0).name == "popularity-4"


def test_sampled_negatives_are_the_same_for_equal_seeds_and_no_others() -> None:
    corpus = many_users()
    asked = LeaveOneOut().split(corpus).test
    first = sample_candidates(corpus, asked, "uniform", 10, ones(corpus), 0, "test").negatives_QN
    again = sample_candidates(corpus, asked, "uniform", 10, ones(corpus), 0, "test").negatives_QN
    other_seed = sample_candidates(
        corpus, asked, "uniform", 10, ones(corpus), 1, "test"
    ).negatives_QN
    other_part = sample_candidates(
        corpus, asked, "uniform", 10, ones(corpus), 0, "validation"
    ).negatives_QN
    assert first.tolist() == again.tolist()
    assert first.tolist() != other_seed.tolist()
    assert first.tolist() != other_part.tolist()


def test_sampled_negatives_differ_between_users_of_one_history() -> None:
    corpus = corpus_of([[0, 1, 2]] * 50, 40)
    asked = LeaveOneOut().split(corpus).test
    rows = sample_candidates(corpus, asked, "uniform", 10, ones(corpus), 0).negatives_QN.tolist()
    assert len({tuple(sorted(row)) for row in rows}) == 50


def run_parts_of(corpus: Corpus, folder: Path, candidates: str) -> RunParts:
    """The parts of a counting run on this corpus, written to `folder`."""
    config = RunConfig(
        corpus=str(write_to_disk(corpus, folder).folder),
        ranker=PopularityConfig(),
        evaluation=EvaluationConfig(candidates=(candidates,)),
    )
    return RunParts.of(config, "data")


def test_sampled_negatives_differ_between_validation_and_test_of_a_run(tmp_path: Path) -> None:
    run_parts = run_parts_of(corpus_of([[0, 1, 2, 3]] * 5, 40), tmp_path / "corpus", "uniform-8")
    # The very same questions under both names.
    asked = run_parts.split.test
    (validation,) = run_parts.candidate_sets(asked, "validation")
    (test,) = run_parts.candidate_sets(asked, "test")
    assert validation.negatives_QN.tolist() != test.negatives_QN.tolist()  # type: ignore[attr-defined]


def test_a_questions_negatives_do_not_depend_on_the_other_questions() -> None:
    corpus = many_users()
    asked = LeaveOneOut().split(corpus).test
    counts_V = torch.arange(40) + 1
    together = sample_candidates(corpus, asked, "popularity", 5, counts_V, 0).negatives_QN
    few = np.array([150, 3, 77])
    alone = sample_candidates(corpus, asked.select(few), "popularity", 5, counts_V, 0).negatives_QN
    assert alone.tolist() == together[few].tolist()


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_draws_follow_the_weights(kind: str) -> None:
    # One negative for each of 4000 users. The users' own three items carry no chance; the rest
    # have chances in proportion to their weights. Bound: 5 standard deviations of the count.
    draws = np.random.default_rng(2)
    histories = [draws.permutation(8)[:3].tolist() for _ in range(4000)]
    corpus = corpus_of(histories, 8)
    counts_V = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    weights = counts_V.tolist() if kind == "popularity" else [1] * 8
    asked = LeaveOneOut().split(corpus).test
    drawn = sample_candidates(corpus, asked, kind, 1, counts_V, 0).negatives_QN[:, 0].tolist()  # type: ignore[arg-type]
    for item in range(8):
        chances = []
        for history in histories:
            free = [each for each in range(8) if each not in history]
            total = sum(weights[each] for each in free)
            chances.append(weights[item] / total if item in free else 0.0)
        deviation = sum(chance * (1 - chance) for chance in chances) ** 0.5
        assert abs(drawn.count(item) - sum(chances)) < 5 * deviation


def test_popularity_negatives_know_training_counts_only(tmp_path: Path) -> None:
    # Items 8 and 9 are the most popular of all, but stand only in held-out places.
    histories = [[user % 8, (user + 1) % 8, 8, 9] for user in range(30)]
    histories += [[user % 8, (user + 1) % 8, (user + 2) % 8, (user + 3) % 8] for user in range(8)]
    run_parts = run_parts_of(corpus_of(histories, 10), tmp_path / "corpus", "popularity-4")
    (drawn,) = run_parts.candidate_sets(run_parts.split.test, "test")
    assert not torch.isin(drawn.negatives_QN, torch.tensor([8, 9])).any()  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [7, 10, 11, 1000])
def test_asking_for_more_negatives_than_there_are_is_an_error(number: int) -> None:
    corpus = corpus_of([[0, 1, 2, 3], [4, 5, 6]], 10)
    asked = LeaveOneOut().split(corpus).test
    with pytest.raises(InputError, match=f"uniform-{number} asks for {number} distinct negatives"):
        sample_candidates(corpus, asked, "uniform", number, ones(corpus), 0)


def test_all_items_but_history_and_answer_can_be_asked_for() -> None:
    corpus = corpus_of([[0, 1, 2, 3], [4, 5, 6, 7]], 10)
    asked = LeaveOneOut().split(corpus).test
    rows = sample_candidates(corpus, asked, "uniform", 6, ones(corpus), 0).negatives_QN
    assert sorted(rows[0].tolist()) == [4, 5, 6, 7, 8, 9]
    assert sorted(rows[1].tolist()) == [0, 1, 2, 3, 8, 9]


def test_a_history_that_repeats_items_takes_up_each_of_them_once() -> None:
    # 30 interactions with two items leave 8 of 10 to be drawn.
    corpus = corpus_of([[0, 1] * 15], 10)
    asked = LeaveOneOut().split(corpus).test
    rows = sample_candidates(corpus, asked, "uniform", 8, ones(corpus), 0).negatives_QN.tolist()
    assert sorted(rows[0]) == [2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(InputError, match="uniform-9 asks for 9 distinct negatives"):
        sample_candidates(corpus, asked, "uniform", 9, ones(corpus), 0)


def test_items_without_training_interactions_are_no_popularity_negatives() -> None:
    corpus = corpus_of([[0, 1, 2]], 10)
    asked = LeaveOneOut().split(corpus).test
    counts_V = torch.tensor([5, 5, 0, 1, 1, 1, 0, 0, 0, 0])
    rows = sample_candidates(corpus, asked, "popularity", 3, counts_V, 0).negatives_QN.tolist()
    assert sorted(rows[0]) == [3, 4, 5]
    with pytest.raises(InputError, match="popularity-4 asks for 4 distinct negatives"):
        sample_candidates(corpus, asked, "popularity", 4, counts_V, 0)


def temporal() -> tuple[Corpus, HeldOut]:
    """One user with two items before the cut and three after it, and one who trains."""
    corpus = corpus_of([[0, 1, 2, 3, 4], [5, 6, 7]], 8, [[1, 2, 8, 9, 10], [3, 4, 7]])
    return corpus, GlobalTemporal(validation_share=0.1, test_share=0.3).split(corpus).test


def test_sampled_candidates_refuse_several_held_out_items_a_user() -> None:
    corpus, asked = temporal()
    assert asked.targets.tolist() == [2, 3, 4]
    with pytest.raises(InputError, match="uniform-3 needs one held-out item a user"):
        sample_candidates(corpus, asked, "uniform", 3, ones(corpus), 0)


def test_a_negatives_file_refuses_several_held_out_items_a_user(tmp_path: Path) -> None:
    corpus, asked = temporal()
    path = tmp_path / "negatives.txt"
    path.write_text("u0 i5 i6\n")
    with pytest.raises(InputError, match="a negatives file needs one held-out item a user"):
        read_candidates(path, corpus, asked, "excluded")


@pytest.fixture
def asked_of_two() -> tuple[Corpus, HeldOut]:
    corpus = corpus_of([[0, 1, 2], [3, 4, 5], [6, 7]], 8)
    return corpus, LeaveOneOut().split(corpus).test


def test_a_negatives_file_is_read_by_raw_ids_in_any_order(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path
) -> None:
    path = tmp_path / "negatives.txt"
    path.write_text("u2 i0 i1\nu1 i7 i0\nu0 i5 i4\n")
    listed = read_candidates(path, *asked_of_two, "excluded")
    assert listed.name == "file-2"
    assert listed.negatives_QN.tolist() == [[5, 4], [7, 0]]


def test_a_negatives_file_may_begin_with_a_byte_order_mark(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path
) -> None:
    path = tmp_path / "negatives.txt"
    path.write_bytes(b"\xef\xbb\xbfu0 i5\r\nu1 i7\ru2\ti0")
    assert read_candidates(path, *asked_of_two, "excluded").negatives_QN.tolist() == [[5], [7]]


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\xa0", "\x0c"])
def test_only_line_ends_blanks_and_tabs_separate_the_ids_of_a_negatives_file(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path, character: str
) -> None:
    corpus, held_out = asked_of_two
    item_names = Names.from_strings([f"i{character}{item}" for item in range(8)])
    path = tmp_path / "negatives.txt"
    path.write_text(f"u0 i{character}5\nu1 i{character}7\n", encoding="utf-8")
    listed = read_candidates(path, replace(corpus, item_names=item_names), held_out, "excluded")
    assert listed.negatives_QN.tolist() == [[5], [7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u0 i5 i4\nu1 i7\n", r"line 2: 1 negatives, but the first line has 2"),
        ("u0 i5\nu1 i7 i6\n", r"line 2: 2 negatives, but the first line has 1"),
        ("u0\nu1\n", r"line 1: 0 negatives"),
        ("u0 i5 i4\n\nu1 i7 i6\n", r"line 2"),
        ("u0 i5\nu1 i7\n\n", r"line 3"),
        ("u0 i5\nv1 i7\n", r"line 2: 'v1' is not among"),
        ("u0 i5\nu1 j7\n", r"line 2: 'j7' is not among"),
        ("u0 i5\nu1 i7\nu0 i6\n", r"line 3.*u0"),
        ("u0 i5\n", r"no line for user u1"),
        ("", r"no line for user u0"),
    ],
)
def test_a_wrong_negatives_file_is_refused_with_its_line(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "negatives.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"negatives.txt.*{message}"):
        read_candidates(path, *asked_of_two, "excluded")


def test_a_negatives_file_that_cannot_be_read_is_refused(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"u0 i5\nu1 \xe9\n")
    for name, message in [
        ("absent.txt", "does not exist"),
        ("latin.txt", "not UTF-8"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=message):
            read_candidates(tmp_path / name, *asked_of_two, "excluded")


@pytest.mark.parametrize(
    "name",
    ["uniform", "uniform-", "uniform-0", "uniform-x", "uniform--5", "popular-10", "full-1", ""],
)
def test_a_candidate_set_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="allowed: full, uniform-N, popularity-N"):
        EvaluationConfig(candidates=("full", name))


def test_counts_for_popularity_are_those_of_the_training_part() -> None:
    corpus = corpus_of([[0, 1, 2], [1, 1, 1, 3, 0], [2, 2]], 4)
    split = LeaveOneOut().split(corpus)
    assert training_counts(corpus, split).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u0 i5 i5\nu1 i7 i0\n", "line 1: a negative is listed twice"),
        ("u0 i5 i2\nu1 i7 i0\n", "the held-out item of user u0 and of 0 others is among"),
    ],
)
def test_negatives_that_cannot_be_are_refused(
    asked_of_two: tuple[Corpus, HeldOut], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "negatives.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_candidates(path, *asked_of_two, "excluded")


SEEN_FILES = {
    # Of two users; the first three items of each are the history, the fourth is held out.
    "an old item": ("u0 i8 i9\nu1 i9 i4\n", 2, "i4", "u1", "1 of 4 (25%)"),
    "the validation item": ("u0 i2 i9\nu1 i8 i9\n", 1, "i2", "u0", "1 of 4 (25%)"),
    "the first line, not the first user": ("u1 i8 i5\nu0 i0 i1\n", 1, "i5", "u1", "3 of 4 (75%)"),
    "an item taken twice": ("u0 i8 i9\nu1 i8 i9\nu2 i6 i9\n", 3, "i6", "u2", "1 of 6 (16.7%)"),
}


def asked_for_file(users: int) -> tuple[Corpus, HeldOut]:
    histories = [[0, 1, 2, 3], [4, 5, 6, 7], [6, 6, 6, 1]][:users]
    corpus = corpus_of([*histories, [8, 9]], 10)
    return corpus, LeaveOneOut().split(corpus).test


@pytest.mark.parametrize("name", SEEN_FILES)
def test_negatives_from_the_history_are_refused_where_seen_items_are_excluded(
    tmp_path: Path, name: str
) -> None:
    text, line, item, user, share = SEEN_FILES[name]
    path = tmp_path / "negatives.txt"
    path.write_text(text)
    corpus, asked = asked_for_file(text.count("\n"))
    with pytest.raises(InputError) as caught:
        read_candidates(path, corpus, asked, "excluded")
    assert str(caught.value).startswith(
        f"{path}, line {line}: item {item} is in the history of user {user}, and {share} negatives "
        "are in their users' histories; "
    )
    assert "remove them from the file" in str(caught.value)
    assert "--seen kept" in str(caught.value)
    kept, zero = (read_candidates(path, corpus, asked, seen) for seen in ("kept", "zero"))
    assert kept.name == zero.name == "file-2-seen"
    assert kept.protocol["seen_candidates"] == share


def test_lines_of_users_who_are_not_evaluated_may_hold_their_items(tmp_path: Path) -> None:
    path = tmp_path / "negatives.txt"
    path.write_text("u2 i8 i9\nu0 i8 i9\nu1 i8 i9\n")
    listed = read_candidates(path, *asked_for_file(2), "excluded")
    assert listed.name == "file-2"
    assert "seen_candidates" not in listed.protocol


def test_seen_negatives_rank_like_any_other_where_seen_items_are_kept(tmp_path: Path) -> None:
    # Item 0 is in the history and scores highest; item 9 scores lowest.
    path = tmp_path / "negatives.txt"
    path.write_text("u0 i0 i9\n")
    corpus, asked = asked_for_file(1)
    listed = read_candidates(path, corpus, asked, "kept")
    tables = rank_tables(
        FixedScores([[float(10 - item) for item in range(10)]] * 2),
        corpus,
        asked,
        [listed],
        seen="kept",
        protocol={},
        counts_V=ones(corpus),
    )
    assert tables["file-2-seen"].rank.tolist() == [2.0]
    assert tables["file-2-seen"].protocol["seen_candidates"] == "1 of 2 (50%)"
    assert seen_notes(tables) == [
        "file-2-seen: 1 of 2 (50%) negatives are in their users' histories"
    ]


def test_two_files_of_a_size_have_two_names_where_one_has_seen_items(tmp_path: Path) -> None:
    # 100 users walk in a circle of 40 items, mostly to the next.
    draws = np.random.default_rng(3)
    steps = np.where(draws.random((100, 8)) < 0.8, 1, draws.integers(1, 40, (100, 8)))
    walks = (draws.integers(0, 40, (100, 1)) + steps.cumsum(1)) % 40
    corpus = corpus_of(walks.tolist(), 40)
    asked = LeaveOneOut().split(corpus).test
    free, half = [], []
    for user, walk in enumerate(walks.tolist()):
        others = [item for item in range(40) if item not in walk][:15]
        seen = [item for item in dict.fromkeys(walk[:-1]) if item != walk[-1]][:4]
        free.append(f"u{user} {' '.join(f'i{item}' for item in others)}")
        half.append(f"u{user} {' '.join(f'i{item}' for item in [*seen, *others][:15])}")
    names = []
    for number, lines in enumerate((free, half)):
        path = tmp_path / f"{number}.txt"
        path.write_text("\n".join(lines) + "\n")
        names.append(read_candidates(path, corpus, asked, "kept").name)
    assert names == ["file-15", "file-15-seen"]
    assert read_candidates(tmp_path / "0.txt", corpus, asked, "excluded").name == "file-15"
    with pytest.raises(InputError, match=r"1\.txt, line 1: item i\d+ is in the history of user u0"):
        read_candidates(tmp_path / "1.txt", corpus, asked, "excluded")


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
@pytest.mark.parametrize(
    "split",
    [LeaveOneOut(), UserHoldout(validation_share=0.3, test_share=0.3)],
    ids=["last", "users"],
)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_sampled_negative_is_in_the_history_under_any_split(
    kind: Literal["uniform", "popularity"], split: LeaveOneOut | UserHoldout, part: str
) -> None:
    corpus = many_users()
    parts = split.split(corpus)
    asked = parts.test if part == "test" else parts.validation
    drawn = sample_candidates(corpus, asked, kind, 25, torch.arange(40) + 1, 0).negatives_QN
    assert not is_in_history(corpus, asked, drawn.numpy()).any()
    for start, stop, row in zip(asked.histories.starts, asked.histories.stops, drawn.tolist()):
        assert not set(corpus.items[start:stop].tolist()) & set(row)
