"""Classes that are no items: in the full softmax and the scores, as S3-Rec's code has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.base import RankingObjective
from research.objectives.components import ModelComponents
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import OptimizerConfig
from tests.support.synthetic import batch_of, catalogue_of, randomize_parameters
from tests.support.trainer import STAGE, Trainer, scripted_validation

ITEMS = 5
SIZES = TransformerConfig(
    length=4, width=4, layers=1, heads=1, feed_forward=4,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
SPECIAL = NextItemConfig(head=HeadConfig(special_classes=True))
SPECIAL_STAGE = replace(
    STAGE,
    objectives={"next": SPECIAL},
    optimizer=OptimizerConfig(method="adamw", lr=0.01, weight_decay=0.1),
    epochs=2,
)


@pytest.fixture
def catalogue() -> Catalogue:
    return catalogue_of([[0, 1, 2], [3, 4]], ITEMS)


def build_model(catalogue: Catalogue, config: NextItemConfig = SPECIAL) -> MultiObjectiveModel:
    shared = ModelComponents(SIZES, catalogue, 0)
    return MultiObjectiveModel(shared.encoder, {"only": config.build(shared, 0)}, catalogue)


def test_a_uniform_guess_costs_the_logarithm_of_the_items_and_two(catalogue: Catalogue) -> None:
    for config, expected in [
        (SPECIAL, 1.9459101),  # log 7
        (NextItemConfig(), 1.6094379),  # log 5
    ]:
        module = build_model(catalogue, config)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        loss = module.losses(batch_of([[0, 1]], length=4))["only"]
        assert loss.total.item() == pytest.approx(expected, abs=1e-6)


def test_the_scores_are_of_items_then_mask_then_padding(catalogue: Catalogue) -> None:
    module = build_model(catalogue)
    randomize_parameters(module)
    objective = module.objectives["only"]
    assert isinstance(objective, RankingObjective)
    hidden_PD = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 0.0, 0.0]])
    scores_PV = objective.head.scored_rows(module.encoder.item_table).scores(
        hidden_PD, 0, ITEMS + 2
    )
    assert scores_PV.shape == (2, ITEMS + 2)
    rows = [*module.encoder.item_table.weight, objective.head.padding_row[0]]
    for column, row_D in enumerate(rows):
        expected_P = torch.stack([(row_D * hidden_D).sum() for hidden_D in hidden_PD])
        torch.testing.assert_close(scores_PV[:, column], expected_P)


def test_candidates_are_scored_alike_with_and_without_special_classes(
    catalogue: Catalogue,
) -> None:
    items_SN = torch.tensor([[4, 0, 2]])
    scores = []
    for config in (SPECIAL, NextItemConfig()):
        module = build_model(catalogue, config)
        objective = module.objectives["only"]
        assert isinstance(objective, RankingObjective)
        ranker = TrainedRanker(module.encoder, objective)
        encoded = ranker.encode(Packed.from_lists([[1, 2]]), torch.tensor([0]))
        scores.append(encoded.scores_of(items_SN))
        all_SV = encoded.scores(0, encoded.columns)
        torch.testing.assert_close(all_SV.gather(1, items_SN), scores[-1])
    assert torch.equal(*scores)


def test_the_mask_learns_that_it_is_never_next_and_the_padding_row_nothing(
    catalogue: Catalogue,
) -> None:
    module = build_model(catalogue)
    randomize_parameters(module)
    module.losses(batch_of([[0, 1, 2]], length=4))["only"].total.backward()
    assert module.encoder.item_table.weight.grad[ITEMS].any()
    padding_row = module.get_parameter("objectives.only.head.padding_row")
    assert padding_row.grad is None
    assert not padding_row.requires_grad


def test_the_padding_row_begins_at_random_and_hangs_on_the_seed(catalogue: Catalogue) -> None:
    rows = [
        SPECIAL.build(ModelComponents(SIZES, catalogue, seed), seed).get_parameter(
            "head.padding_row"
        )
        for seed in (0, 0, 1)
    ]
    assert rows[0].any()
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_training_leaves_the_padding_row_as_it_was(trainer: Trainer) -> None:
    start = trainer.new_model(SPECIAL_STAGE)
    _, trained = trainer.train(SPECIAL_STAGE, scripted_validation([0.1, 0.2]))
    name = "objectives.next.head.padding_row"
    assert torch.equal(trained.get_parameter(name), start.get_parameter(name))
    table = "encoder.item_table.weight"
    assert not torch.equal(trained.get_parameter(table), start.get_parameter(table))


def test_a_run_with_a_padding_row_goes_on_where_it_was_killed(trainer: Trainer) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.train(SPECIAL_STAGE, scripted_validation([0.1, 0.2], interrupt_at=1))
    state, trained = trainer.train(SPECIAL_STAGE, scripted_validation([0.2]))
    assert state.finished
    name = "objectives.next.head.padding_row"
    assert torch.equal(
        trained.get_parameter(name), trainer.new_model(SPECIAL_STAGE).get_parameter(name)
    )


@pytest.mark.parametrize("fields", [{"table": "own"}, {"bias": True}])
def test_special_classes_need_the_encoders_table_and_no_bias(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="special_classes needs table 'tied' and no bias"):
        HeadConfig(special_classes=True, **fields)
