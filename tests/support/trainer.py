"""`Trainer` trains a small stage on a small corpus, for the tests of the training loop."""

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
# It has everything whose state a checkpoint must restore: random masks, negatives and dropout, the
# warm-up, the moments of the optimizer.
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
    """Trains stages on a corpus in one run folder, each time from newly built modules.

    Two calls of `train` therefore act like two processes that find the same checkpoints.
    """

    def __init__(self, corpus: Corpus, path: Path, accelerator: Accelerator) -> None:
        self.folder = RunFolder(path)
        self.accelerator = accelerator
        split = LeaveOneOut().split(corpus)
        self.catalogue = Catalogue.of(corpus, split)
        self.corpus, self.split = corpus, split

    def new_model(
        self, stage: StageConfig, sizes: TransformerConfig = ENCODER
    ) -> MultiObjectiveModel:
        """Return an encoder and the stage's objectives, with initial weights."""
        encoder = encoder_of(sizes, self.corpus.num_items, seed=0)
        built = {
            key: objective.build(ModelComponents(sizes, self.catalogue, 0), 0)
            for key, objective in stage.objectives.items()
        }
        return MultiObjectiveModel(encoder, built, self.catalogue)

    def loader(self, stage: StageConfig) -> Loader:
        """Return a loader of the stage's training windows."""
        windows = stage.windows.windows(self.split.training, ENCODER.length)
        return Loader(self.corpus, windows, stage.batches, length=ENCODER.length, seed=0)

    def train(
        self,
        stage: StageConfig,
        validate: Callable[[], Mapping[str, float]] | None = None,
        plan: CheckpointPlan = EVERY_EPOCH,
    ) -> tuple[StageState, MultiObjectiveModel]:
        """Train the stage, or continue it from its newest checkpoint.

        Returns the state at its end and the trained model.
        """
        model = self.new_model(stage)
        run = replace(self.stage_run(plan), validate=validate)
        state = train(model, self.loader(stage), stage, run)
        return state, model

    def stage_run(self, plan: CheckpointPlan = EVERY_EPOCH, *, quiet: bool = True) -> StageRun:
        """Return what the loop needs beside the stage, such as the run folder and the seed."""
        return StageRun(
            accelerator=self.accelerator, folder=self.folder, seed=0, plan=plan, quiet=quiet
        )

    def checkpoint_bytes(self, kind: str, name: str) -> bytes:
        """Return the content of a file in the newest checkpoint of a kind (`step` or `best`)."""
        newest = next(iter(checkpoints_by_step(self.folder.stage("train"), kind).values()))
        return (newest / name).read_bytes()

    def metrics_lines(self) -> list[dict[str, object]]:
        """Return the lines of metrics.jsonl without items per second, which differ between runs."""
        lines = self.folder.metrics()
        return [
            {name: value for name, value in line.items() if "items_per_second" not in name}
            for line in lines
        ]


def request_stop_at(patch: pytest.MonkeyPatch, check: int) -> None:
    """Let the loop see a stop signal from its `check`-th check for one, counted from 1."""
    checks = itertools.count(1)
    patch.setattr(signals, "stop_requested", lambda: next(checks) >= check)


def scripted_validation(
    values: list[float], interrupt_at: int | None = None
) -> Callable[[], dict[str, float]]:
    """Return a validation that gives these values of hr@10 in turn.

    The call number `interrupt_at`, from 0, raises KeyboardInterrupt instead.
    """
    given: Iterator[tuple[int, float]] = iter(enumerate(values))

    def validate() -> dict[str, float]:
        number, value = next(given)
        if number == interrupt_at:
            raise KeyboardInterrupt
        return {"val/hr@10": value}

    return validate
