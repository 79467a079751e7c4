"""Ways of combining objectives: each against its paper's formula, alone and inside a step."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from research.data.loader import BatchConfig
from research.distributed.collectives import Processes
from research.errors import InputError
from research.model.compute import ComputeConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.next_item import NextItemConfig
from research.randomness import fold, permutation
from research.runs.execute import execute
from research.storage.run_folder import RunFolder
from research.training.combination import CombinationConfig, WeightedSum
from research.training.config import StageConfig, ValidationConfig
from research.training.gradient_conflict import GradientCosines
from research.training.one_objective import OneObjective, draw_objective
from research.training.optimizer import OptimizerConfig, build_optimizer
from research.training.pcgrad import PCGrad, ProjectedGradients
from research.training.state import StageState
from research.training.target_check import TargetCheck
from research.training.uncertainty import LearnedWeights, UncertaintyWeights
from research.training.weight_ramps import Ramp, WeightRamps
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in, input_error_of
from tests.support.trainer import STAGE, VALUES, Trainer, scripted_validation

WEIGHTS = {"next": 2.0, "cloze": 0.5}
TWO = {"next": NextItemConfig(weight=2.0), "cloze": ClozeConfig(weight=0.5)}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [dict(line) for line in RunFolder(folder, writes=False).metrics()]


def stage_with(combination: CombinationConfig, **changes: object) -> StageConfig:
    fields = {"objectives": TWO, "rank_by": "next", "combination": combination, "log_every": 1}
    return replace(FINETUNE, **{**fields, **changes})


# Ramps


@pytest.mark.parametrize(
    ("ramp", "factors"),
    [
        (Ramp(begin=2, end=6), {0: 0.0, 2: 0.0, 3: 0.25, 5: 0.75, 6: 1.0, 100: 1.0}),
        (Ramp(first=1.0, last=0.2, end=4), {0: 1.0, 1: 0.8, 4: 0.2, 9: 0.2}),
        (Ramp(begin=3, end=3), {2: 0.0, 3: 1.0}),
    ],
)
def test_a_ramp_is_a_line_between_two_steps(ramp: Ramp, factors: dict[int, float]) -> None:
    assert {step: ramp.at(step) for step in factors} == pytest.approx(factors)


def test_a_weight_without_a_ramp_stays(tmp_path: Path) -> None:
    combination = WeightRamps(ramps={"cloze": Ramp(begin=0, end=4)}).build(WEIGHTS)
    assert combination.weights_at([2.0, 0.5], 1, 0) == [2.0, 0.125]
    assert combination.log_values(WEIGHTS, 2, 0) == {"weight/cloze": 0.25}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ramp(begin=5, end=4), "ramp: begin is 5 and end 4; 0 <= begin <= end is needed"),
        (lambda: Ramp(last=-1.0), "ramp: last is -1.0; it must be 0 or more"),
        (lambda: Ramp(end=2.5), "Ramp.end is 2.5; allowed: int"),
        (
            lambda: WeightRamps(ramps={"nxt": Ramp()}).build(WEIGHTS),
            "combination.ramps names objective 'nxt'; did you mean next? (allowed: cloze, next)",
        ),
        (
            lambda: UncertaintyWeights().build({"next": 1.0, "mip": 0.0}),
            "combination is UncertaintyWeights, but objectives.mip.weight is 0: the weight that it "
            "learns would grow without end; leave mip out",
        ),
        (
            lambda: OneObjective().build({"next": 0.0}),
            "combination is OneObjective, but no objective has a weight above 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


# Uncertainty weights


def test_learned_weights_follow_kendalls_formula() -> None:
    combination = LearnedWeights(("next", "cloze")).double()
    with torch.no_grad():
        combination.log_variances["next"].fill_(0.4)
        combination.log_variances["cloze"].fill_(-0.6)
    terms_K = torch.tensor([3.0, 0.5], dtype=torch.float64, requires_grad=True)
    loss = combination.loss(terms_K, 1)
    expected = 3.0 * math.exp(-0.4) + 0.5 * math.exp(0.6) + (0.4 - 0.6) / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert terms_K.grad is not None
    assert terms_K.grad.tolist() == pytest.approx([math.exp(-0.4), math.exp(0.6)])
    # Of s_k: -exp(-s_k) term_k + 1/2.
    slopes = [combination.log_variances[key].grad.item() for key in ("next", "cloze")]
    assert slopes == pytest.approx([0.5 - 3.0 * math.exp(-0.4), 0.5 - 0.5 * math.exp(0.6)])
    figures = combination.log_values(WEIGHTS, 0, 0)
    assert figures["weight/next"] == pytest.approx(2.0 * math.exp(-0.4))


def test_what_is_learned_has_no_weight_decay() -> None:
    module = nn.Module()
    module.add_module("combination", LearnedWeights(("next",)))
    groups = build_optimizer(OptimizerConfig(weight_decay=0.1), module).param_groups
    assert [len(group["params"]) for group in groups] == [0, 1]


def test_a_stage_that_learns_weights_goes_on_as_if_never_left(trainer: Trainer) -> None:
    stage = replace(STAGE, combination=UncertaintyWeights())
    whole = Trainer(trainer.corpus, trainer.folder.path / "whole", trainer.accelerator)
    whole.train(stage, scripted_validation(VALUES))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(stage, scripted_validation(VALUES, interrupt_at=2))
    trainer.train(stage, scripted_validation(VALUES[2:]))
    ours, theirs = (each.checkpoint_bytes("step", "model.safetensors") for each in (trainer, whole))
    assert ours == theirs


# One objective a step


def test_objectives_are_drawn_in_proportion_to_their_weights() -> None:
    counts = Counter(draw_objective([2.0, 0.5, 0.0, 1.5], state) for state in range(8000))
    # Of n draws the share p has standard error sqrt(p (1 - p) / n), 0.0056 at most.
    assert counts[0] / 8000 == pytest.approx(0.5, abs=0.02)
    assert counts[1] / 8000 == pytest.approx(0.125, abs=0.02)
    assert counts[2] == 0
    combination = OneObjective().build(WEIGHTS)
    for state in range(20):
        weights = combination.weights_at([2.0, 0.5], 0, state)
        assert sorted(weights) == [0.0, 2.5]
        assert list(combination.participants([2.0, 0.5], 0, state)) == [w > 0.0 for w in weights]


def test_a_step_shows_rows_to_one_objective_and_logs_no_loss_of_the_others(
    tmp_path: Path,
) -> None:
    stage = stage_with(OneObjective(), epochs=None, steps=30, validation=None)
    config = config_of(corpus_in(tmp_path / "corpus"), stage)
    execute(config, tmp_path / "run", options=QUIET)
    lines = [line for line in lines_of(tmp_path / "run") if "finetune/lr" in line]
    told = Counter(tuple(key for key in TWO if f"finetune/loss/{key}" in line) for line in lines)
    # Of one objective there is no loss of the stage, which is a sum over all.
    assert not any("finetune/loss" in line for line in lines)
    assert set(told) == {("next",), ("cloze",)}
    assert told["next",] > told["cloze",]


def test_who_has_had_no_turn_is_judged_when_it_has() -> None:
    stage = stage_with(OneObjective())
    check = TargetCheck(stage, StageState(), Processes(Accelerator(cpu=True)))
    check.add(torch.tensor([[5.0, 2.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    check.check(print)
    assert not check.checked
    check.add(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64))
    with pytest.raises(InputError, match="objective cloze had no target: none of the 3 rows"):
        check.check(print)


# PCGrad


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_what_points_against_another_gradient_is_taken_out() -> None:
    merged = ProjectedGradients().merge_gradients(double([1.0, 0.0], [-1.0, 1.0]), 0)
    # (1, 0) + (-1, 1) / 2 = (.5, .5), and (-1, 1) + (1, 0) = (0, 1).
    assert merged.tolist() == pytest.approx([0.5, 1.5])


def test_gradients_without_conflict_are_added() -> None:
    merged = ProjectedGradients().merge_gradients(double([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]), 0)
    assert merged.tolist() == [2.0, 1.0]


def test_projections_equal_the_algorithm_as_it_is_printed() -> None:
    draws = torch.Generator().manual_seed(1)
    for state in range(20):
        gradients_KE = torch.randn(5, 3, generator=draws, dtype=torch.float64)
        total = torch.zeros(3, dtype=torch.float64)
        for i in range(5):
            gradient = gradients_KE[i].clone()
            for j in permutation(int(fold(state, torch.tensor(i))), 5).tolist():
                other = gradients_KE[j]
                if j != i and gradient @ other < 0:
                    gradient = gradient - (gradient @ other) / (other @ other) * other
            total += gradient
        torch.testing.assert_close(ProjectedGradients().merge_gradients(gradients_KE, state), total)


def test_the_order_of_projections_is_drawn() -> None:
    draws = torch.Generator().manual_seed(2)
    gradients_KE = torch.randn(6, 2, generator=draws, dtype=torch.float64)
    found = {
        tuple(ProjectedGradients().merge_gradients(gradients_KE, state).tolist())
        for state in range(9)
    }
    assert len(found) > 1


def test_a_gradient_is_put_in_place_of_the_parameters_own() -> None:
    weight, bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))
    gradients = GradientCosines([weight, bias])
    gradients.add({"a": weight.sum() * 2 + bias.sum(), "b": weight[0].sum()})
    stacked_KE = gradients.stacked_gradients(Accelerator(cpu=True))
    assert stacked_KE.tolist() == [[2.0, 2.0, 2.0, 2.0, 1.0], [1.0, 1.0, 0.0, 0.0, 0.0]]
    gradients.replace(stacked_KE[1])
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.long
@pytest.mark.parametrize("combination", [PCGrad(), UncertaintyWeights(), OneObjective()])
def test_one_objective_alone_trains_nearly_as_its_weighted_sum_does(
    combination: CombinationConfig, tmp_path: Path
) -> None:
    objectives = {"next": NextItemConfig()}
    losses = []
    for name, way in (("plain", WeightedSum()), ("other", combination)):
        stage = stage_with(way, objectives=objectives, epochs=None, steps=4, validation=None)
        config = config_of(corpus_in(tmp_path / "corpus"), stage)
        execute(config, tmp_path / name, options=QUIET)
        lines = lines_of(tmp_path / name)
        losses.append(
            [float(line["finetune/loss/next"]) for line in lines if "finetune/lr" in line]
        )
    # What uncertainty weights learn meanwhile makes little of four steps.
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


# Runs


@pytest.mark.parametrize(
    "combination",
    [
        PCGrad(),
        UncertaintyWeights(),
        OneObjective(),
        WeightRamps(ramps={"cloze": Ramp(end=6)}),
    ],
)
def test_a_run_trains_ranks_and_logs_its_weights(
    combination: CombinationConfig, tmp_path: Path
) -> None:
    stage = stage_with(combination, batches=BatchConfig(sequences_per_batch=8, micro_batches=2))
    stage = replace(stage, validation=ValidationConfig(metric="mrr"), epochs=3)
    config = config_of(corpus_in(tmp_path / "corpus"), stage)
    assert execute(config, tmp_path / "run", options=QUIET).status == "finished"
    told = {name for line in lines_of(tmp_path / "run") for name in line if "/weight/" in name}
    expected = {
        UncertaintyWeights: {"finetune/weight/next", "finetune/weight/cloze"},
        WeightRamps: {"finetune/weight/cloze"},
    }
    assert told == expected.get(type(combination), set())


@pytest.mark.parametrize("combination", [PCGrad(), UncertaintyWeights()])
def test_split_weights_are_refused_where_gradients_or_weights_must_be_whole(
    combination: CombinationConfig, tmp_path: Path
) -> None:
    config = config_of(corpus_in(tmp_path / "corpus"), stage_with(combination))
    config = replace(config, compute=ComputeConfig(shard_weights=True))
    message = input_error_of(config, tmp_path)
    assert f"combination is {type(combination).__name__}, which needs whole gradients" in message
