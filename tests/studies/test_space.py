"""Spaces: values drawn by name become changes of a run, and equal draws the same run."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from research.data.splits import UserHoldout
from research.errors import InputError
from research.model.transformer_block import PostNorm, PreNorm
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax, SampledSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.studies.changes import Changes
from research.studies.space import (
    Choice,
    Distribution,
    FloatRange,
    IntegerRange,
    Space,
    Trial,
    TunedCell,
    Value,
    check_space,
    given_first,
    random_draw,
    replay,
    run_of,
)
from research.training.config import StageConfig

BASE = RunConfig(stages=(StageConfig(objectives={"next": NextItemConfig()}),))
LR = "stages.0.optimizer.lr"
LOSS = "stages.0.objectives.next.loss"
PAIRS = BinaryCrossEntropy(number=2)


def conditional(trial: Trial) -> Changes:
    """A rate, and a number of negatives where the loss has some."""
    changes: dict[str, object] = {LR: trial.log_uniform("lr", 1e-4, 1e-1)}
    if trial.choice("loss", ("full", "sampled")) == "sampled":
        changes[LOSS] = SampledSoftmax(number=trial.integer("negatives", 2, 8))
    return changes


def config_for(space: Space, **parameters: Value) -> RunConfig:
    return replay("cell", TunedCell(base=BASE, space=space), parameters).config


def loss_of(config: RunConfig) -> object:
    objective = config.stages[0].objectives["next"]
    assert isinstance(objective, NextItemConfig)
    return objective.loss


def refusal(space: Space) -> str:
    with pytest.raises(InputError) as caught:
        check_space("mine", TunedCell(base=BASE, space=space), 0)
    return str(caught.value)


def test_drawn_values_become_changes_of_the_base() -> None:
    config = config_for(conditional, lr=0.01, loss="full")
    assert config == replace(
        BASE,
        stages=(replace(BASE.stages[0], optimizer=replace(BASE.stages[0].optimizer, lr=0.01)),),
    )


def test_a_parameter_of_a_branch_is_drawn_in_that_branch_alone() -> None:
    config = config_for(conditional, lr=0.01, loss="sampled", negatives=5)
    assert loss_of(config) == SampledSoftmax(number=5)
    with pytest.raises(InputError, match="the space does not ask for 'negatives'"):
        config_for(conditional, lr=0.01, loss="full", negatives=5)


@pytest.mark.parametrize(
    ("options", "chosen", "loss"),
    [
        (("FullSoftmax", "BinaryCrossEntropy"), "BinaryCrossEntropy", BinaryCrossEntropy()),
        ((FullSoftmax(), PAIRS), "BinaryCrossEntropy", PAIRS),
        ({"one": BinaryCrossEntropy(), "two": PAIRS}, "two", PAIRS),
    ],
)
def test_a_loss_is_chosen_by_class_by_config_or_by_a_name(
    options: tuple[object, ...] | Mapping[str, object], chosen: str, loss: object
) -> None:
    config = config_for(lambda trial: {LOSS: trial.choice("loss", options)}, loss=chosen)
    assert loss_of(config) == loss


def test_a_block_is_chosen_among_classes() -> None:
    blocks = {"before": PreNorm(), "after": PostNorm()}
    config = config_for(
        lambda trial: {"encoder.block": trial.choice("norm", blocks)}, norm="before"
    )
    assert config.encoder == replace(BASE.encoder, block=PreNorm())  # type: ignore[call-arg]


def test_a_space_may_return_a_whole_config() -> None:
    def space(trial: Trial) -> RunConfig:
        return replace(
            BASE, stages=(replace(BASE.stages[0], epochs=trial.integer("epochs", 1, 9)),)
        )

    assert config_for(space, epochs=4).stages[0].epochs == 4


def test_a_name_asked_for_twice_is_drawn_once() -> None:
    drawn: list[str] = []

    def draw(name: str, _: Distribution) -> Value:
        drawn.append(name)
        return 0.5

    def space(trial: Trial) -> Changes:
        assert trial.uniform("rate", 0.0, 1.0) == trial.uniform("rate", 0.0, 1.0)
        return {}

    run_of("cell", TunedCell(base=BASE, space=space), draw)
    assert drawn == ["rate"]


def test_all_distributions_of_a_space_are_found() -> None:
    found = check_space("mine", TunedCell(base=BASE, space=conditional), 0)
    assert found == {
        "lr": FloatRange(1e-4, 1e-1, log=True),
        "loss": Choice(("full", "sampled")),
        "negatives": IntegerRange(2, 8),
    }


def test_a_misspelled_field_is_refused_with_the_cell_and_the_draws() -> None:
    message = refusal(lambda trial: {"stages.0.optimizer.rl": trial.uniform("lr", 0.5, 0.5)})
    assert message.startswith("cell mine, lr=0.5: stages.0.optimizer (OptimizerConfig) has no 'rl'")
    assert "lr" in message


def test_a_misspelled_field_in_a_branch_is_found_before_anything_is_trained() -> None:
    def space(trial: Trial) -> Changes:
        rare = trial.uniform("rare", 0.0, 1.0) > 0.9
        return {"encoder.layer": 1} if rare else {}

    assert "has no 'layer'; did you mean layers?" in refusal(space)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 3}, "seed"),
        ({"corpus": "ml-1m"}, "corpus"),
        ({"split": UserHoldout()}, "split"),
        ({"training_share": 0.5}, "training_share"),
        ({"evaluation.seen": "kept"}, "evaluation"),
    ],
)
def test_what_would_make_trials_incomparable_may_not_be_changed(
    changes: Changes, field: str
) -> None:
    def space(trial: Trial) -> Changes:
        trial.uniform("lr", 0.0, 1.0)
        return changes

    assert f"cell mine: the space changes {field}; corpus, seed, split, train" in refusal(space)


def test_a_space_that_is_no_function_of_its_draws_is_refused() -> None:
    generator = random.Random(5)

    def space(trial: Trial) -> Changes:
        return {LR: trial.uniform("lr", 0.1, 1.0) * generator.uniform(0.5, 1.0)}

    assert "the space is no function of its draws: called twice with lr=" in refusal(space)


def test_a_space_that_asks_for_other_things_each_time_is_refused() -> None:
    generator = random.Random(5)

    def space(trial: Trial) -> Changes:
        return {LR: trial.uniform(generator.choice(("lr", "rate")), 0.1, 1.0)}

    assert "a space must be a function of its draws alone" in refusal(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda trial: {LR: 0.1}, "the space draws nothing"),
        (lambda trial: None, "the space returns a NoneType; return changes by dotted name, or a"),
        (lambda trial: {LR: trial.uniform("lr", 1.0, 0.5)}, "'lr' goes from 1.0 to 0.5"),
        (lambda trial: {LR: trial.uniform("lr", 0.0, float("inf"))}, "'lr' goes from 0.0 to inf"),
        (lambda trial: {LR: trial.log_uniform("lr", 0.0, 1.0)}, "both must be above 0"),
        (lambda trial: {LR: trial.integer("lr", 0.5, 2)}, "integer 'lr' goes from 0.5 to 2"),
        (lambda trial: {LR: trial.choice("lr", ())}, "choice 'lr' has no options"),
        (lambda trial: {LR: trial.choice("lr", (1, "1"))}, "two options are called the same"),
        (lambda trial: {LR: trial.uniform("", 0.0, 1.0)}, "a parameter is named ''"),
        (lambda trial: {LR: trial.uniform("lr", -2.0, -1.0)}, "lr is -"),
    ],
)
def test_what_cannot_be_drawn_or_is_no_config_is_refused(space: Space, message: str) -> None:
    assert message in refusal(space)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"lr": 0.5}, "cell mine, without a draw: first has lr=0.5, which the space cannot"),
        ({"loss": "none"}, "first has loss='none', which the space cannot draw from Choice("),
        ({"loss": "sampled", "negatives": 4.0}, "first has negatives=4.0, which the space cannot"),
        ({"lr": True}, "a tuned cell's first has lr=True; give a number, or the name of a choice"),
        (
            {"rate": 0.01},
            "first has 'rate', which the space does not draw there; it draws",
        ),
    ],
)
def test_first_values_that_cannot_be_drawn_are_refused(
    first: dict[str, Value], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        check_space("mine", TunedCell(base=BASE, space=conditional, first=first), 0)


def test_first_values_may_be_of_a_branch() -> None:
    first: dict[str, Value] = {"lr": 0.01, "loss": "sampled", "negatives": 4}
    check_space("mine", TunedCell(base=BASE, space=conditional, first=first), 0)


def test_several_trials_may_be_given_values_each() -> None:
    first: list[dict[str, Value]] = [{"lr": 0.01}, {"loss": "sampled", "negatives": 4}]
    tuned = TunedCell(base=BASE, space=conditional, first=first)
    check_space("mine", tuned, 0)
    for number, values in enumerate([*first, {}]):
        draw = given_first(tuned, number, random_draw(5))
        drawn = run_of("mine", tuned, draw).parameters
        assert {name: drawn[name] for name in values} == values
    first[1]["negatives"] = 4.0
    with pytest.raises(InputError, match=re.escape("first has negatives=4.0, which the space")):
        check_space("mine", tuned, 0)
    with pytest.raises(InputError, match="first has 'lr'; give values by name, or a sequence"):
        TunedCell(base=BASE, space=conditional, first=("lr", 0.01))  # type: ignore[arg-type]


def test_one_name_stands_for_one_distribution() -> None:
    def within(trial: Trial) -> Changes:
        return {LR: trial.uniform("lr", 0.1, 0.2) + trial.uniform("lr", 0.1, 0.3)}

    def between(trial: Trial) -> Changes:
        return {LR: trial.uniform("lr", 0.1, trial.choice("most", (0.2, 0.3)))}

    for space in (within, between):
        assert "give one of them another name" in refusal(space)


def test_values_that_a_changed_space_could_not_have_drawn_are_refused() -> None:
    for parameters in ({}, {"lr": 5.0, "loss": "full"}, {"lr": 0.01, "loss": "half"}):
        with pytest.raises(InputError, match="undo its change, or give the tuning another name"):
            config_for(conditional, **parameters)


def test_a_tuned_cell_needs_a_config_and_a_function() -> None:
    with pytest.raises(InputError, match="a RunConfig and a function, not a RunConfig and a dict"):
        TunedCell(base=BASE, space={})  # type: ignore[arg-type]


def test_a_space_may_not_take_away_the_curve_that_trials_are_pruned_by() -> None:
    def blind(trial: Trial) -> Changes:
        return {LR: trial.log_uniform("lr", 1e-4, 1e-1), "stages.0.validation": None}

    tuned = TunedCell(base=BASE, space=blind)
    assert set(check_space("mine", tuned, 0)) == {"lr"}
    with pytest.raises(InputError, match=r"mine, lr=.*: the last stage, .*, has no validation, by"):
        check_space("mine", tuned, 0, prunes=True)
