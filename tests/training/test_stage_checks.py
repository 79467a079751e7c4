"""What a stage cannot do is refused when the run is built; what shows later, after one epoch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from accelerate import Accelerator

from research.data.batch import Batch, fields_of, pack
from research.data.catalogue import Catalogue
from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.model.backbone import Direction
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import Corruption, Objective, ObjectiveConfig, Targets, View
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import ContrastConfig
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import (
    BinaryCrossEntropy,
    ItemLossConfig,
    ItemTargets,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mixed_softmax import MixedSoftmax
from research.objectives.next_item import NextItem, NextItemConfig, NextItemShift
from research.objectives.sp import SPConfig
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.parts import RunParts, stage_parts
from research.studies.cost_estimate import estimate_cost
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.stage_run import CheckpointPlan
from research.training.uncertainty import UncertaintyWeights
from tests.support.small_runs import ENCODER, FINETUNE, QUIET, config_of, corpus_in, input_error_of
from tests.support.synthetic import batch_of, catalogue_of, write_histories


def only(objectives: dict[str, ObjectiveConfig], **changes: object) -> RunConfig:
    """A run of one stage, without a corpus yet."""
    stage = replace(FINETUNE, objectives=objectives, rank_by="next", **changes)
    return RunConfig(encoder=ENCODER, stages=(stage,))


def on(config: RunConfig, folder: Path) -> RunConfig:
    return replace(config, corpus=str(folder))


def three(folder: Path) -> Path:
    """Everyone has three events, of which two are held out."""
    histories = [[user % 5, (user + 1) % 5, (user + 2) % 5] for user in range(20)]
    return write_histories(folder / "three", histories, num_items=5).folder


def test_a_next_item_stage_without_any_target_is_refused(tmp_path: Path) -> None:
    message = input_error_of(on(only({"next": NextItemConfig()}), three(tmp_path)), tmp_path)
    assert message == (
        "stage finetune: objective next can have no target: no row has a second item, so no item "
        "can be predicted (the longest training row has 1 items, after what is held out); leave "
        "next out, set its weight to 0, hold less out, or raise encoder.length"
    )


def test_segments_of_rows_of_one_item_are_refused(tmp_path: Path) -> None:
    config = only({"next": NextItemConfig(weight=0.0), "sp": SPConfig(), "cloze": ClozeConfig()})
    message = input_error_of(on(config, three(tmp_path)), tmp_path)
    assert "objective sp can have no target: no row has the two items" in message


@pytest.mark.parametrize(("key", "kind"), [("aap", AAPConfig), ("map", MAPConfig)])
def test_attributes_of_held_out_items_alone_are_refused(
    key: str, kind: type, tmp_path: Path
) -> None:
    histories = [[0, 1, 2, 3, 4]] * 8
    corpus = write_histories(
        tmp_path / "late", histories, num_items=5, attributes=[[], [], [], [0], [1]]
    )
    config = only({"next": NextItemConfig(), key: kind()})
    message = input_error_of(on(config, corpus.folder), tmp_path)
    assert (
        f"objective {key} can have no target: no item of the training part has an attr" in message
    )


def test_aap_may_have_rows_of_one_item_when_a_row_may_hide_none(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "one", [[0, 1, 2]] * 4, num_items=3, attributes=[[0], [1], [0]], num_attributes=2
    )
    assert corpus.num_attributes == 2
    aap = AAPConfig(corruption=MaskItems(rate=0.5, at_least_one=False))
    config = on(only({"next": NextItemConfig(weight=0.0), "aap": aap}, epochs=3), corpus.folder)
    assert execute(config, tmp_path / "run", options=QUIET).status == "finished"
    forced = only({"next": NextItemConfig(weight=0.0), "aap": AAPConfig()}, epochs=3)
    message = input_error_of(on(forced, corpus.folder), tmp_path / "forced")
    assert "in a row of one item that item is masked, and no other is left" in message


def test_weight_0_is_exempt(tmp_path: Path) -> None:
    config = only({"next": NextItemConfig(weight=0.0), "cloze": ClozeConfig()}, epochs=1)
    summary = execute(on(config, three(tmp_path)), tmp_path / "run", options=QUIET)
    assert summary.status == "finished"


class NeverTargets(NextItem):
    """Counts nothing, and does not say why."""

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        return None


@pytest.mark.parametrize("limits", [{"epochs": 3}, {"epochs": None, "steps": 1}])
def test_what_only_training_shows_is_refused_after_an_epoch_or_the_stage(
    limits: dict[str, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NextItem, "no_target_reason", NeverTargets.no_target_reason)
    config = on(only({"next": NextItemConfig()}, **limits), three(tmp_path))
    with pytest.raises(InputError) as caught:
        execute(config, tmp_path / "run", options=QUIET)
    assert str(caught.value) == (
        "stage finetune: objective next had no target: none of the 20 rows that it was shown has "
        "a target, so nothing is learned from it; leave it out, set objectives.next.weight to 0, "
        "or give it other windows or a corruption that picks more"
    )


def test_what_counts_nothing_is_refused_again_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NextItem, "no_target_reason", NeverTargets.no_target_reason)
    batches = BatchConfig(sequences_per_batch=8)
    config = on(only({"next": NextItemConfig()}, epochs=1, batches=batches), three(tmp_path))
    # A checkpoint in the middle of the only epoch, from which the second try goes on.
    options = replace(QUIET, checkpoints=CheckpointPlan(steps=1))
    for _ in range(2):
        with pytest.raises(InputError, match="none of the 20 rows that it was shown has a target"):
            execute(config, tmp_path / "run", options=options)


def test_a_moment_that_meets_nothing_to_count_tells_what_a_run_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NextItem, "no_target_reason", NeverTargets.no_target_reason)
    config = on(only({"next": NextItemConfig()}), three(tmp_path))
    assert estimate_cost(config, "data", Accelerator(cpu=True)).stages["finetune"] > 0.0


def test_the_share_of_rows_without_a_target_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = [[0, 1, 2]] * 3 + [[0, 1, 2, 3]]
    corpus = write_histories(tmp_path / "short", histories, num_items=4)
    config = on(only({"next": NextItemConfig()}, epochs=2), corpus.folder)
    execute(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("finetune: next: 75.0% of 4 rows have no target") == 1


def test_states_of_all_rows_cannot_be_cut_into_micro_batches(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = only(
        {"next": NextItemConfig(), "contrast": ContrastConfig()},
        batches=BatchConfig(sequences_per_batch=8, micro_batches=2),
    )
    message = input_error_of(on(config, corpus.folder), tmp_path)
    assert "objective contrast compares the states of all rows of a step" in message
    assert "batches.micro_batches is 2; set it to 1" in message


@pytest.mark.parametrize("head", [HeadConfig(table="own"), HeadConfig(bias=True)])
def test_a_mask_is_no_negative_of_a_head_without_a_score_for_it(
    tmp_path: Path, head: HeadConfig
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    loss = BinaryCrossEntropy(number=3, negatives=NegativesConfig(include_mask=True))
    config = only({"next": NextItemConfig(loss=loss, head=head)})
    message = input_error_of(on(config, corpus.folder), tmp_path)
    assert "negatives.include_mask draws the mask, but only the encoder's table has a" in message


@pytest.mark.parametrize("key", ["items", "train", "type", "update", "get"])
def test_a_name_that_torch_keeps_names_no_objective(key: str) -> None:
    with pytest.raises(InputError, match=f"torch keeps the name '{key}' for itself"):
        StageConfig(objectives={key: NextItemConfig()})


def test_a_row_alone_in_its_step_has_no_others_to_be_told_from(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = only(
        {"next": NextItemConfig(), "contrast": ContrastConfig()},
        batches=BatchConfig(sequences_per_batch=1),
    )
    message = input_error_of(on(config, corpus.folder), tmp_path)
    assert "objective contrast compares each row with the other rows of its step" in message
    assert "batches.sequences_per_batch is 1; set it to 2 or more" in message


def test_nothing_is_in_sight_where_the_only_item_of_a_row_is_hidden(tmp_path: Path) -> None:
    attributes = [[0]] * 5
    histories = [[user % 5, (user + 1) % 5, (user + 2) % 5] for user in range(20)]
    corpus = write_histories(tmp_path / "three", histories, num_items=5, attributes=attributes)
    config = only({"next": NextItemConfig(weight=0.0), "aap": AAPConfig()})
    message = input_error_of(on(config, corpus.folder), tmp_path)
    assert "objective aap can have no target: in a row of one item that item is masked" in message


@dataclass(frozen=True, kw_only=True)
class CausalOnly(TransformerConfig):
    """A backbone that reads from the oldest to the newest alone."""

    @property
    def directions(self) -> Collection[Direction]:
        """One."""
        return ("causal",)


def test_a_direction_that_the_encoder_lacks_is_refused(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    encoder = CausalOnly(**vars(ENCODER))
    run_parts = RunParts.of(replace(config_of(corpus, FINETUNE), encoder=encoder), "data")
    assert len(stage_parts(run_parts, Accelerator(cpu=True))) == 1
    both = replace(FINETUNE, objectives={"next": NextItemConfig(), "cloze": ClozeConfig()})
    run_parts = replace(
        run_parts, config=replace(run_parts.config, stages=(replace(both, rank_by="next"),))
    )
    with pytest.raises(InputError, match=r"stage finetune: objective cloze needs bidirectional"):
        stage_parts(run_parts, Accelerator(cpu=True))


@dataclass(frozen=True, kw_only=True)
class Marked(NextItemShift):
    """Sets a field."""

    fields: ClassVar[tuple[str, ...]] = ("segment",)

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        view = super().view(batch, catalogue)
        packed = replace(view.packed, fields={"segment": view.packed.positions_T % 2})
        return replace(view, packed=packed)


@pytest.mark.parametrize(
    "loss",
    [
        SampledSoftmax(number=2, log_q=True, corrected=True),
        InBatchSoftmax(log_q=True, q_from="training", corrected=True),
        MixedSoftmax(number=2, corrected=True),
    ],
)
def test_no_weight_is_learned_for_a_loss_that_may_be_below_0(
    tmp_path: Path, loss: ItemLossConfig
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = on(only({"next": NextItemConfig(loss=loss)}, epochs=1), corpus.folder)
    (stage,) = config.stages
    learned = replace(config, stages=(replace(stage, combination=UncertaintyWeights()),))
    assert "has a loss that can be below 0" in input_error_of(learned, tmp_path)


def test_a_field_that_the_encoder_would_not_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = on(only({"next": NextItemConfig()}, epochs=1), corpus.folder)
    build = NextItemConfig.build

    def marked(self: NextItemConfig, *given: object) -> Objective:
        objective = build(self, *given)  # type: ignore[arg-type]
        objective.corruption = Marked()
        return objective

    monkeypatch.setattr(NextItemConfig, "build", marked)
    message = input_error_of(config, tmp_path)
    assert "sets the token field 'segment', which encoder (TransformerConfig) does" in message
    read = replace(config, encoder=replace(ENCODER, segments=2))
    assert execute(read, tmp_path / "run", options=QUIET).status == "finished"


def test_a_field_that_one_corruption_sets_is_0_in_those_beside_it() -> None:
    catalogue = catalogue_of([[1, 2, 3], [4, 5]], 6)
    shared = ModelComponents(replace(ENCODER, segments=2), catalogue, 0)
    objectives = {key: NextItemConfig().build(shared, 0) for key in ("plain", "marked")}
    objectives["marked"].corruption = Marked()
    model = MultiObjectiveModel(shared.encoder, objectives, catalogue)
    (encoding,) = model.prepare(batch_of([[1, 2, 3], [4, 5]], length=4)).encodings
    assert encoding.packed.items_T.tolist() == [1, 2, 4, 1, 2, 4]
    assert encoding.packed.fields["segment"].tolist() == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("config", [SPConfig(), NextItemConfig()])
def test_an_encoder_that_reads_too_few_items_is_told_of(
    config: ObjectiveConfig, tmp_path: Path
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    objectives = {"next": NextItemConfig(), "mine": config}
    run = replace(on(only(objectives), corpus.folder), encoder=replace(ENCODER, length=1))
    if isinstance(config, NextItemConfig):
        # It reads one item and predicts the next.
        assert execute(run, tmp_path / "run", options=QUIET).status == "finished"
    else:
        message = input_error_of(run, tmp_path)
        assert "objective mine can have no target: no row has the two items" in message
        assert message.endswith("hold less out, or raise encoder.length")


# What an objective's author may get wrong


@dataclass(frozen=True, kw_only=True)
class Unweighted(ObjectiveConfig):
    def build(self, shared: ModelComponents, seed: int) -> Objective:
        raise NotImplementedError


def test_an_objective_has_a_weight() -> None:
    with pytest.raises(InputError, match="Unweighted has no field weight: float"):
        Unweighted()


class Loose(Corruption):
    """Not a dataclass."""

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        raise NotImplementedError


@pytest.mark.parametrize("corruption", [Loose(), None])
def test_a_corruption_is_a_frozen_dataclass(
    corruption: Corruption | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    build = NextItemConfig.build

    def loose(self: NextItemConfig, *given: object) -> Objective:
        objective = build(self, *given)  # type: ignore[arg-type]
        objective.corruption = corruption
        return objective

    monkeypatch.setattr(NextItemConfig, "build", loose)
    message = input_error_of(on(only({"next": NextItemConfig()}), corpus.folder), tmp_path)
    assert "objective next: its corruption is " in message
    assert "it must be a dataclass below Corruption" in message


@dataclass(frozen=True, kw_only=True)
class Whole(Corruption):
    """Shows the item to predict too."""

    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        return View.of_rows(batch.packed, batch.packed.last_S, batch.packed.items_T[:0])


def test_a_view_of_more_than_the_encoder_reads_is_told() -> None:
    catalogue = catalogue_of([[1, 2, 3], [4, 5]], 6)
    shared = ModelComponents(replace(ENCODER, length=2), catalogue, 0)
    objective = NextItemConfig().build(shared, 0)
    objective.corruption = Whole()
    model = MultiObjectiveModel(shared.encoder, {"next": objective}, catalogue)
    with pytest.raises(AssertionError, match="Whole shows 3 tokens in a row, the encoder reads 2"):
        model.prepare(batch_of([[1, 2, 3], [4, 5]], length=2))


def test_targets_that_are_no_integers_are_named() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    counts = torch.zeros(0, dtype=torch.float64)
    with pytest.raises(AssertionError, match=r"ItemTargets\.items_P is of torch\.bool; "):
        ItemTargets(read_P=none, offsets_R=none, target_counts_R=counts, items_P=none.bool())

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Undeclared(Targets):
        halves_R: torch.Tensor

    with pytest.raises(AssertionError, match=r"Undeclared\.halves_R must say by its metadata how"):
        Undeclared(read_P=none, offsets_R=none, target_counts_R=counts, halves_R=none)


class Backwards(NextItem):
    """Reads tokens from the newest on."""

    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        targets = super().targets(view, batch, catalogue)
        return replace(targets, read_P=targets.read_P.flip(0))


class Uncoupled(NextItem):
    """Says that it compares states, and does not."""

    couples_rows = "states"


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Backwards, AssertionError, "objective next: read_P must be ascending"),
        (
            Uncoupled,
            NotImplementedError,
            "Uncoupled couples rows by 'states' and has no loss_with_other_rows",
        ),
    ],
)
def test_what_would_train_another_loss_in_silence_is_an_error(
    kind: type[NextItem], error: type[Exception], message: str
) -> None:
    catalogue = catalogue_of([[1, 2, 3], [4, 5]], 6)
    shared = ModelComponents(ENCODER, catalogue, 0)
    objectives = {"next": kind(NextItemConfig(), shared, 0)}
    model = MultiObjectiveModel(shared.encoder, objectives, catalogue)
    with pytest.raises(error, match=message):
        model.losses(batch_of([[1, 2, 3], [4, 5]], length=4))


def test_times_are_laid_beside_items_where_they_are_asked_for(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "timed", [[0, 1, 2], [3]], num_items=4, timestamps=[[10, 20, 30], [7]]
    )
    assert set(fields_of(corpus)) == {"time"}
    ranges = LeaveOneOut().split(corpus).training
    packed = pack(corpus, ranges, ["time"])
    assert packed.items_T.tolist() == [0, 3]
    assert packed.fields["time"].tolist() == [10, 7]
    assert pack(corpus, ranges).fields == {}


def test_masked_rows_keep_their_times(tmp_path: Path) -> None:
    batch = batch_of([[1, 2, 3], [4, 5]], length=4)
    times_T = batch.packed.items_T * 100
    batch = replace(batch, packed=replace(batch.packed, fields={"time": times_T}))
    catalogue = catalogue_of([[1, 2, 3], [4, 5]], 6)
    view = MaskItems(rate=0.5).view(batch, catalogue)
    assert view.packed.fields["time"].tolist() == [100, 200, 300, 400, 500]
    shifted = NextItemShift().view(batch, catalogue)
    assert shifted.packed.fields["time"].tolist() == [100, 200, 400]
