"""ItemKNN and EASE against loops over lists written from their equations."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ease import EASEConfig
from baselines.item_knn import ItemKNNConfig
from research.data.corpus import Corpus
from research.data.splits import LeaveOneOut
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from tests.evaluation.reference_ranks import corpus_of, scores_of_all

V = 6
# Training parts under leave-one-out: 0 1, 0 1 2, 1 1 3 and, too short to be asked, 0. Users of the
# items are {A, B, D}, {A, B, C}, {B}, {C}; items 4 and 5 are held out everywhere.
HISTORIES = [[0, 1, 4, 5], [0, 1, 2, 5, 4], [1, 1, 3, 4, 5], [0]]
TRAINING = [[0, 1], [0, 1, 2], [1, 1, 3], [0]]


def scores_after(config: RankerConfig, corpus: Corpus, *histories: list[int]) -> torch.Tensor:
    ranker = config.build(corpus, LeaveOneOut().split(corpus))
    return scores_of_all(ranker, Packed.from_lists(histories))


def cosines(training: list[list[int]], num_items: int, shrinkage: float) -> list[list[float]]:
    """s_ij by sets of users, 0 on the diagonal."""
    users = [{u for u, items in enumerate(training) if i in items} for i in range(num_items)]
    return [
        [
            len(users[i] & users[j]) / (sqrt(len(users[i]) * len(users[j])) + shrinkage)
            if i != j and users[i] & users[j]
            else 0.0
            for j in range(num_items)
        ]
        for i in range(num_items)
    ]


def knn_scores(
    training: list[list[int]], num_items: int, config: ItemKNNConfig, history: list[int]
) -> list[float]:
    """Scores of one history, a candidate and an item of the history at a time."""
    similarities = cosines(training, num_items, config.shrinkage)
    ages = {item: age for age, item in reversed(list(enumerate(reversed(history))))}
    scores = []
    for j in range(num_items):
        nearest = sorted(range(num_items), key=lambda i: (-similarities[i][j], i))
        nearest = nearest[: config.neighbors]
        scores.append(
            sum(
                similarities[i][j] * config.decay**age
                for i, age in ages.items()
                if i in nearest and (config.newest is None or age < config.newest)
            )
        )
    return scores


def ease_weights(
    training: list[list[int]], num_items: int, regularization: float
) -> list[list[float]]:
    """B by the paper's problem itself: the ridge regression of each item on all other items.

    Column j minimises |X_j - X B_j|^2 + lambda |B_j|^2 with B_jj = 0, that is without item j among
    the inputs; the closed form is not used.
    """
    x = np.array([[float(i in items) for i in range(num_items)] for items in training])
    weights = np.zeros((num_items, num_items))
    for j in range(num_items):
        others = [i for i in range(num_items) if i != j]
        gram = x[:, others].T @ x[:, others] + regularization * np.eye(num_items - 1)
        weights[others, j] = np.linalg.solve(gram, x[:, others].T @ x[:, j])
    return weights.tolist()


def test_cosines_of_users_sets_are_summed() -> None:
    scores_SV = scores_after(ItemKNNConfig(), corpus_of(HISTORIES, V), [0], [2, 3], [3, 2, 3])
    # 0 and 1 share A and B of three users each; 2 has B alone, 3 has C alone.
    third, root = 2 / 3, 1 / sqrt(3)
    expected = torch.tensor(
        [
            [0.0, third, root, 0.0, 0.0, 0.0],
            [root, 2 * root, 0.0, 0.0, 0.0, 0.0],
            [root, 2 * root, 0.0, 0.0, 0.0, 0.0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(scores_SV, expected, rtol=1e-14, atol=0.0)


def test_shrinkage_is_added_to_the_denominator() -> None:
    scores_SV = scores_after(ItemKNNConfig(shrinkage=2.0), corpus_of(HISTORIES, V), [0])
    assert scores_SV[0, :3].tolist() == pytest.approx([0.0, 2 / 5, 1 / (sqrt(3) + 2)])


def test_a_neighborhood_is_of_the_candidate_and_ties_go_to_lower_numbers() -> None:
    corpus = corpus_of(HISTORIES, V)
    scores_SV = scores_after(ItemKNNConfig(neighbors=1), corpus, [0], [1], [2], [3])
    # The nearest of 0 is 1 (2/3 > root), of 1 it is 0, of 2 it is 0 (tied with 1), of 3 it is 1.
    third, root = 2 / 3, 1 / sqrt(3)
    assert scores_SV[0].tolist() == pytest.approx([0, third, root, 0, 0, 0])
    assert scores_SV[1].tolist() == pytest.approx([third, 0, 0, root, 0, 0])
    assert scores_SV[2:].tolist() == [[0.0] * V] * 2


def test_decay_and_newest_read_each_item_at_its_newest_place() -> None:
    corpus = corpus_of(HISTORIES, V)
    history = [0, 2, 0, 3]
    third, root = 2 / 3, 1 / sqrt(3)
    halved = scores_after(ItemKNNConfig(decay=0.5), corpus, history)[0]
    # Ages: 3 has 0, 0 has 1, 2 has 2.
    expected = [root / 4, root + third / 2 + root / 4, root / 2, 0, 0, 0]
    assert halved.tolist() == pytest.approx(expected)
    newest = scores_after(ItemKNNConfig(newest=2), corpus, history)[0]
    assert newest.tolist() == pytest.approx([0, root + third, root, 0, 0, 0])


def test_ease_of_two_items_is_the_ridge_regression_known_by_hand() -> None:
    # Users of item 0: two; of item 1: three; of both: one. B_01 = 1 / (2 + 4), B_10 = 1 / (3 + 4).
    corpus = corpus_of([[0, 1, 2, 2], [0, 2, 2], [1, 2, 2], [1, 2, 2]], 3)
    scores_SV = scores_after(EASEConfig(regularization=4.0), corpus, [0], [1], [0, 1, 0], [2])
    expected = [[0, 1 / 6, 0], [1 / 7, 0, 0], [1 / 7, 1 / 6, 0], [0, 0, 0]]
    torch.testing.assert_close(
        scores_SV, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-16
    )


corpora = st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=9), min_size=1, max_size=7)
asked = st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    corpora,
    asked,
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([1.0, 0.7]),
)
def test_item_knn_equals_loops_over_sets(
    histories: list[list[int]],
    asked: list[list[int]],
    neighbors: int,
    shrinkage: float,
    newest: int | None,
    decay: float,
) -> None:
    config = ItemKNNConfig(neighbors=neighbors, shrinkage=shrinkage, newest=newest, decay=decay)
    training = [history[:-2] for history in histories]
    scores_SV = scores_after(config, corpus_of(histories, 7), *asked)
    expected = [knn_scores(training, 7, config, history) for history in asked]
    torch.testing.assert_close(
        scores_SV, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0
    )


@settings(max_examples=60, deadline=None)
@given(corpora, asked, st.sampled_from([0.01, 1.0, 250.0]))
def test_ease_equals_a_regression_of_each_item_on_the_others(
    histories: list[list[int]], asked: list[list[int]], regularization: float
) -> None:
    config = EASEConfig(regularization=regularization)
    weights = ease_weights([history[:-2] for history in histories], 7, regularization)
    scores_SV = scores_after(config, corpus_of(histories, 7), *asked)
    expected = [[sum(weights[i][j] for i in set(history)) for j in range(7)] for history in asked]
    # The condition number is at most (7 + lambda) / lambda.
    torch.testing.assert_close(
        scores_SV, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11
    )
