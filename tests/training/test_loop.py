"""The loop: continuing is as if nothing had happened; what is logged and how sums are divided."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.distributed import signals
from research.errors import InputError
from research.objectives.base import Targets
from research.objectives.cloze import ClozeConfig
from research.objectives.next_item import NextItemConfig
from research.storage.nonfinite_record import NonFiniteRecord
from research.training.config import StageConfig
from research.training.limits import Limits
from research.training.loop import log_interval, train
from research.training.loss_meter import LossMeter
from research.training.multi_objective import StepInputs
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.stage_run import CheckpointPlan
from research.training.step import count_targets, loss_factors
from tests.support.trainer import (
    ENCODER,
    STAGE,
    VALUES,
    Trainer,
    request_stop_at,
    scripted_validation,
)

EVERY_STEP = CheckpointPlan(steps=1)
SELDOM = CheckpointPlan()


@pytest.fixture(scope="module")
def whole(
    loop_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, accelerator: Accelerator
) -> Trainer:
    """The run that nothing interrupts."""
    trainer = Trainer(loop_corpus, tmp_path_factory.mktemp("whole"), accelerator)
    trainer.train(STAGE, scripted_validation(VALUES))
    return trainer


def newest(trainer: Trainer, kind: str) -> Path:
    return next(iter(checkpoint.checkpoints_by_step(trainer.folder.stage("train"), kind).values()))


def assert_same_run(ours: Trainer, theirs: Trainer) -> None:
    for kept, name in (
        ("step", "model.safetensors"),
        ("step", "optimizer.safetensors"),
        ("best", "model.safetensors"),
    ):
        assert ours.checkpoint_bytes(kept, name) == theirs.checkpoint_bytes(kept, name), (
            kept,
            name,
        )
    states = [json.loads(each.checkpoint_bytes("step", "state.json")) for each in (ours, theirs)]
    for state in states:
        for measured in ("seconds", "validation_seconds", "checkpoint_seconds", "peak_bytes"):
            del state[measured]
        del state["checksum"]
    assert states[0] == states[1]
    assert ours.metrics_lines() == theirs.metrics_lines()


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3])
def test_killed_before_a_save_it_repeats_the_epoch_and_ends_the_same(
    trainer: Trainer, whole: Trainer, killed_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.train(STAGE, scripted_validation(VALUES, interrupt_at=killed_at))
    state, _ = trainer.train(STAGE, scripted_validation(VALUES[killed_at:]))
    assert (state.step, state.epoch, state.finished) == (12, 4, True)
    assert_same_run(trainer, whole)


@pytest.mark.parametrize("kept", ["step", "best"])
def test_killed_after_a_save_it_goes_on_and_ends_the_same(
    trainer: Trainer, whole: Trainer, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save
    saved: list[str] = []

    def killing(folder: Path, *rest: object, **named: object) -> None:
        save(folder, *rest, **named)
        saved.append(folder.name.partition("_")[0])
        if saved.count(kept) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killing)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(STAGE, scripted_validation(VALUES))
    # After the best of the second epoch is written, the newest state is still the first's.
    trainer.train(STAGE, scripted_validation(VALUES[2:] if kept == "step" else VALUES[1:]))
    assert_same_run(trainer, whole)


def test_killed_in_the_middle_of_an_epoch_nothing_is_logged_twice(
    trainer: Trainer, whole: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = LossMeter.flush
    calls = []

    def killing(meter: LossMeter, lr_factor: float) -> dict[str, float]:
        calls.append(flush(meter, lr_factor))
        # After step 4, the first of the second epoch.
        if len(calls) == 3:
            raise KeyboardInterrupt
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(LossMeter, "flush", killing)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(STAGE, scripted_validation(VALUES))
    # The line was cut off while it was written.
    with (trainer.folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "train", "st')
    trainer.train(STAGE, scripted_validation(VALUES[1:]))
    assert_same_run(trainer, whole)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(1, 13))
def test_killed_at_any_step_with_a_checkpoint_each_it_ends_the_same(
    trainer: Trainer, whole: Trainer, step: int, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def killing(folder: Path, *rest: object, **named: object) -> None:
        last = folder.name == f"step_{step:08d}"
        if last and moment == "before":
            raise KeyboardInterrupt
        save(folder, *rest, **named)
        if last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killing)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(STAGE, scripted_validation(VALUES), EVERY_STEP)
    kept = step if moment == "after" else step - 1
    assert max(checkpoint.checkpoints_by_step(trainer.folder.stage("train")), default=0) == kept
    # An epoch is three steps; whether it has been validated stands in the checkpoint at its end.
    trainer.train(STAGE, scripted_validation(VALUES[kept // 3 :]), EVERY_STEP)
    assert_same_run(trainer, whole)


# It asks before each of an epoch's three steps and after the last, then at the stage's end.
@pytest.mark.parametrize("time", range(1, 18))
def test_asked_to_stop_it_saves_and_continuing_ends_the_same(
    trainer: Trainer, whole: Trainer, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs, steps = divmod(time - 1, 4)
    with monkeypatch.context() as patch:
        request_stop_at(patch, time)
        # No epoch whose end it stops at is validated before.
        with pytest.raises(signals.Stopped):
            trainer.train(STAGE, scripted_validation(VALUES[:epochs]), SELDOM)
    state = json.loads(trainer.checkpoint_bytes("step", "state.json"))
    assert state["step"] == 3 * epochs + steps
    # An epoch has 40 rows: two batches of 16, and one of 8.
    assert (state["epoch"], state["rows"]) == (epochs, 40 * epochs + min(40, 16 * steps))
    trainer.train(STAGE, scripted_validation(VALUES[epochs:]), SELDOM)
    assert_same_run(trainer, whole)


def test_without_a_wish_there_are_checkpoints_of_bests_and_of_the_end_alone(
    trainer: Trainer,
) -> None:
    trainer.train(STAGE, scripted_validation(VALUES), CheckpointPlan(keep=100))
    assert list(checkpoint.checkpoints_by_step(trainer.folder.stage("train"))) == [12, 6, 3]
    assert list(checkpoint.checkpoints_by_step(trainer.folder.stage("train"), "best")) == [6, 3]


def test_lines_that_were_lost_are_told_and_the_run_goes_on(
    trainer: Trainer, whole: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.train(STAGE, scripted_validation(VALUES, interrupt_at=2))
    path = trainer.folder.path / "metrics.jsonl"
    # An epoch's lines are losses in its middle and at its end, and its validation's figures.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[3:6]]))
    state, _ = trainer.train(STAGE, scripted_validation(VALUES[2:]))
    assert capsys.readouterr().err == (
        f"{path} has lost 2 of 6 lines of stage train; the run goes on, its curves have a gap\n"
    )
    assert (state.step, state.finished) == (12, True)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert trainer.checkpoint_bytes("step", file) == whole.checkpoint_bytes("step", file)


def test_a_stage_equals_the_plain_loop(trainer: Trainer) -> None:
    encoder = replace(ENCODER, embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0)
    rates = ScheduleConfig(shape="linear", warmup_steps=2)
    stage = replace(
        STAGE,
        epochs=2,
        validation=None,
        objectives={"next": NextItemConfig(weight=0.3), "cloze": ClozeConfig(weight=2.0)},
        optimizer=OptimizerConfig(method="sgd", lr=0.5, beta1=0.0, clip_norm=0.2, schedule=rates),
    )
    ours, theirs = (trainer.new_model(stage, encoder).double() for _ in range(2))
    train(ours, trainer.loader(stage), stage, trainer.stage_run())
    batches = [batch for epoch in range(2) for batch in trainer.loader(stage).batches(epoch)]
    # Two steps of warm-up, then four of linear decay.
    for batch, factor in zip(batches, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25], strict=True):
        losses = theirs.losses(batch)
        loss = 0.3 * losses["next"].total / losses["next"].count
        loss = loss + 2.0 * losses["cloze"].total / losses["cloze"].count
        parameters = list(theirs.parameters())
        grads = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum((grad**2).sum() for grad in grads))
        assert norm > 0.2
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                # torch adds 1e-6 to the norm.
                parameter -= 0.5 * factor * 0.2 / (norm + 1e-6) * grad
    # Six steps in float64.
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_finished_stage_is_not_trained_again(trainer: Trainer) -> None:
    trainer.train(STAGE, scripted_validation(VALUES))
    before = trainer.checkpoint_bytes("step", "state.json")
    state, model = trainer.train(STAGE, scripted_validation([]))
    assert state.finished
    assert trainer.checkpoint_bytes("step", "state.json") == before
    again = trainer.new_model(STAGE)
    checkpoint.load_weights(newest(trainer, "best"), again)
    for ours, best in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, best)


def test_another_seed_trains_another_model(trainer: Trainer, whole: Trainer) -> None:
    stage = replace(STAGE, validation=None)
    model = trainer.new_model(stage)
    train(model, trainer.loader(stage), stage, replace(trainer.stage_run(), seed=1))
    # Only dropout hangs on the seed given here; order and weights are those of seed 0.
    ours = trainer.checkpoint_bytes("step", "model.safetensors")
    assert ours != whole.checkpoint_bytes("step", "model.safetensors")


def test_a_number_of_steps_ends_the_stage_in_the_middle_of_an_epoch(trainer: Trainer) -> None:
    state, _ = trainer.train(replace(STAGE, steps=4), scripted_validation([0.1, 0.2]))
    assert (state.step, state.epoch, state.finished) == (4, 2, True)


def test_without_validation_the_last_state_stays(trainer: Trainer) -> None:
    state, model = trainer.train(replace(STAGE, validation=None))
    assert (state.best_epoch, state.finished) == (None, True)
    again = trainer.new_model(STAGE)
    checkpoint.load_weights(newest(trainer, "step"), again)
    for ours, last in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, last)
    assert not checkpoint.checkpoints_by_step(trainer.folder.stage("train"), "best")


def test_every_line_says_stage_step_epoch_and_each_loss(trainer: Trainer) -> None:
    trainer.train(replace(STAGE, epochs=1), scripted_validation([0.1]))
    lines = trainer.folder.metrics()
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("train", 2), ("train", 3), ("train", 3),
    ]  # fmt: skip
    assert set(lines[0]) == {
        "stage", "step", "epoch", "train/loss", "train/loss/next", "train/loss/cloze",
        "train/lr", "train/items", "train/items_per_second",
        "train/accuracy/next", "train/accuracy/cloze",
    }  # fmt: skip
    assert all(0.0 <= lines[0][f"train/accuracy/{key}"] <= 1.0 for key in ("next", "cloze"))
    assert lines[2]["val/hr@10"] == 0.1
    # Steps 1 and 2 (0-based 0 and 1) of five of warm-up: the line gives the rate of the last.
    assert lines[0]["train/lr"] == pytest.approx(0.01 * 2 / 5)


@pytest.mark.parametrize(
    ("asked", "steps", "interval"),
    [
        (50, 5000, 50),
        (50, 1000, 50),
        (50, 400, 20),
        (50, 60, 5),
        (50, 3, 5),
        (2, 60, 2),
        (50, inf, 50),
    ],
)
def test_a_short_stage_has_lines_enough_for_a_curve(
    asked: int, steps: float, interval: int
) -> None:
    limits = Limits(steps=steps, rows=inf, tokens=inf)
    assert log_interval(replace(STAGE, log_every=asked), limits) == interval


def test_items_are_those_of_the_clean_windows(trainer: Trainer, loop_corpus: Corpus) -> None:
    state, _ = trainer.train(replace(STAGE, epochs=2, validation=None))
    lengths = [
        int(stop - start) - 2 for start, stop in zip(loop_corpus.offsets, loop_corpus.offsets[1:])
    ]
    assert state.items == 2 * sum(min(length, 7) for length in lengths)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_objective(trainer: Trainer) -> None:
    stage = replace(STAGE, objectives={"next": NextItemConfig()}, rank_by=None)
    stage = replace(stage, optimizer=OptimizerConfig(method="sgd", lr=1e30))
    with pytest.raises(FloatingPointError) as caught:
        trainer.train(stage, scripted_validation(VALUES))
    said = str(caught.value)
    assert said.startswith(
        "stage train, step 2, epoch 0: the loss of next is not finite, for rows "
    )
    assert "lower the learning rate or clip the gradient" in said
    stored = trainer.folder.read(NonFiniteRecord)
    assert stored is not None
    assert (stored.step, len(stored.shares[0].rows)) == (2, 16)
    assert not checkpoint.checkpoints_by_step(trainer.folder.stage("train"))


def refusal(trainer: Trainer, **changes: object) -> str:
    """What is said of a checkpoint in whose state these fields are changed (...: taken out)."""
    trainer.train(replace(STAGE, epochs=1), scripted_validation([0.1]))
    path = newest(trainer, "step") / "state.json"
    state = {**json.loads(path.read_text()), **changes}
    del state["checksum"]
    path.write_text(
        checkpoint.state_text({name: value for name, value in state.items() if value is not ...})
    )
    with pytest.raises(InputError) as caught:
        trainer.train(STAGE, scripted_validation(VALUES))
    return str(caught.value)


def test_a_checkpoint_that_lacks_fields_is_refused(trainer: Trainer) -> None:
    said = refusal(trainer, stale=...)
    assert "state.json: stale is 'missing'; allowed: int; use another checkp" in said


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", "3", "state.json: step is '3'; allowed: int; use another checkpoint"),
        ("epoch", True, "state.json: epoch is True; allowed: int"),
        ("items", None, "state.json: items is None; allowed: int"),
        ("finished", 0, "state.json: finished is 0; allowed: bool"),
        ("seconds", "nan", "state.json: seconds is 'nan'; allowed: float"),
        ("best_value", [0.1], "state.json: best_value is [0.1]; allowed: float | None"),
    ],
)
def test_a_checkpoint_with_fields_of_other_types_is_refused(
    trainer: Trainer, name: str, value: object, message: str
) -> None:
    assert message in refusal(trainer, **{name: value})


def test_a_checkpoint_names_its_corpus_and_no_other_is_continued(trainer: Trainer) -> None:
    said = refusal(trainer, fingerprint="abc")
    assert "state.json belongs to a corpus with fingerprint abc, not " in said
    assert trainer.corpus.fingerprint in said


def inputs(counts: dict[str, list[float]]) -> StepInputs:
    """What a meter reads of a step: how much each row counts for each objective."""
    none = torch.zeros(0, dtype=torch.int64)
    targets = {
        key: Targets(read_P=none, offsets_R=none, target_counts_R=double(each))
        for key, each in counts.items()
    }
    return StepInputs((), targets, {}, {key: len(each) for key, each in counts.items()})


def double(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def factors(normalize: str, trainer: Trainer) -> list[float]:
    """Of a step whose two objectives count 3 and 4 things on five rows, with weights 2 and 0.5."""
    objectives = {"next": NextItemConfig(weight=2.0), "cloze": ClozeConfig(weight=0.5)}
    stage = replace(STAGE, normalize=normalize, objectives=objectives)
    pieces = [
        inputs({"next": [1.0, 0.0, 1.0], "cloze": [1.0, 1.0, 1.0]}),
        inputs({"next": [1.0, 0.0], "cloze": [0.0, 1.0]}),
    ]
    return factors_of(pieces, stage, trainer)


def factors_of(pieces: list[StepInputs], stage: StageConfig, trainer: Trainer) -> list[float]:
    counts_2K = count_targets(pieces, list(stage.objectives))[:, :2].T.flatten()
    weights_K = double([each.weight for each in stage.objectives.values()])
    factors: list[float]
    factors = loss_factors(counts_2K, weights_K, stage.normalize, trainer.accelerator).tolist()
    return factors


def test_terms_divide_each_sum_by_its_own_count(trainer: Trainer) -> None:
    assert factors("terms", trainer) == [2.0 / 3, 0.5 / 4]


def test_sequences_divide_every_sum_by_the_rows(trainer: Trainer) -> None:
    assert factors("sequences", trainer) == [2.0 / 5, 0.5 / 5]


def test_nothing_counted_is_no_division_by_zero(trainer: Trainer) -> None:
    stage = replace(STAGE, objectives={"next": NextItemConfig()}, rank_by=None)
    assert factors_of([inputs({"next": [0.0]})], stage, trainer) == [1.0]
