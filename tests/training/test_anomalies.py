"""Steps that are not finite are left out or stop the run; a loss that suddenly rises is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.objectives.next_item import NextItem
from research.storage.nonfinite_record import NonFiniteRecord
from research.training.anomalies import SpikeDetector
from research.training.config import StageConfig
from research.training.loop import train
from research.training.optimizer import OptimizerConfig
from research.training.stage_run import CheckpointPlan
from tests.support.trainer import STAGE, VALUES, Trainer, scripted_validation

PATIENT = replace(STAGE, max_skipped=2)
WITHOUT_VALIDATION = replace(PATIENT, validation=None)
Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def spoil(patch: Patch, *steps: int) -> None:
    """Make the loss of these steps (0-based, from now on) no number."""
    loss_of = NextItem.loss
    done: list[Tensor] = []

    def spoilt(self: NextItem, *given: object) -> Tensor:
        total: Tensor = loss_of(self, *given)  # type: ignore[arg-type]
        done.append(total)
        return total * torch.nan if len(done) - 1 in steps else total

    patch.setattr(NextItem, "loss", spoilt)


def forget(patch: Patch, *steps: int) -> None:
    """Have the optimizer left alone at these steps (0-based, from now on)."""
    step = AcceleratedOptimizer.step
    done: list[None] = []

    def kept(self: AcceleratedOptimizer) -> None:
        done.append(None)
        if len(done) - 1 not in steps:
            step(self)

    patch.setattr(AcceleratedOptimizer, "step", kept)


@pytest.mark.parametrize("method", ["adamw", "adam", "sgd"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_run_goes_on(
    loop_corpus: Corpus, trainer: Trainer, monkeypatch: Patch, method: str
) -> None:
    rates = replace(STAGE.optimizer, method=method, bias_correction=True)
    stage = replace(WITHOUT_VALIDATION, optimizer=rates)
    with monkeypatch.context() as patch:
        spoil(patch, 0, 4)
        state, trained = trainer.train(stage)
    # Such a step counts as one: the schedule and the order go on.
    assert (state.step, state.epoch, state.finished, state.skipped) == (12, 4, True, 2)
    other = Trainer(loop_corpus, trainer.folder.path.with_name("other"), trainer.accelerator)
    with monkeypatch.context() as patch:
        forget(patch, 0, 4)
        _, expected = other.train(stage)
    for ours, theirs in zip(trained.parameters(), expected.parameters(), strict=True):
        assert ours.isfinite().all()
        assert torch.equal(ours, theirs)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert trainer.checkpoint_bytes("step", name) == other.checkpoint_bytes("step", name)


def test_lines_are_means_of_the_steps_that_were_taken(
    loop_corpus: Corpus, trainer: Trainer, monkeypatch: Patch
) -> None:
    # Nothing moves, so that a step's loss does not hang on those before it.
    stage = replace(WITHOUT_VALIDATION, optimizer=OptimizerConfig(lr=1e-30), log_every=1)
    trainer.train(stage)
    single = [line["train/loss/next"] for line in trainer.metrics_lines()]
    other = Trainer(loop_corpus, trainer.folder.path.with_name("other"), trainer.accelerator)
    with monkeypatch.context() as patch:
        spoil(patch, 1)
        other.train(replace(stage, log_every=2))
    lines = {line["step"]: line for line in other.metrics_lines()}
    # An epoch is three steps, and its end is a line too.
    assert list(lines) == [2, 3, 4, 6, 8, 9, 10, 12]
    assert lines[2]["train/loss/next"] == single[0]
    assert lines[3]["train/loss/next"] == single[2]
    # A line's accuracies are those of its last step, which was left out here.
    assert "train/accuracy/next" not in lines[2]
    assert "train/accuracy/next" in lines[3]


def test_a_step_that_is_left_out_is_said(
    trainer: Trainer, monkeypatch: Patch, capsys: Capture
) -> None:
    spoil(monkeypatch, 4)
    stage = WITHOUT_VALIDATION
    train(trainer.new_model(stage), trainer.loader(stage), stage, trainer.stage_run(quiet=False))
    message = [line for line in capsys.readouterr().out.splitlines() if "finite" in line]
    (line,) = message
    assert line.startswith(
        "stage train, step 5, epoch 1: the loss of next is not finite, for rows "
    )
    assert line.endswith("skipped (1 of at most 2)")


def test_one_too_many_stops_the_run_and_the_last_checkpoint_is_good(
    trainer: Trainer, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 1, 4, 7)
        with pytest.raises(FloatingPointError, match="stage train, step 8, epoch 2: the loss of"):
            trainer.train(PATIENT, scripted_validation(VALUES))
    stored = trainer.folder.read(NonFiniteRecord)
    assert stored is not None
    (share,) = stored.shares
    assert (stored.stage, stored.step, stored.epoch) == ("train", 8, 2)
    assert share.not_finite == ("the loss of next",)
    assert len(share.rows) == len(share.users) == 16
    # What was left out before is still counted when the run goes on.
    state, trained = trainer.train(PATIENT, scripted_validation(VALUES[2:]))
    assert (state.step, state.finished, state.skipped) == (12, True, 2)
    assert all(each.isfinite().all() for each in trained.parameters())


def test_steps_left_out_are_counted_over_continuations(
    trainer: Trainer, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 0, 1)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(PATIENT, scripted_validation(VALUES, interrupt_at=1))
    with monkeypatch.context() as patch:
        # It goes on after the first epoch, with step 4.
        spoil(patch, 1)
        with pytest.raises(FloatingPointError, match="stage train, step 5, epoch 1"):
            trainer.train(PATIENT, scripted_validation(VALUES[1:]))


def test_by_default_the_first_one_stops_the_run(trainer: Trainer, monkeypatch: Patch) -> None:
    spoil(monkeypatch, 2)
    with pytest.raises(FloatingPointError, match="step 3, epoch 0"):
        trainer.train(STAGE, scripted_validation(VALUES), CheckpointPlan(steps=1))
    assert list(checkpoint.checkpoints_by_step(trainer.folder.stage("train"))) == [2, 1]


def test_a_gradient_that_is_not_finite_is_told_by_its_parameters(
    trainer: Trainer, monkeypatch: Patch
) -> None:
    loss_of = NextItem.loss

    def endless(self: NextItem, *given: object) -> Tensor:
        total: Tensor = loss_of(self, *given)  # type: ignore[arg-type]
        # The loss is as it was; its gradient, times the slope of a root at 0, is no number.
        return total + (total * 0.0).sqrt()

    monkeypatch.setattr(NextItem, "loss", endless)
    stage: StageConfig = replace(STAGE, objectives={"next": STAGE.objectives["next"]})
    with pytest.raises(FloatingPointError) as caught:
        trainer.train(stage, scripted_validation(VALUES))
    message = str(caught.value)
    assert message.startswith(
        "stage train, step 1, epoch 0: the gradient of encoder.item_table.weight"
    )
    assert " more is not finite, for rows " in message
    stored = trainer.folder.read(NonFiniteRecord)
    assert stored is not None
    (share,) = stored.shares
    assert share.not_finite == ()
    assert "encoder.positions.weight" in (share.gradients or ())


def test_clipping_does_not_hide_whose_gradient_it_is(trainer: Trainer, monkeypatch: Patch) -> None:
    loss_of = NextItem.loss

    def endless(self: NextItem, *given: object) -> Tensor:
        total: Tensor = loss_of(self, *given)  # type: ignore[arg-type]
        bias = given[2].weight.sum()  # type: ignore[attr-defined]
        return total + (bias * 0.0).sqrt()

    monkeypatch.setattr(NextItem, "loss", endless)
    assert STAGE.optimizer.clip_norm is not None
    with pytest.raises(FloatingPointError) as caught:
        trainer.train(STAGE, scripted_validation(VALUES))
    assert "the gradient of encoder.item_table.weight is not finite" in str(caught.value)


def rises_of(before: list[float], *losses: float) -> list[float | None]:
    spikes = SpikeDetector(before)
    return [spikes.check(loss) for loss in losses]


@pytest.mark.parametrize(
    ("before", "losses", "rises"),
    [
        # Five lines must be known.
        ([], [1.0, 1.0, 1.0, 1.0, 100.0, 1.0], [None] * 6),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 100.0], [None, 100.0]),
        # More than half above the median.
        ([2.0] * 5, [3.0, 3.5], [None, 1.75]),
        # And more than eight times as far from it as lines are: 1 from 3 here.
        ([1.0, 2.0, 3.0, 4.0, 5.0], [10.5], [None]),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [12.0], [4.0]),
        # A fall is none, nor is what comes back to where it was.
        ([2.0] * 5, [0.1, 2.0], [None, None]),
        # No ratio to nothing.
        ([0.0] * 5, [1.0], [None]),
        # What is no number is no rise.
        ([1.0] * 5, [float("nan"), float("inf")], [None, None]),
    ],
)
def test_a_sudden_rise_is_one_above_the_lines_before_it(
    before: list[float], losses: list[float], rises: list[float | None]
) -> None:
    assert rises_of(before, *losses) == rises


def test_a_loss_that_stays_high_is_usual_after_half_of_the_twenty_lines_remembered() -> None:
    # Of ten ones and ten twos the median is 1.5, and 2 is not half above it.
    assert rises_of([9.0] * 3 + [1.0] * 20, *[2.0] * 12) == [2.0] * 10 + [None] * 2


def test_a_sudden_rise_is_logged_and_said(
    trainer: Trainer, monkeypatch: Patch, capsys: Capture
) -> None:
    loss_of = NextItem.loss
    done: list[None] = []

    def rising(self: NextItem, *given: object) -> Tensor:
        done.append(None)
        total: Tensor = loss_of(self, *given)  # type: ignore[arg-type]
        return total * 100.0 if len(done) == 8 else total

    monkeypatch.setattr(NextItem, "loss", rising)
    stage = replace(WITHOUT_VALIDATION, log_every=1)
    train(trainer.new_model(stage), trainer.loader(stage), stage, trainer.stage_run(quiet=False))
    risen = {line["step"]: line for line in trainer.metrics_lines() if "train/loss_rise" in line}
    assert list(risen) == [8]
    assert float(str(risen[8]["train/loss_rise"])) > 10.0
    assert "train: step 8: the loss is " in capsys.readouterr().out


def test_a_line_without_a_step_that_was_taken_has_no_loss(
    trainer: Trainer, monkeypatch: Patch
) -> None:
    spoil(monkeypatch, 3)
    trainer.train(replace(WITHOUT_VALIDATION, log_every=1))
    lines = {line["step"]: line for line in trainer.metrics_lines()}
    assert set(lines[4]) == {"stage", "step", "epoch", "train/lr", "train/items"}
    assert "train/loss" in lines[5]
