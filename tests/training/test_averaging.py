"""Averages of weights equal a plain loop over a stage's weights, and are what a stage gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from research.checkpoint.files import checkpoints_by_step
from research.data.corpus import Corpus
from research.distributed import signals
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.model.compute import ComputeConfig
from research.objectives.losses import SampledSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.execute import execute
from research.runs.load import load_run
from research.training.averaging import (
    AveragedWeights,
    AveragingConfig,
    CheckpointAverage,
    ExponentialMovingAverage,
    held_by_averages,
)
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import OptimizerConfig
from research.training.stage_run import CheckpointPlan
from tests.support.marks import long_case
from tests.support.small_runs import (
    FINETUNE,
    ITEM_TABLE,
    QUIET,
    config_of,
    corpus_in,
    frozen,
    weights_of,
)
from tests.support.trainer import STAGE, VALUES, Trainer, request_stop_at, scripted_validation

EMA = ExponentialMovingAverage(decay=0.7)
RULES: dict[str, AveragingConfig] = {
    "ema": EMA,
    "ema, every second step": ExponentialMovingAverage(decay=0.9, every_steps=2),
    "last two": CheckpointAverage(last=2),
    "all from the second": CheckpointAverage(last=None, from_epoch=2),
    "last two of every other": CheckpointAverage(last=2, every_epochs=2),
}
# An epoch of the stage is three steps, and it has four.
ADDED_AFTER = {
    "ema": range(1, 13),
    "ema, every second step": range(2, 13, 2),
    "last two": [3, 6, 9, 12],
    "all from the second": [6, 9, 12],
    "last two of every other": [3, 9],
}
EVERY_STEP = CheckpointPlan(steps=1, keep=100)


def added(rule: AveragingConfig, values: Sequence[float]) -> list[float]:
    """The averages of a single weight that has these values, after each of them."""
    module = nn.Linear(1, 1, bias=False).double()
    averaged = AveragedWeights(rule, module, torch.device("cpu"))
    averages = []
    for number, value in enumerate(values, 1):
        module.weight.data.fill_(value)
        averaged.after_step(number)
        averaged.after_epoch(number)
        with averaged.in_module():
            averages.append(module.weight.item())
        assert module.weight.item() == value
    return averages


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # (2 + 4 x 2) / 3 and (2 + 4 x 2 + 7 x 4) / 7: the newest weighs 1, the one before 1/2.
        (ExponentialMovingAverage(decay=0.5), [2.0, 10 / 3, 38 / 7]),
        # Nothing is added before the second step.
        (ExponentialMovingAverage(decay=0.5, every_steps=2), [2.0, 4.0, 4.0]),
        (CheckpointAverage(last=2), [2.0, 3.0, 5.5]),
        (CheckpointAverage(last=1), [2.0, 4.0, 7.0]),
        (CheckpointAverage(last=None), [2.0, 3.0, 13 / 3]),
        (CheckpointAverage(last=None, from_epoch=2), [2.0, 4.0, 5.5]),
        (CheckpointAverage(last=9, every_epochs=2), [2.0, 2.0, 4.5]),
    ],
)
def test_averages_of_a_weight_are_those_by_hand(
    rule: AveragingConfig, expected: list[float]
) -> None:
    assert added(rule, [2.0, 4.0, 7.0]) == pytest.approx(expected, rel=1e-12)


def test_a_weight_that_does_not_move_is_its_own_average() -> None:
    for rule in RULES.values():
        assert added(rule, [0.1] * 40) == pytest.approx([0.1] * 40, rel=1e-14)


def test_without_a_rule_nothing_is_held_and_the_module_keeps_its_weights() -> None:
    module = nn.Linear(2, 2)
    averaged = AveragedWeights(None, module, torch.device("cpu"))
    averaged.after_step(1)
    averaged.after_epoch(1)
    before = module.weight.clone()
    with averaged.in_module():
        assert averaged.tensors() == {}
        assert module.weight.equal(before)


def test_what_does_not_learn_is_not_held() -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    assert [held_by_averages(rule, module) for rule in (None, EMA, CheckpointAverage(last=4))] == [
        0, 24, 5 * 24,
    ]  # fmt: skip
    with (averaged := AveragedWeights(EMA, module, torch.device("cpu"))).in_module():
        assert list(averaged.tensors()) == ["training.weight", "count"]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ExponentialMovingAverage, {"decay": 1.0}, r"averaging\.decay is 1\.0; it must be above 0"),
        (ExponentialMovingAverage, {"every_steps": 0}, r"every_steps is 0; it must be at least 1"),
        (CheckpointAverage, {"last": 0}, r"averaging\.last is 0; it must be at least 1"),
        (CheckpointAverage, {"from_epoch": 0}, r"averaging\.from_epoch is 0; it must be at least"),
    ],
)
def test_values_out_of_range_are_refused(
    kind: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kind(**fields)


@pytest.fixture(scope="module")
def plain(
    loop_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, accelerator: Accelerator
) -> list[dict[str, Tensor]]:
    """The weights after each step of the stage without averaging, those after step n at n."""
    trainer = Trainer(loop_corpus, tmp_path_factory.mktemp("plain"), accelerator)
    trainer.train(STAGE, scripted_validation(VALUES), EVERY_STEP)
    by_step = checkpoints_by_step(trainer.folder.stage("train"))
    return [{}, *(weights_of(by_step[step]) for step in range(1, 13))]


def average_after(step: int, name: str, plain: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The average after a step, by a loop over the weights that were added before."""
    rule = RULES[name]
    numbers = [number for number in ADDED_AFTER[name] if number <= step]
    if not numbers:
        return dict(plain[step])
    if isinstance(rule, CheckpointAverage) and rule.last is not None:
        numbers = numbers[-rule.last :]
    decay = rule.decay if isinstance(rule, ExponentialMovingAverage) else 1.0
    shares = [decay ** (len(numbers) - place) for place in range(1, len(numbers) + 1)]
    return {
        key: (
            sum(share * plain[number][key].double() for share, number in zip(shares, numbers))
            / sum(shares)
        ).float()
        for key in plain[step]
    }


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", RULES)
def test_a_stage_validates_keeps_and_gives_averages_and_trains_on_without_them(
    name: str, trainer: Trainer, plain: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[MultiObjectiveModel] = []
    new_model = Trainer.new_model
    monkeypatch.setattr(
        Trainer, "new_model", lambda *given: models.append(new_model(*given)) or models[-1]
    )
    validated: list[dict[str, Tensor]] = []
    values = scripted_validation(VALUES)

    def validate() -> Mapping[str, float]:
        parameters = models[0].named_parameters()
        validated.append({key: parameter.detach().clone() for key, parameter in parameters})
        return values()

    stage = replace(STAGE, averaging=RULES[name])
    state, model = trainer.train(stage, validate, EVERY_STEP)
    for epoch, weights in enumerate(validated, 1):
        assert_close(weights, average_after(3 * epoch, name, plain))
    for step, folder in checkpoints_by_step(trainer.folder.stage("train")).items():
        assert_close(weights_of(folder), average_after(step, name, plain))
        stored = load_file(folder / "averaging.safetensors")
        for key, tensor in plain[step].items():
            assert stored[f"training.{key}"].equal(tensor), (step, key)
    # The second validation is the best one.
    assert state.best_step == 6
    (best, _) = checkpoints_by_step(trainer.folder.stage("train"), "best").values()
    assert sorted(path.name for path in best.iterdir()) == ["model.safetensors", "state.json"]
    for weights in (weights_of(best), dict(model.named_parameters())):
        assert_close({key: one.detach() for key, one in weights.items()}, validated[1])


@pytest.mark.parametrize("name", RULES)
def test_a_stage_without_validation_gives_the_last_average(
    name: str, trainer: Trainer, plain: list[dict[str, Tensor]]
) -> None:
    stage = replace(STAGE, averaging=RULES[name], validation=None)
    for _ in range(2):
        # The second time the stage has ended already.
        _, model = trainer.train(stage)
        weights = {key: parameter.detach() for key, parameter in model.named_parameters()}
        assert_close(weights, average_after(12, name, plain))
        newest = next(iter(checkpoints_by_step(trainer.folder.stage("train")).values()))
        assert all(tensor.equal(weights[key]) for key, tensor in weights_of(newest).items())


def files_of(trainer: Trainer) -> dict[str, bytes]:
    stage = trainer.folder.stage("train")
    return {str(path.relative_to(stage)): path.read_bytes() for path in stage.rglob("*.safe*")}


@pytest.fixture(scope="module", params=["ema", "last two", "all from the second"])
def whole(
    request: pytest.FixtureRequest, loop_corpus: Corpus,
    tmp_path_factory: pytest.TempPathFactory, accelerator: Accelerator,
) -> tuple[AveragingConfig, dict[str, bytes]]:  # fmt: skip
    """A rule, and the files of tensors of a stage that nothing interrupts."""
    trainer = Trainer(loop_corpus, tmp_path_factory.mktemp("whole"), accelerator)
    rule = RULES[request.param]
    trainer.train(replace(STAGE, averaging=rule), scripted_validation(VALUES))
    return rule, files_of(trainer)


# It asks before each of an epoch's three steps and after the last.
@pytest.mark.parametrize("time", [3, 8, *map(long_case, [1, 4, 10, 15])])
def test_asked_to_stop_it_saves_and_continuing_ends_with_the_same_bytes(
    whole: tuple[AveragingConfig, dict[str, bytes]], time: int, trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rule, files = whole
    stage = replace(STAGE, averaging=rule)
    epochs = (time - 1) // 4
    with monkeypatch.context() as patch:
        request_stop_at(patch, time)
        with pytest.raises(signals.Stopped):
            trainer.train(stage, scripted_validation(VALUES[:epochs]), CheckpointPlan())
    trainer.train(stage, scripted_validation(VALUES[epochs:]))
    ours = files_of(trainer)
    # The checkpoint at which it stopped may be one of the two that are kept.
    newest = {name: ours[name] for name in ours if name.startswith(("best_", "step_00000012"))}
    assert len(newest) >= 4
    assert newest == {name: files[name] for name in newest}


def test_a_checkpoint_that_lacks_the_weights_that_train_is_refused(trainer: Trainer) -> None:
    trainer.train(replace(STAGE, epochs=1), scripted_validation(VALUES))
    with pytest.raises(
        InputError, match=r"averaging\.safetensors does not fit this configuration: missing count;"
    ):
        trainer.train(replace(STAGE, averaging=EMA), scripted_validation(VALUES))


def test_damaged_weights_that_train_are_passed_over(
    trainer: Trainer, plain: list[dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = replace(STAGE, averaging=EMA)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(stage, scripted_validation(VALUES, interrupt_at=2), EVERY_STEP)
    newest = next(iter(checkpoints_by_step(trainer.folder.stage("train")).values()))
    with (newest / "averaging.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    trainer.train(stage, scripted_validation(VALUES[2:]), EVERY_STEP)
    assert "averaging.safetensors is damaged (its checksum differs)" in capsys.readouterr().err
    newest = next(iter(checkpoints_by_step(trainer.folder.stage("train")).values()))
    assert_close(weights_of(newest), average_after(12, "ema", plain))


def test_a_stage_stops_early_by_the_averages(trainer: Trainer) -> None:
    rule = replace(STAGE.validation, patience=1) if STAGE.validation else None
    stage = replace(STAGE, averaging=EMA, validation=rule)
    state, _ = trainer.train(stage, scripted_validation(VALUES))
    assert (state.epoch, state.best_epoch) == (3, 2)


def test_touched_rows_are_averaged_with_all_others(trainer: Trainer, tmp_path: Path) -> None:
    loss = SampledSoftmax(number=2)
    stage = replace(
        STAGE, objectives={"next": NextItemConfig(loss=loss)}, epochs=1, validation=None,
        optimizer=OptimizerConfig(lr=0.01, item_rows="touched"),
    )  # fmt: skip
    trainer.train(stage, None, EVERY_STEP)
    by_step = checkpoints_by_step(trainer.folder.stage("train"))
    weights = [{}, *(weights_of(by_step[step]) for step in (1, 2, 3))]
    again = Trainer(trainer.corpus, tmp_path / "again", trainer.accelerator)
    _, model = again.train(replace(stage, averaging=EMA))
    ours = {key: parameter.detach() for key, parameter in model.named_parameters()}
    assert_close(ours, average_after(3, "ema", weights))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_ranks_by_the_average_and_hands_it_on_in_fp32(precision: str, tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    first = replace(FINETUNE, name="first", averaging=EMA, validation=None)
    # The second stage's rate is too low for it to move.
    second = replace(frozen(FINETUNE), averaging=CheckpointAverage(last=3))
    compute = ComputeConfig(precision=precision)  # type: ignore[arg-type]
    execute(config_of(corpus, first, second, compute=compute), tmp_path / "run", options=QUIET)
    first_end, second_end = (
        next((tmp_path / "run" / "stages" / stage.name).glob("step_*")) for stage in (first, second)
    )
    average = weights_of(first_end)
    assert {tensor.dtype for tensor in average.values()} == {torch.float32}
    training = load_file(first_end / "averaging.safetensors")
    assert not average[ITEM_TABLE].equal(training[f"training.{ITEM_TABLE}"])
    torch.testing.assert_close(weights_of(second_end), average)
    parts, ranker = load_run(tmp_path / "run", "data")
    ranked = RankTable.load(tmp_path / "run" / "ranks" / "test-full.npz")
    assert np.array_equal(parts.tables(ranker, "test")["full"].rank, ranked.rank)


@pytest.mark.parametrize(
    ("limits", "averaging", "message"),
    [
        ({"epochs": 5}, CheckpointAverage(from_epoch=6), "from_epoch is 6, after the stage's 5"),
        ({"steps": 5}, ExponentialMovingAverage(every_steps=6), "every_steps is 6, more than the"),
    ],
)
def test_an_average_of_nothing_is_refused(
    limits: dict[str, int], averaging: AveragingConfig, message: str
) -> None:
    stage = StageConfig(objectives={"next": NextItemConfig()})
    with pytest.raises(InputError, match=message):
        replace(stage, **{"epochs": None, **limits}, averaging=averaging)  # type: ignore[arg-type]
