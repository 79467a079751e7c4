"""Popularity, recent popularity and transitions against counts in dictionaries; and that every
ranker gives the same scores whether asked for all items or for some."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ease import EASEConfig
from baselines.item_knn import ItemKNNConfig
from baselines.popularity import PopularityConfig
from baselines.transitions import TransitionsConfig
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.splits import (
    AtTime,
    ByUsers,
    GlobalTemporal,
    LeaveOneOut,
    Ranges,
    TemporalCut,
    UserHoldout,
)
from research.errors import InputError
from research.evaluation.candidates import AllItems
from research.evaluation.popularity import counts_of_last_days
from research.evaluation.ranker import Ranker, RankerConfig
from research.evaluation.ranking import rank_tables
from research.model.transformer_config import TransformerConfig
from research.objectives.base import RankingObjective
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from tests.evaluation.reference_ranks import corpus_of, scores_of_all, transition_scores
from tests.support.synthetic import encoder_of

USERS = torch.tensor([0, 1])
# Training parts under leave-one-out: [0, 1, 0], [1, 0, 1, 2], [3, 3] and, too short to be asked,
# [2]. Items 4 and 5 are held out everywhere.
HISTORIES = [[0, 1, 0, 4, 5], [1, 0, 1, 2, 5, 4], [3, 3, 4, 5], [2]]


def scores_after(config: RankerConfig, corpus: Corpus, *histories: list[int]) -> torch.Tensor:
    ranker = config.build(corpus, LeaveOneOut().split(corpus))
    return scores_of_all(ranker, Packed.from_lists(histories))


def test_popularity_counts_training_interactions_only() -> None:
    scores_SV = scores_after(PopularityConfig(), corpus_of(HISTORIES, 6), [0], [5, 5])
    assert scores_SV.tolist() == [[3, 3, 2, 2, 0, 0]] * 2


def test_popularity_of_a_holdout_knows_nothing_of_held_out_users() -> None:
    corpus = corpus_of([[user % 7, (user * 3) % 7, 7 + user] for user in range(20)], 27)
    split = UserHoldout(validation_share=0.2, test_share=0.3).split(corpus)
    ranker = PopularityConfig().build(corpus, split)
    held_out = [*split.validation.histories.users, *split.test.histories.users]
    assert len(held_out) == 10
    scores_V = scores_of_all(ranker, Packed.from_lists([[0]]))[0]
    assert [float(scores_V[7 + user]) for user in range(20)] == [
        0.0 if user in held_out else 1.0 for user in range(20)
    ]


def test_recent_popularity_counts_the_newest_share_of_training_interactions() -> None:
    # Training times 1 to 8; the newest quarter are 7 and 8, of user 1.
    corpus = corpus_of(
        [[0, 1, 0, 1, 2, 2], [2, 2, 3, 0, 4, 4]], 5, [[1, 2, 3, 4, 90, 91], [5, 6, 7, 8, 92, 93]]
    )
    quarter = scores_after(PopularityConfig(newest_share=0.25), corpus, [0])
    half = scores_after(PopularityConfig(newest_share=0.5), corpus, [0])
    everything = scores_after(PopularityConfig(newest_share=1.0), corpus, [0])
    assert quarter.tolist() == [[1, 0, 0, 1, 0]]
    assert half.tolist() == [[1, 0, 2, 1, 0]]
    assert everything.tolist() == [[3, 2, 2, 1, 0]]


def test_interactions_at_the_moment_of_the_cut_are_recent_too() -> None:
    corpus = corpus_of([[0, 1, 2, 3, 4, 4]], 5, [[1, 5, 5, 5, 9, 9]])
    recent = scores_after(PopularityConfig(newest_share=0.3), corpus, [0])
    assert recent.tolist() == [[0, 1, 1, 1, 0]]


DAY = 86_400
MAY_2014 = 1_398_902_400


def days_of_may(*days: list[int]) -> list[list[int]]:
    return [[MAY_2014 + day * DAY for day in row] for row in days]


@pytest.mark.parametrize(
    ("days", "counts"),
    [
        # Training ends on day 9; of whole days the last two are 8 and 9.
        (1.0, [0, 0, 0, 1, 0]),
        (2.0, [1, 0, 0, 1, 0]),
        (7.0, [2, 0, 1, 1, 0]),
        (7.5, [2, 1, 1, 1, 0]),
        (365.0, [2, 2, 2, 1, 0]),
    ],
)
def test_popularity_of_the_last_days_by_hand(days: float, counts: list[int]) -> None:
    corpus = corpus_of(
        [[0, 1, 0, 1, 2, 2], [2, 2, 3, 0, 4, 4]], 5,
        days_of_may([5, 2, 8, 1, 20, 21], [0, 7, 9, 10, 22, 23]),
    )  # fmt: skip
    training = Ranges(np.array([0, 1]), np.array([0, 6]), np.array([4, 9]))
    assert counts_of_last_days(corpus, training, days).tolist() == counts


def test_popularity_of_the_last_days_knows_nothing_after_a_cut() -> None:
    corpus = corpus_of(
        [[0, 1, 4], [2, 2, 3, 4], [4, 4]], 5, days_of_may([0, 8, 11], [2, 7, 9, 12], [13, 14])
    )
    split = TemporalCut(cut=AtTime(time="2014-05-10"), validation=ByUsers(users=1)).split(corpus)
    counts = np.zeros(5)
    for user, start, stop in zip(*vars(split.training).values(), strict=True):
        for place in range(start, stop):
            assert corpus.timestamps is not None
            newest = max(corpus.timestamps[split.training.stops - 1])
            counts[corpus.items[place]] += corpus.timestamps[place] > newest - 7 * DAY
        assert user in (0, 1)
    ranker = PopularityConfig(newest_days=7.0).build(corpus, split)
    assert scores_of_all(ranker, Packed.from_lists([[0]]))[0].tolist() == counts.tolist()
    assert counts[4] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"newest_days": 0.0}, "ranker.newest_days is 0.0; it must be above 0"),
        ({"newest_days": float("inf")}, "PopularityConfig.newest_days is inf; allowed: a finite"),
        (
            {"newest_days": 7.0, "newest_share": 0.5},
            "ranker has newest_share and newest_days; give one of them",
        ),
        ({"newest_share": 0.0}, "ranker.newest_share is 0.0; it must be above 0 and at most 1"),
        ({"newest_share": -0.1}, "ranker.newest_share is -0.1; it must be above 0 and at most 1"),
        ({"newest_share": 1.1}, "ranker.newest_share is 1.1; it must be above 0 and at most 1"),
        ({"newest_share": float("nan")}, "PopularityConfig.newest_share is nan; allowed"),
    ],
)
def test_days_and_shares_that_make_no_sense_are_refused(
    fields: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        PopularityConfig(**fields)
    assert str(caught.value).startswith(message)


def test_days_need_times_that_have_days() -> None:
    ranker = PopularityConfig(newest_days=7.0)
    plain, timed = corpus_of([[0, 1, 2]], 3), corpus_of([[0, 1, 2]], 3, [[1, 2, 3]])
    with pytest.raises(InputError, match="no timestamps"):
        ranker.build(plain, LeaveOneOut().split(plain))
    with pytest.raises(InputError, match=r"ranker\.newest_days is 7.0, but the times of corpus"):
        ranker.build(timed, LeaveOneOut().split(timed))


def test_recent_popularity_needs_timestamps() -> None:
    corpus = corpus_of(HISTORIES, 6)
    with pytest.raises(InputError, match="tiny has no timestamps"):
        PopularityConfig(newest_share=0.5).build(corpus, LeaveOneOut().split(corpus))


def test_transitions_rank_what_followed_the_newest_item_most_often() -> None:
    # In training 1 was followed by 0 twice and by 2 once; popularity is 3, 3, 2, 2, 0, 0.
    scores_V = scores_after(TransitionsConfig(), corpus_of(HISTORIES, 6), [3, 3, 1])[0]
    assert torch.argsort(scores_V, descending=True, stable=True).tolist() == [0, 2, 1, 3, 4, 5]


def test_transitions_do_not_cross_from_one_user_to_the_next() -> None:
    corpus = corpus_of([[0, 1, 4, 4], [2, 3, 4, 4], [1, 1, 4, 4]], 5)
    scores_V = scores_after(TransitionsConfig(), corpus, [1])[0]
    # 1 followed 1 once; 2 stands after user 0's 1 in memory only.
    assert scores_V[1] > 1.0
    assert (scores_V[[0, 2, 3, 4]] < 1.0).all()


def test_transitions_into_held_out_items_are_not_counted() -> None:
    corpus = corpus_of([[0, 1, 2, 3], [1, 0, 2, 3]], 4)
    scores_V = scores_after(TransitionsConfig(), corpus, [1])[0]
    # 1 -> 2 ends in a validation item, 2 -> 3 in a test item; only 1 -> 0 is training.
    assert torch.argsort(scores_V, descending=True, stable=True).tolist() == [0, 1, 2, 3]
    assert scores_V[[2, 3]].tolist() == [0.0, 0.0]


def order_of(values: list[float] | list[tuple[int, int]]) -> list[int]:
    """The dense place of each value from the lowest, so that two rankings can be compared."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=9), min_size=1, max_size=6),
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
)
def test_transitions_equal_counts_in_dictionaries_with_ties_broken_by_popularity(
    histories: list[list[int]], asked: list[int]
) -> None:
    corpus = corpus_of(histories, 7)
    training = [history[:-2] for history in histories]
    scores_SV = scores_after(TransitionsConfig(), corpus, *([0, item] for item in asked))
    for row, newest in zip(scores_SV.tolist(), asked):
        assert order_of(row) == order_of(transition_scores(training, 7, newest))


COUNTING = [PopularityConfig(), TransitionsConfig(), ItemKNNConfig(), EASEConfig()]


def temporal_corpus() -> Corpus:
    draws = np.random.default_rng(3)
    histories = [draws.integers(0, 9, 8).tolist() for _ in range(6)]
    times = [np.sort(draws.integers(0, 99, 8)).tolist() for _ in range(6)]
    return corpus_of(histories, 9, times)


@pytest.mark.parametrize("config", COUNTING)
def test_ranking_does_not_spoil_a_rankers_counts(config: RankerConfig) -> None:
    corpus = temporal_corpus()
    split = GlobalTemporal().split(corpus)
    ranker = config.build(corpus, split)
    first, again = (
        rank_tables(
            ranker,
            corpus,
            split.test,
            [AllItems()],
            seen="excluded",
            protocol={},
            counts_V=torch.zeros(corpus.num_items),
        )
        for _ in range(2)
    )
    assert first["full"].rank.tolist() == again["full"].rank.tolist()


SMALL = TransformerConfig(length=4, width=6, layers=1, heads=2, feed_forward=8)
HEADS = [
    HeadConfig(),
    HeadConfig(table="own"),
    HeadConfig(bias=True),
    HeadConfig(transform="nonlinear", bias=True),
]


def trained(config: NextItemConfig | ClozeConfig, corpus: Corpus) -> TrainedRanker:
    """A pair with random weights and biases, in float64."""
    encoder = encoder_of(SMALL, corpus.num_items, seed=1).double()
    catalogue = Catalogue.of(corpus, LeaveOneOut().split(corpus))
    objective = config.build(ModelComponents(SMALL, catalogue, 1), 1).double()
    with torch.no_grad():
        for part in (encoder, objective):
            for place, parameter in enumerate(part.parameters()):
                draws = torch.Generator().manual_seed(place)
                parameter.copy_(torch.rand(parameter.shape, generator=draws) - 0.5)
    assert isinstance(objective, RankingObjective)
    return TrainedRanker(encoder, objective)


def rankers(corpus: Corpus) -> dict[str, Ranker]:
    split = LeaveOneOut().split(corpus)
    made: dict[str, Ranker] = {
        "popularity": PopularityConfig().build(corpus, split),
        "transitions": TransitionsConfig().build(corpus, split),
        "item-knn": ItemKNNConfig(newest=5, decay=0.9).build(corpus, split),
        "ease": EASEConfig(regularization=1.0).build(corpus, split),
    }
    for place, head in enumerate(HEADS):
        made[f"next {place}"] = trained(NextItemConfig(head=head), corpus)
        made[f"cloze {place}"] = trained(ClozeConfig(head=head), corpus)
    return made


NAMES = ["popularity", "transitions", "item-knn", "ease"]
NAMES += [f"{kind} {place}" for kind in ("next", "cloze") for place in range(len(HEADS))]


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_candidates_are_the_scores_of_those_items(name: str) -> None:
    corpus = temporal_corpus()
    ranker = rankers(corpus)[name]
    # One history longer than the encoder reads; repeated candidates are allowed.
    histories = Packed.from_lists([[1, 2, 3, 4, 5, 6, 7], [8]])
    items_SN = torch.tensor([[0, 8, 3, 3], [7, 1, 2, 0]])
    encoded = ranker.encode(histories, USERS)
    scores_SV = encoded.scores(0, encoded.columns)
    scores_SN = encoded.scores_of(items_SN)
    assert scores_SV.shape == (2, 9)
    assert scores_SN.shape == (2, 4)
    # Sums of six products in float64, in another order.
    torch.testing.assert_close(scores_SN, scores_SV.gather(1, items_SN), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_a_history_do_not_depend_on_the_other_histories(name: str) -> None:
    corpus = temporal_corpus()
    ranker = rankers(corpus)[name]
    together = scores_of_all(ranker, Packed.from_lists([[1, 2, 3, 4, 5, 6], [8], [3, 3]]))
    alone = scores_of_all(ranker, Packed.from_lists([[8]]), torch.tensor([1]))
    # Padding may change the order of float64 sums.
    torch.testing.assert_close(together[1:2], alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("config", [NextItemConfig(), ClozeConfig()])
def test_a_trained_pair_ranks_without_dropout_and_goes_back_to_training(
    config: NextItemConfig | ClozeConfig,
) -> None:
    ranker = trained(config, temporal_corpus())
    ranker.encoder.train()
    ranker.objective.train()
    histories = Packed.from_lists([[1, 2, 3]])
    first, again = (scores_of_all(ranker, histories) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert ranker.encoder.training
    assert ranker.objective.training


@pytest.mark.parametrize("config", [NextItemConfig(), ClozeConfig()])
def test_scores_of_a_trained_pair_carry_no_graph(config: NextItemConfig | ClozeConfig) -> None:
    ranker = trained(config, temporal_corpus())
    histories = Packed.from_lists([[1, 2, 3]])
    encoded = ranker.encode(histories, USERS[:1])
    assert not encoded.scores(0, 9).requires_grad
    assert not encoded.scores_of(torch.tensor([[0, 1]])).requires_grad
    assert not encoded.largest_S.requires_grad
