"""The stages of a run, one after another, and the record of each one's result.

Each stage gets the weights of those before it, and is then trained, or copied from another run that
has trained the same stage. `execute.py` calls `train_stages`, which calls the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from research.checkpoint.transfer import TransferReport, transfer_weights
from research.distributed.collectives import Processes
from research.evaluation.ranker import Ranker
from research.runs.parts import RunParts, StageParts, validation_of
from research.runs.stage_reuse import reuse_stage
from research.storage.records import (
    CarriedRecord,
    CostRecord,
    CoverageRecord,
    ImportRecord,
    RunRecord,
    StageCostRecord,
    StageResult,
)
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import stage_origin
from research.training.config import StageConfig
from research.training.loop import train
from research.training.stage_log import ALL_MISSED
from research.training.stage_run import CheckpointPlan, StageRun, Watch
from research.training.state import StageState


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """A trained ranker, and how it was made, in the fields of `RunSummary` with the same names."""

    ranker: Ranker
    """The ranker of the last stage, with its best weights."""
    cost: CostRecord
    """Parameters, wall time and tokens of the run."""
    best: Mapping[str, StageResult] = field(default_factory=dict)
    """How each stage ended, by its name."""
    carried: Mapping[str, CarriedRecord] = field(default_factory=dict)
    """Where the initial weights came from, by stage that did not begin from scratch."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """The run that trained it, by stage that was copied from another run."""
    attributes: CoverageRecord | None = None
    """How many items and attributes are covered; None: no objective uses attributes."""
    notes: tuple[str, ...] = ()
    """Notes on stages whose selection metric never changed."""
    imported: ImportRecord | None = None
    """The foreign file that the weights came from; None: they were trained here."""


def train_stages(
    run_parts: RunParts,
    stages: Sequence[StageParts],
    transfers: Sequence[TransferReport],
    record: RunRecord,
    *,
    folder: RunFolder,
    accelerator: Accelerator,
    reuse_from: Sequence[Path],
    plan: CheckpointPlan,
    quiet: bool,
    prefix: str = "",
    watch: Watch | None = None,
) -> TrainingResult:
    """Train every stage, each from the weights of those before it.

    `transfers` says, for each stage, which parameters the warm start has filled; it is empty
    without one. A stage that a run of `reuse_from` has finished, with the same hash as in `record`,
    is copied from there and not trained.
    """
    run = StageRun(
        accelerator=accelerator,
        folder=folder,
        seed=run_parts.config.seed,
        plan=plan,
        shard_weights=run_parts.config.compute.shard_weights,
        quiet=quiet,
        prefix=prefix,
        watch=watch,
    )
    coverage: CoverageRecord | None = None
    if any(stage.model.uses_attributes for stage in stages):
        coverage = run_parts.catalogue.coverage
        run.say(coverage_line(coverage))
    extensions = {
        extension.stage: extension.step for extension in record.extensions if extension.ended
    }
    outcomes: list[StageOutcome] = []
    for index, stage in enumerate(stages):
        name = stage.config.name
        transfer = transfer_from_stages(
            stages[:index], stage, transfers[index] if transfers else None
        )
        stage_run = replace(
            run, validate=validation_of(run_parts, stage), extended_after=extensions.get(name)
        )
        outcomes.append(train_stage(stage, transfer, record.stages[name], stage_run, reuse_from))
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    return TrainingResult(
        ranker=last.ranker,
        cost=cost_of(outcomes),
        best={outcome.name: outcome.result for outcome in outcomes},
        carried={
            outcome.name: outcome.carried for outcome in outcomes if outcome.carried is not None
        },
        shared={outcome.name: outcome.origin for outcome in outcomes if outcome.origin is not None},
        attributes=coverage,
        notes=tuple(outcome.note for outcome in outcomes if outcome.note is not None),
    )


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """How one stage came to its end."""

    name: str
    """The stage's name."""
    state: StageState
    """Where it ended."""
    carried: CarriedRecord | None
    """Where its initial weights came from; None: it started from scratch."""
    origin: str | None
    """The run that trained it; None: this one."""
    note: str | None
    """A note on a selection metric that never changed."""
    parameters: int
    """Number of parameters of its model."""

    @property
    def result(self) -> StageResult:
        """What the run's summary says of the stage: its best validation, and its length."""
        return StageResult(
            epoch=self.state.best_epoch,
            value=self.state.best_value,
            epochs=self.state.epoch,
            steps=self.state.step,
            skipped=self.state.skipped,
        )

    @property
    def cost(self) -> StageCostRecord:
        """What the run's summary says of the stage's cost."""
        return StageCostRecord(
            seconds=self.state.seconds,
            items=self.state.items,
            parameters=self.parameters,
            validation_seconds=self.state.validation_seconds,
            checkpoint_seconds=self.state.checkpoint_seconds,
            peak_bytes=self.state.peak_bytes,
        )


def cost_of(outcomes: Sequence[StageOutcome]) -> CostRecord:
    """What the stages of a run cost, without the final evaluation."""
    return CostRecord(
        parameters=outcomes[-1].parameters,
        seconds=sum(outcome.state.seconds for outcome in outcomes),
        shared_seconds=sum(
            outcome.state.seconds for outcome in outcomes if outcome.origin is not None
        ),
        items=sum(outcome.state.items for outcome in outcomes),
        stages={outcome.name: outcome.cost for outcome in outcomes},
    )


def train_stage(
    stage: StageParts,
    transfer: TransferReport | None,
    stage_hash: str,
    run: StageRun,
    reuse_from: Sequence[Path],
) -> StageOutcome:
    """Train a stage, or copy it from a run of `reuse_from` that has finished one of its hash.

    `transfer` says where its weights came from, with which `stage` holds them already.
    """
    name, folder, processes = stage.config.name, run.folder, Processes(run.accelerator)
    if transfer is not None:
        run.say(f"{name}: {transfer.line}")
    processes.from_main(partial(reuse_stage, folder, name, stage_hash, reuse_from))
    state = train(stage.model, stage.loader, stage.config, run)
    origin = processes.from_main(partial(stage_origin, folder, name))
    if origin is not None:
        run.say(f"{name}: copied from {origin}")
    return StageOutcome(
        name=name,
        state=state,
        carried=None if transfer is None else record_of_transfer(transfer),
        origin=origin,
        note=processes.from_main(partial(unmoved_metric_note, stage.config, folder)),
        parameters=sum(parameter.numel() for parameter in stage.model.parameters()),
    )


def record_of_transfer(report: TransferReport) -> CarriedRecord:
    """A transfer of weights as the summary has it."""
    return CarriedRecord(moved=report.moved, new=report.new, left=report.left, rows=report.rows)


def transfer_from_stages(
    earlier: Sequence[StageParts], stage: StageParts, warm_start: TransferReport | None
) -> TransferReport | None:
    """Copy weights of the stages before into a stage, the nearest stage last.

    `warm_start` says what the warm start has filled. Returns where every parameter of the stage
    came from; None: it is the first stage, and starts from scratch.
    """
    report = warm_start
    for source_stage in earlier:
        weights = dict(source_stage.model.named_parameters())
        new_report = transfer_weights(
            weights, stage.model, source=f"stage {source_stage.config.name}"
        )
        report = new_report if report is None else new_report.combined_with(report)
    return report


def unmoved_metric_note(config: StageConfig, folder: RunFolder) -> str | None:
    """A note on a stage whose selection metric was the same at every validation; None: it was not.

    After a single validation there is a note only if the metric was 0.
    """
    if config.validation is None:
        return None
    name = f"val/{config.validation.metric}"
    lines = [line for line in folder.metrics() if line["stage"] == config.name and name in line]
    values = {line[name] for line in lines}
    if len(values) != 1 or (len(lines) == 1 and values != {0.0}):
        return None
    when = "its only validation" if len(lines) == 1 else f"each of its {len(lines)} validations"
    reason = f": {ALL_MISSED}" if lines[0].get("val/missed_share") == 1.0 else ""
    return (
        f"stage {config.name}: {name} was {values.pop():.4g} at {when}, so nothing was selected, "
        f"and the weights of the first, after epoch {lines[0]['epoch']}, were kept{reason}"
    )


def coverage_line(coverage: CoverageRecord) -> str:
    """A line for the terminal: how many attributes there are, and how many items have none."""
    items, without = coverage.items, coverage.items_without
    return (
        f"attributes: {coverage.attributes:,}, of which {coverage.never_seen:,} belong to no "
        f"training item; {without:,} of {items:,} items ({without / items:.1%}) have none"
    )
