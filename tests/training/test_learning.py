"""Every objective learns what is planted, and where nothing is planted none pretends to.

Ranking objectives: the next item follows from the last. AAP, MAP, MIP and SP: users keep to one of
six tastes, a taste is ten items and an attribute that they share.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.popularity import PopularityConfig
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.model.backbone import BackboneConfig
from research.model.caser import CaserConfig
from research.model.gru import GRUConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.losses import BinaryCrossEntropy, SampledSoftmax
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import CutSegment, SPConfig
from research.randomness import fold
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import OptimizerConfig
from tests.support.synthetic import batch_of, catalogue_of

EVALUATION = EvaluationConfig(metrics=("hr@1", "hr@10"))
TRANSFORMER = TransformerConfig(
    length=12, width=32, layers=1, heads=1, feed_forward=32,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
RECURRENT = GRUConfig(length=12, width=32, hidden_width=32, embedding_dropout=0.0)
CONVOLUTIONAL = CaserConfig(length=12, width=32, dropout=0.0)
TASTES, ITEMS_A_TASTE, LENGTH = 6, 10, 8


def hit_rate(corpus: Corpus, path: Path, config: RunConfig) -> float:
    """HR@1 on the test items, among all items."""
    summary = execute(config, path, options=RunOptions(quiet=True))
    return summary.test["full"]["hr@1"]


def trained(
    corpus: Corpus, objective: ObjectiveConfig, epochs: int, encoder: BackboneConfig
) -> RunConfig:
    return RunConfig(
        corpus=str(corpus.folder),
        encoder=encoder,
        stages=(
            StageConfig(
                objectives={"only": objective},
                batches=BatchConfig(sequences_per_batch=32),
                epochs=epochs,
                optimizer=OptimizerConfig(lr=0.01),
                validation=None,
            ),
        ),
        evaluation=EVALUATION,
    )


def test_popularity_knows_next_to_nothing_here(markov_corpus: Corpus, tmp_path: Path) -> None:
    config = RunConfig(
        corpus=str(markov_corpus.folder), ranker=PopularityConfig(), evaluation=EVALUATION
    )
    assert hit_rate(markov_corpus, tmp_path, config) < 0.1


# Nine of ten steps follow the chain, so that a perfect ranker hits about 0.9; half of that is five
# times what popularity may reach above.
@pytest.mark.parametrize(
    ("encoder", "objective", "epochs"),
    [
        (TRANSFORMER, NextItemConfig(), 10),
        pytest.param(
            TRANSFORMER,
            NextItemConfig(loss=BinaryCrossEntropy(number=4)),
            20,
            marks=pytest.mark.long,
        ),
        pytest.param(
            TRANSFORMER, NextItemConfig(loss=SampledSoftmax(number=16)), 10, marks=pytest.mark.long
        ),
        pytest.param(
            TRANSFORMER,
            ClozeConfig(corruption=MaskItems(rate=0.3, mask_last_share=0.5)),
            30,
            marks=pytest.mark.long,
        ),
        pytest.param(RECURRENT, NextItemConfig(), 10, marks=pytest.mark.long),
        pytest.param(CONVOLUTIONAL, NextItemConfig(), 10, marks=pytest.mark.long),
    ],
    ids=[
        "next",
        "next by BCE",
        "next by sampled softmax",
        "cloze",
        "next by GRU4Rec",
        "next by Caser",
    ],
)
def test_an_objective_learns_the_chain(
    markov_corpus: Corpus,
    tmp_path: Path,
    encoder: BackboneConfig,
    objective: ObjectiveConfig,
    epochs: int,
) -> None:
    config = trained(markov_corpus, objective, epochs, encoder)
    assert hit_rate(markov_corpus, tmp_path, config) > 0.5


def users_with_taste(num_users: int, seed: int, *, planted: bool = True) -> list[list[int]]:
    """Histories whose items are all of one taste, or of all of them where nothing is planted."""
    draws = np.random.default_rng(seed)
    num_items = TASTES * ITEMS_A_TASTE
    histories = []
    for _ in range(num_users):
        first = draws.integers(TASTES) * ITEMS_A_TASTE if planted else 0
        size = ITEMS_A_TASTE if planted else num_items
        histories.append((first + draws.integers(size, size=LENGTH)).tolist())
    return histories


def catalogue_with_taste(histories: list[list[int]]) -> Catalogue:
    """Item v has the one attribute v // 10, the taste that it belongs to."""
    num_items = TASTES * ITEMS_A_TASTE
    attributes = [[item // ITEMS_A_TASTE] for item in range(num_items)]
    return catalogue_of(histories, num_items, attributes=attributes, num_attributes=TASTES)


def accuracy_on_new_users(config: ObjectiveConfig, *, planted: bool, steps: int = 160) -> float:
    """The objective's accuracy on 400 users whom it has not seen, trained on 100 others."""
    rows = users_with_taste(100, 1, planted=planted)
    catalogue = catalogue_with_taste(rows)
    sizes = TransformerConfig(
        length=LENGTH, width=16, layers=1, heads=1, feed_forward=32,
        embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    shared = ModelComponents(sizes, catalogue, 0)
    objective = config.build(shared, 0)
    model = MultiObjectiveModel(shared.encoder, {"only": objective}, catalogue)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        states = fold(step, torch.arange(len(rows)))
        loss = model.losses(batch_of(rows, length=LENGTH, states=states))["only"]
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    # Foreign segments, too, are then of users who were not trained on.
    fresh = users_with_taste(400, 2, planted=planted)
    batch = batch_of(fresh, length=LENGTH)
    new = catalogue_with_taste(fresh)
    view = objective.corruption.view(batch, new)
    targets = objective.targets(view, batch, new)
    with torch.no_grad():
        states_PD = shared.encoder(view.packed, causal=False, read_P=targets.read_P)
        share = objective.accuracy(targets, states_PD, shared.encoder.item_table)
    assert share is not None
    return (share.correct / share.count).item()


MASKS = MaskItems(rate=0.3)


@pytest.mark.parametrize("planted", [True, False])
def test_aap_learns_the_attributes_of_items_in_sight(planted: bool) -> None:
    # They hang on the item alone, whatever stands beside it; chance is one in six.
    share = accuracy_on_new_users(AAPConfig(corruption=MASKS), planted=planted, steps=100)
    assert share > 0.95


@pytest.mark.long
def test_map_learns_the_attributes_of_hidden_items_from_their_neighbours() -> None:
    assert accuracy_on_new_users(MAPConfig(corruption=MASKS), planted=True) > 0.95


@pytest.mark.long
def test_map_knows_nothing_where_neighbours_tell_nothing() -> None:
    # Six attributes, all as popular: 1/6, within five standard errors of about 960 hidden items.
    share = accuracy_on_new_users(MAPConfig(corruption=MASKS), planted=False)
    assert share == pytest.approx(1 / 6, abs=0.06)


@pytest.mark.long
def test_mip_learns_which_items_belong_together() -> None:
    # A negative is of the same taste once in six times, and then a coin decides: at most 0.92.
    assert accuracy_on_new_users(MIPConfig(corruption=MASKS), planted=True) > 0.8


@pytest.mark.long
def test_mip_knows_nothing_where_neighbours_tell_nothing() -> None:
    # Five standard errors of about 960 comparisons.
    share = accuracy_on_new_users(MIPConfig(corruption=MASKS), planted=False)
    assert share == pytest.approx(0.5, abs=0.08)


# A foreign user has the same taste once in six times, and then a coin decides: at most 0.92.
@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "least"),
    [
        (SPConfig(), 0.8),
        (SPConfig(corruption=CutSegment(placement="alone")), 0.8),
        # Squashed scores saturate, so that it learns more slowly.
        (SPConfig(corruption=CutSegment(foreign="everything"), inner_sigmoid=True), 0.65),
    ],
    ids=["among masks", "alone", "as published"],
)
def test_sp_learns_which_segments_belong_to_their_context(config: SPConfig, least: float) -> None:
    assert accuracy_on_new_users(config, planted=True) > least


@pytest.mark.parametrize("placement", ["among_masks", "alone"])
def test_sp_knows_nothing_where_segments_belong_nowhere(placement: str) -> None:
    # Five standard errors of 400 comparisons. Remembering the users it was trained on is no help.
    config = SPConfig(corruption=CutSegment(placement=placement))
    assert accuracy_on_new_users(config, planted=False) == pytest.approx(0.5, abs=0.125)
