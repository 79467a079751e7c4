"""When a stage stops and which state remains; and settings that a stage refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from research.errors import InputError
from research.objectives.next_item import NextItemConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.loop import train
from research.training.state import StageState
from tests.support.trainer import STAGE, VALUES, Trainer, scripted_validation


def test_the_best_state_is_the_one_that_remains(trainer: Trainer) -> None:
    snapshots = []

    values = iter(VALUES)
    model = trainer.new_model(STAGE)

    def validate() -> dict[str, float]:
        snapshots.append([each.detach().clone() for each in model.parameters()])
        return {"val/hr@10": next(values)}

    run = replace(trainer.stage_run(), validate=validate)
    state = train(model, trainer.loader(STAGE), STAGE, run)
    assert (state.best_epoch, state.best_value) == (2, 0.3)
    for ours, second in zip(model.parameters(), snapshots[1], strict=True):
        assert torch.equal(ours, second)


def stopped(trainer: Trainer, values: list[float], **fields: object) -> StageState:
    """The state after a stage of up to ten epochs with these validation values."""
    validation = ValidationConfig(metric="hr@10", **fields)
    stage = replace(STAGE, epochs=10, validation=validation)
    return trainer.train(stage, scripted_validation(values))[0]


def test_patience_counts_validations_without_improvement(trainer: Trainer) -> None:
    state = stopped(trainer, [0.1, 0.3, 0.2, 0.2, 0.9], patience=2)
    assert (state.epoch, state.best_epoch, state.stale) == (4, 2, 2)


def test_patience_counts_steps_as_well(trainer: Trainer) -> None:
    # An epoch is three steps; the best comes after six.
    values = [0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.9]
    for patience_steps, epochs in ((0, 3), (6, 4), (7, 5)):
        fresh = Trainer(
            trainer.corpus, trainer.folder.path / str(patience_steps), trainer.accelerator
        )
        state = stopped(fresh, values, patience=1, patience_steps=patience_steps)
        assert (state.epoch, state.best_epoch) == (epochs, 2)


@pytest.mark.parametrize("least", [{"min_epochs": 4}, {"min_steps": 12}])
def test_patience_begins_after_a_minimum(trainer: Trainer, least: dict[str, int]) -> None:
    state = stopped(trainer, [0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.9], patience=2, **least)
    assert (state.epoch, state.best_epoch, state.stale) == (6, 2, 2)


def test_steps_without_improvement_are_counted_from_the_minimum_on(trainer: Trainer) -> None:
    values = [0.3, *[0.2] * 8]
    state = stopped(trainer, values, patience=1, min_steps=9, patience_steps=6)
    assert (state.epoch, state.best_epoch) == (5, 1)


def test_improvements_are_judged_at_full_precision(trainer: Trainer) -> None:
    values = [0.1 + 1e-12 * epoch for epoch in range(10)]
    assert stopped(trainer, values, patience=1).best_epoch == 10


def test_a_tie_is_no_improvement(trainer: Trainer) -> None:
    state = stopped(trainer, [0.3, 0.3, 0.3], patience=2)
    assert (state.epoch, state.best_epoch) == (3, 1)


def test_an_improvement_must_exceed_min_delta(trainer: Trainer) -> None:
    state = stopped(trainer, [0.25, 0.5, 0.75, 0.75, 0.75], patience=2, min_delta=0.25)
    assert (state.epoch, state.best_epoch, state.best_value) == (5, 3, 0.75)


def test_without_patience_all_epochs_are_trained(trainer: Trainer) -> None:
    assert stopped(trainer, [0.5] + [0.1] * 9, patience=None).epoch == 10


def test_validation_comes_every_so_many_epochs_and_at_the_end(trainer: Trainer) -> None:
    stage = replace(STAGE, epochs=5, validation=ValidationConfig(metric="hr@10", every_epochs=2))
    trainer.train(stage, scripted_validation([0.1, 0.2, 0.3]))
    logged = [line["epoch"] for line in trainer.metrics_lines() if "val/hr@10" in line]
    assert logged == [2, 4, 5]


NEXT = {"next": NextItemConfig()}


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ValidationConfig, {"every_epochs": 0}, "validation: every_epochs is 0 and patience 10"),
        (ValidationConfig, {"min_steps": -1}, "validation.min_steps is -1; it must be 0 or more"),
        (ValidationConfig, {"patience": 0}, "patience 0; both must be at least 1"),
        (StageConfig, {"objectives": {}}, "stage train: objectives is empty; give at least one"),
        (
            StageConfig,
            {"objectives": {"next": NextItemConfig(weight=-1.0)}},
            "stage train: objectives.next.weight is -1.0; it must be 0 or more",
        ),
        (NextItemConfig, {"weight": float("inf")}, "NextItemConfig.weight is inf; allowed: a fini"),
        (NextItemConfig, {"weight": float("nan")}, "NextItemConfig.weight is nan; allowed: a fini"),
        (StageConfig, {"objectives": NEXT, "name": "../a"}, "'../a' names a stage or an objective"),
        (StageConfig, {"objectives": NEXT, "name": ""}, "'' names a stage or an objective"),
        (StageConfig, {"objectives": NEXT, "name": "a" * 65}, "letters, digits, - and _"),
        (StageConfig, {"objectives": {"a.b": NextItemConfig()}}, "stage 'train': 'a.b' names a"),
        (StageConfig, {"objectives": {"a\n": NextItemConfig()}}, "stage 'train': 'a\\n' names a"),
        (
            StageConfig,
            {"objectives": NEXT, "epochs": 0},
            "stage train: epochs is 0; each must be above 0",
        ),
        (
            StageConfig,
            {"objectives": NEXT, "steps": 0},
            "stage train: steps is 0; each must be above 0",
        ),
        (
            StageConfig,
            {"objectives": NEXT, "steps": -5},
            "stage train: steps is -5; each must be above 0",
        ),
        (
            StageConfig,
            {"objectives": NEXT, "log_every": 0},
            "stage train: log_every is 0; each must be above 0",
        ),
        (
            StageConfig,
            {"objectives": NEXT, "max_skipped": -1},
            "stage train: max_skipped is -1; it must be 0 or more",
        ),
    ],
)
def test_settings_out_of_range_are_refused(
    kind: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind(**fields)
    assert message in str(caught.value)
