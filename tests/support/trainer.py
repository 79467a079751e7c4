"""A small stage on a small corpus, as a new process would set it up; for the tests of the loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from research.checkpoint.files import checkpoints_by_step
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import BatchConfig, Loader
from research.data.splits import LeaveOneOut
from research.distributed import signals
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.losses import BinaryCrossEntropy
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig, ValidationConfig
from research.training.loop import train
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.stage_run import CheckpointPlan, StageRun
from research.training.state import StageState
from tests.support.synthetic import encoder_of

ENCODER = TransformerConfig(length=6, width=8, layers=1, heads=2, feed_forward=8)
# Everything that could forget where it was: masks, negatives, dropout, warm-up, moments.
STAGE = StageConfig(
    objectives={
        "next": NextItemConfig(loss=BinaryCrossEntropy(number=2)),
        "cloze": ClozeConfig(corruption=MaskItems(random_share=0.1, mask_last_share=0.5)),
    },
    batches=BatchConfig(sequences_per_batch=16),
    epochs=4,
    rank_by="next",
    optimizer=OptimizerConfig(
        method="adamw", lr=0.01, weight_decay=0.01, bias_correction=False, clip_norm=1.0,
        schedule=ScheduleConfig(shape="cosine", warmup_steps=5),
    ),
    validation=ValidationConfig(metric="hr@10", patience=None),
    log_every=2,
)  # fmt: skip


# An epoch of the stage is three steps.
EVERY_EPOCH = CheckpointPlan(steps=3)
VALUES = [0.1, 0.3, 0.2, 0.25]


class Trainer:
    """One run folder and fresh modules over it, as a new process would have them."""

    def __init__(self, corpus: Corpus, path: Path, accelerator: Accelerator) -> None:
        self.folder = RunFolder(path)
        self.accelerator = accelerator
        split = LeaveOneOut().split(corpus)
        self.catalogue = Catalogue.of(corpus, split)
        self.corpus, self.split = corpus, split

    def new_model(
        self, stage: StageConfig, sizes: TransformerConfig = ENCODER
    ) -> MultiObjectiveModel:
        """An encoder and the stage's objectives at their start."""
        encoder = encoder_of(sizes, self.corpus.num_items, seed=0)
        built = {
            key: objective.build(ModelComponents(sizes, self.catalogue, 0), 0)
            for key, objective in stage.objectives.items()
        }
        return MultiObjectiveModel(encoder, built, self.catalogue)

    def loader(self, stage: StageConfig) -> Loader:
        windows = stage.windows.windows(self.split.training, ENCODER.length)
        return Loader(self.corpus, windows, stage.batches, length=ENCODER.length, seed=0)

    def train(
        self,
        stage: StageConfig,
        validate: Callable[[], Mapping[str, float]] | None = None,
        plan: CheckpointPlan = EVERY_EPOCH,
    ) -> tuple[StageState, MultiObjectiveModel]:
        model = self.new_model(stage)
        run = replace(self.stage_run(plan), validate=validate)
        state = train(model, self.loader(stage), stage, run)
        return state, model

    def stage_run(self, plan: CheckpointPlan = EVERY_EPOCH, *, quiet: bool = True) -> StageRun:
        """Where the stage trains."""
        return StageRun(
            accelerator=self.accelerator, folder=self.folder, seed=0, plan=plan, quiet=quiet
        )

    def checkpoint_bytes(self, kind: str, name: str) -> bytes:
        """A file of the stage's newest checkpoint of a kind (step or best)."""
        newest = next(iter(checkpoints_by_step(self.folder.stage("train"), kind).values()))
        return (newest / name).read_bytes()

    def metrics_lines(self) -> list[dict[str, object]]:
        """metrics.jsonl without the speed, which no run repeats."""
        lines = self.folder.metrics()
        return [
            {name: value for name, value in line.items() if "items_per_second" not in name}
            for line in lines
        ]


def request_stop_at(patch: pytest.MonkeyPatch, time: int) -> None:
    """A signal that has come when the loop asks for the time with this number, from 1."""
    asked = itertools.count(1)
    patch.setattr(signals, "stop_requested", lambda: next(asked) >= time)


def scripted_validation(
    values: list[float], interrupt_at: int | None = None
) -> Callable[[], dict[str, float]]:
    """A validation that answers with these values in turn, or kills the run at one of them."""
    given: Iterator[tuple[int, float]] = iter(enumerate(values))

    def validate() -> dict[str, float]:
        number, value = next(given)
        if number == interrupt_at:
            raise KeyboardInterrupt
        return {"val/hr@10": value}

    return validate
