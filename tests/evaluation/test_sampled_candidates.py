"""Sampled candidates: equal to the loop, and with the chances of drawing without replacement."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Literal

import numpy as np
import pytest
import torch

from research.data.corpus import Corpus
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.evaluation import sampled_candidates
from research.evaluation.sampled_candidates import is_first_of_row, sample_candidates
from research.randomness import seed_of
from tests.evaluation.reference_ranks import corpus_of, sampled_negatives
from tests.support.reference import random_bits

Distribution = Literal["uniform", "popularity"]


def drawn(
    corpus: Corpus, distribution: Distribution, number: int, counts: list[int], *purpose: int | str
) -> list[list[int]]:
    asked = LeaveOneOut().split(corpus).test
    counts_V = torch.tensor(counts)
    listed = sample_candidates(corpus, asked, distribution, number, counts_V, *purpose)
    return listed.negatives_QN.tolist()


def many_users() -> Corpus:
    """60 users with 3 to 20 of 40 items, some of them twice."""
    draws = np.random.default_rng(4)
    return corpus_of(
        [draws.integers(0, 40, size).tolist() for size in draws.integers(3, 21, 60)], 40
    )


# Popularity falls from 3,000 to 1, and one item has no training interaction: where all but a few
# items are asked for, the rare ones are not met among the draws.
COUNTS = [0, *(3000 // (item * item) for item in range(1, 40))]


def drawing_by(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Let all negatives be drawn by "draws" first, or by "waits" at once."""
    monkeypatch.setattr(sampled_candidates, "draws_are_cheaper", lambda *_: way == "draws")


WAYS = pytest.mark.parametrize("way", ["draws", "waits"])


@WAYS
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("number", [1, 2, 7, 19])
def test_negatives_equal_the_loop(
    distribution: Distribution, number: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing_by(monkeypatch, way)
    corpus = many_users()
    negatives = drawn(corpus, distribution, number, COUNTS, 3, "test")
    weights = COUNTS if distribution == "popularity" else [1] * 40
    state = seed_of("candidates", distribution, 3, "test")
    for user in range(60):
        history = corpus.items[corpus.offsets[user] : corpus.offsets[user + 1]].tolist()
        stream = random_bits(random_bits(state, user), history[-1])
        assert negatives[user] == sampled_negatives(
            stream, weights, history, number, rejects=way == "draws"
        )


@pytest.mark.parametrize(
    ("weights", "number", "cheaper"),
    [
        # 12 of 100 items take 12 draws and more, which cost what waits of 100 do.
        ([1] * 100, 12, False),
        ([1] * 100, 11, True),
        # 100 draws, as many as 800 waits, give 94 items, and fewer where popularity is steep.
        ([1] * 800, 90, True),
        ([10_000 // (item + 1) for item in range(800)], 90, False),
        ([10_000 // (item + 1) for item in range(800)], 50, True),
        # One item has nearly all interactions.
        ([10**6, *[1] * 9999], 10, False),
        ([0] * 100, 1, False),
    ],
)
def test_draws_are_cheaper_where_few_are_rejected(
    weights: list[int], number: int, cheaper: bool
) -> None:
    assert sampled_candidates.draws_are_cheaper(torch.tensor(weights), number) is cheaper


def test_all_that_is_left_is_drawn_by_waiting_times_where_draws_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing_by(monkeypatch, "draws")
    # Item 0 has all but 10 of 10,010 interactions and is the held-out item: 8 x 4 + 64 draws find
    # hardly any other one.
    corpus = corpus_of([[5, 6, 0]], 7)
    (negatives,) = drawn(corpus, "popularity", 4, [10_000, 4, 3, 2, 1, 9, 9])
    assert sorted(negatives) == [1, 2, 3, 4]


def order_chances(weights: dict[int, int], number: int) -> dict[tuple[int, ...], float]:
    """By order, the chance that items are drawn in it one after another without replacement."""
    chances = {}
    for order in permutations(weights, number):
        left, chance = sum(weights.values()), 1.0
        for item in order:
            chance *= weights[item] / left
            left -= weights[item]
        chances[order] = chance
    return chances


@pytest.mark.parametrize(
    ("distribution", "counts"),
    [
        ("uniform", [1, 2, 3, 4, 5, 6]),
        ("popularity", [1, 2, 3, 4, 5, 6]),
        # Of 80 draws for two negatives 1.3 are expected outside the history: a part of the
        # questions gets both, one or none of them from waiting times.
        ("popularity", [1, 2, 3, 4, 300, 300]),
    ],
    ids=["uniform", "popularity", "popular history"],
)
@WAYS
def test_orders_have_the_chances_of_drawing_without_replacement(
    distribution: Distribution, counts: list[int], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing_by(monkeypatch, way)
    # 11 degrees of freedom: 37.4 is exceeded with probability 1e-4.
    corpus = corpus_of([[4, 5, 4]] * 6000, 6)
    orders = Counter(tuple(row) for row in drawn(corpus, distribution, 2, counts, 1))
    allowed = {item: counts[item] if distribution == "popularity" else 1 for item in range(4)}
    expected = {order: 6000 * chance for order, chance in order_chances(allowed, 2).items()}
    assert orders.keys() <= expected.keys()
    assert sum((orders[order] - mean) ** 2 / mean for order, mean in expected.items()) < 37.4


def test_some_questions_of_a_popular_history_need_waiting_times_and_some_do_not() -> None:
    # What the test above relies on.
    weights_V = torch.tensor([1, 2, 3, 4, 300, 300])
    streams_Q = torch.arange(200) * 12345
    excluded = (torch.arange(200)[:, None] * 6 + torch.tensor([4, 5])).flatten()
    drawn_QN = sampled_candidates.drawn_by_rejection(streams_Q, excluded, weights_V, 2)
    assert {0, 1, 2} == set((drawn_QN >= 0).sum(1).tolist())


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("number", [1, 7, 19])
@WAYS
def test_negatives_do_not_depend_on_how_questions_are_cut_into_chunks(
    distribution: Distribution, number: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing_by(monkeypatch, way)
    corpus = many_users()
    together = drawn(corpus, distribution, number, COUNTS, 3)
    for name in ("_DRAWS", "_WAITS"):
        monkeypatch.setattr(sampled_candidates, name, 3 * 40)
    assert drawn(corpus, distribution, number, COUNTS, 3) == together
    monkeypatch.setattr(sampled_candidates, "HISTORIES", 1)
    assert drawn(corpus, distribution, number, COUNTS, 3) == together


def test_an_item_without_training_interactions_is_not_drawn() -> None:
    corpus = corpus_of([[0, 1, 2]] * 300, 8)
    rows = drawn(corpus, "popularity", 2, [5, 5, 5, 0, 2, 0, 1, 1])
    assert {item for row in rows for item in row} == {4, 6, 7}


def test_a_corpus_without_training_interactions_has_no_popular_negatives() -> None:
    with pytest.raises(InputError, match="for user u0 only 0 items can be drawn"):
        drawn(corpus_of([[0, 1, 2]], 6), "popularity", 2, [0] * 6)


def test_the_user_for_whom_too_few_items_are_left_is_named() -> None:
    corpus = corpus_of([[0, 1, 2], [0, 1, 2, 3, 4], [5, 6, 7]], 8)
    with pytest.raises(InputError, match=r"uniform-4 .* for user u1 only 3 items can be drawn"):
        drawn(corpus, "uniform", 4, [1] * 8)


def test_the_protocol_says_how_negatives_were_drawn() -> None:
    corpus = corpus_of([[0, 1, 2]], 8)
    listed = sample_candidates(
        corpus, LeaveOneOut().split(corpus).test, "uniform", 2, torch.ones(8).long()
    )
    assert listed.protocol == {"candidates": "uniform-2", "draw": "rejection or waiting"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([[3, 1, 3, 3, 0, 1]], [[True, True, False, False, True, False]]),
        ([[0], [0]], [[True], [True]]),
        ([[2, 2], [2, 0]], [[True, False], [True, True]]),
    ],
)
def test_the_first_of_equal_items_of_a_row_is_found(
    items: list[list[int]], expected: list[list[bool]]
) -> None:
    assert is_first_of_row(torch.tensor(items)).tolist() == expected
