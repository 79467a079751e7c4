"""ItemKNN and EASE against loops over lists written from their equations."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import baselines.ease
import baselines.item_knn
import sixfold as sf
from baselines.ease import EASEConfig, check_memory, memory_of_machine
from baselines.item_knn import ItemKNNConfig
from research.config import from_json, hash_of, to_json
from research.data.corpus import Corpus
from research.data.splits import GlobalTemporal, LeaveOneOut, UserHoldout, flat_indices
from research.errors import InputError
from research.evaluation.metrics import metrics
from research.evaluation.ranker import RankerConfig
from research.packed import Packed
from research.runs.audit import audit_run
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from tests.evaluation.reference_ranks import corpus_of, scores_of_all
from tests.support.small_runs import QUIET, corpus_in

V = 6
# Training parts under leave-one-out: 0 1, 0 1 2, 1 1 3 and, too short to be asked, 0. Users of the
# items are {A, B, D}, {A, B, C}, {B}, {C}; items 4 and 5 are held out everywhere.
HISTORIES = [[0, 1, 4, 5], [0, 1, 2, 5, 4], [1, 1, 3, 4, 5], [0]]


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


CONFIGS = [
    pytest.param(ItemKNNConfig(shrinkage=0.5, decay=0.9), id="item-knn"),
    pytest.param(EASEConfig(regularization=2.0), id="ease"),
]
SPLITS = [
    LeaveOneOut(),
    UserHoldout(validation_share=0.25, test_share=0.25),
    GlobalTemporal(validation_share=0.25, test_share=0.25),
]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: type(split).__name__)
@pytest.mark.parametrize("config", CONFIGS)
def test_held_out_interactions_change_no_weight(
    config: RankerConfig, split: LeaveOneOut | UserHoldout | GlobalTemporal
) -> None:
    histories = [[(user + place) % 7 for place in range(5)] for user in range(8)]
    times = [[10 * place + user for place in range(5)] for user in range(8)]
    corpus = corpus_of(histories, 7, times)
    parts = split.split(corpus)
    training = flat_indices(parts.training)
    changed = corpus.items.copy()
    held_out = np.setdiff1d(np.arange(len(changed)), training)
    assert len(held_out) >= 10
    changed[held_out] = 6 - changed[held_out]
    asked = Packed.from_lists([[0], [1, 2], [6]])
    before, after = (
        scores_of_all(config.build(each, parts), asked)
        for each in (corpus, replace(corpus, items=changed))
    )
    assert before.any()
    assert torch.equal(before, after)


@pytest.mark.parametrize("config", CONFIGS)
def test_empty_histories_and_strangers_are_scored_like_anybody(config: RankerConfig) -> None:
    corpus = corpus_of(HISTORIES, V)
    ranker = config.build(corpus, LeaveOneOut().split(corpus))
    histories = Packed.from_lists([[], [0, 2], []])
    scores_SV = scores_of_all(ranker, histories, torch.tensor([-1, -1, 2]))
    assert scores_SV[[0, 2]].tolist() == [[0.0] * V] * 2
    assert torch.equal(scores_SV[1:2], scores_after(config, corpus, [0, 2]))
    nobody = ranker.encode(Packed.from_lists([]), torch.empty(0, dtype=torch.int64))
    assert nobody.scores(0, V).shape == (0, V)
    assert nobody.scores_of(torch.empty(0, 3, dtype=torch.int64)).shape == (0, 3)
    assert nobody.largest_S.shape == (0,)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_catalogue_of_one_item_has_no_weights(config: RankerConfig) -> None:
    assert scores_after(config, corpus_of([[0, 0, 0, 0]], 1), [0, 0], []).tolist() == [[0], [0]]


@pytest.mark.parametrize("config", CONFIGS)
def test_items_of_the_same_users_that_no_rounding_tells_apart_tie(config: RankerConfig) -> None:
    # Items 4 and 5 have no training user; they tie at 0 with each other.
    corpus = corpus_of(HISTORIES, V)
    scores_SV = scores_after(config, corpus, [0, 1], [2, 3])
    assert scores_SV[:, 4:].tolist() == [[0.0, 0.0]] * 2
    if isinstance(config, ItemKNNConfig):
        # 2 and 3 have one user each; before 1, whose users are as many in common with either.
        after_one = scores_after(config, corpus, [1])[0]
        assert after_one[2] == after_one[3] > 0


@pytest.mark.parametrize("module", [baselines.item_knn, baselines.ease])
@pytest.mark.parametrize("config", CONFIGS)
def test_tiles_change_nothing(
    config: RankerConfig, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [[(3 * user + place * place) % 11 for place in range(6)] for user in range(9)]
    asked = [[1, 2, 3], [5], [9, 0]]
    whole = scores_after(config, corpus_of(histories, 11), *asked)
    assert whole.any()
    for tile in (1, 33, 40):
        monkeypatch.setattr(module, "TILE", tile)
        assert torch.equal(scores_after(config, corpus_of(histories, 11), *asked), whole)


@pytest.mark.parametrize("config", CONFIGS)
def test_tiles_of_scores_are_parts_of_all_and_within_the_bound(config: RankerConfig) -> None:
    corpus = corpus_of(HISTORIES, V)
    ranker = config.build(corpus, LeaveOneOut().split(corpus))
    encoded = ranker.encode(Packed.from_lists([[0, 1, 0], [], [3, 2]]), torch.tensor([0, -1, 1]))
    scores_SV = encoded.scores(0, V)
    assert encoded.columns == V
    assert (encoded.largest_S + 1e-12 >= scores_SV.abs().amax(1)).all()
    for first, last in ((0, 2), (1, 6), (5, 6)):
        tile = encoded.scores(first, last)
        assert torch.equal(tile, scores_SV[:, first:last])
        # The caller may write into it.
        tile.fill_(-torch.inf)
    assert torch.equal(encoded.scores(0, V), scores_SV)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_ranker_is_pickled_and_its_config_stored(config: RankerConfig) -> None:
    corpus = corpus_of(HISTORIES, V)
    ranker = config.build(corpus, LeaveOneOut().split(corpus))
    asked = Packed.from_lists([[0, 1], [3]])
    again = pickle.loads(pickle.dumps(ranker))
    assert torch.equal(scores_of_all(again, asked), scores_of_all(ranker, asked))
    run = RunConfig(ranker=config)
    assert from_json(to_json(run), RunConfig) == run
    assert hash_of(run) != hash_of(RunConfig(ranker=type(config)()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ItemKNNConfig(neighbors=0), "ranker.neighbors is 0; it must be at least 1"),
        (lambda: ItemKNNConfig(newest=0), "ranker.newest is 0; it must be at least 1"),
        (lambda: ItemKNNConfig(shrinkage=-1.0), r"ranker.shrinkage is -1.0; it must be 0 or more"),
        (lambda: ItemKNNConfig(shrinkage=float("nan")), "ItemKNNConfig.shrinkage is nan; "),
        (lambda: ItemKNNConfig(decay=0.0), "ranker.decay is 0.0; .* above 0 and at most 1"),
        (lambda: ItemKNNConfig(decay=1.5), "ranker.decay is 1.5; .* above 0 and at most 1"),
        (lambda: EASEConfig(regularization=0.0), "ranker.regularization is 0.0; .* above 0"),
        (lambda: EASEConfig(regularization=float("inf")), "EASEConfig.regularization is inf; "),
    ],
)
def test_values_that_make_no_sense_are_refused(
    make: Callable[[], RankerConfig], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_ease_says_how_much_memory_it_lacks() -> None:
    check_memory(12_101, 1_171_473_608)
    with pytest.raises(InputError, match=r"12,101 items, 1.2 GB; .* has 1.2 GB. Use ItemKNN, or"):
        check_memory(12_101, 1_171_473_607)
    check_memory(46_340, 1 << 40)
    with pytest.raises(InputError, match=r"46,341 items, 17.2 GB; possible are 46,340 items, and"):
        check_memory(46_341, 1 << 40)
    assert memory_of_machine() > 1 << 28


def test_ease_refuses_a_lambda_that_rounding_swallows() -> None:
    # Items 0 and 1 have the same user, so that without lambda there is no inverse.
    corpus = corpus_of([[0, 1, 2, 2]], 3)
    with pytest.raises(InputError, match=r"regularization is 1e-30, too small"):
        EASEConfig(regularization=1e-30).build(corpus, LeaveOneOut().split(corpus))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_run_validates_tests_and_is_loaded_to_recommend(
    config: RankerConfig, tmp_path: Path
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    run = RunConfig(corpus=str(corpus.folder), ranker=config)
    summary = execute(run, tmp_path / "run", options=QUIET)
    assert summary.val.keys() == summary.test["full"].keys()
    # The chain of items is no secret to pairs of items.
    assert summary.test["full"]["hr@5"] > 0.5
    parts, ranker = load_run(tmp_path / "run", "data")
    again = metrics(parts.tables(ranker, "test")["full"], ("ndcg@10",))
    assert again["ndcg@10"] == summary.test["full"]["ndcg@10"]
    problems = [
        each.check for each in audit_run(tmp_path / "run", "data") if each.level == "problem"
    ]
    # Histories go round the chain; nothing but that is found.
    assert problems == ["targets in the history, validation"]
    frame = sf.load(tmp_path / "run").recommend(histories=[["i1"], []], k=3)
    assert frame["ranked_by"].tolist() == ["run"] * 3 + ["popularity"] * 3
