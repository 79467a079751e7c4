"""Configs of small runs of one to three stages, for tests of what passes between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.map import MAPConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from tests.support.synthetic import Histories, markov_histories, write_histories

QUIET = RunOptions(quiet=True)
ENCODER = TransformerConfig(length=5, width=4, layers=1, heads=2, feed_forward=8)
S3REC_OBJECTIVES = {"aap": AAPConfig(), "mip": MIPConfig(), "map": MAPConfig(), "sp": SPConfig()}
PRETRAIN = StageConfig(
    name="pretrain",
    objectives=S3REC_OBJECTIVES,
    windows=EveryPrefix(),
    batches=BatchConfig(sequences_per_batch=20),
    epochs=1,
    normalize="sequences",
    validation=None,
)
FINETUNE = StageConfig(
    name="finetune",
    objectives={"next": NextItemConfig()},
    epochs=2,
    validation=ValidationConfig(metric="mrr"),
)
ITEM_TABLE = "encoder.item_table.weight"


def corpus_in(folder: Path, *, names: list[str] | None = None, seed: int = 0) -> Corpus:
    """Write a corpus of 15 users and 10 items; `names` are the raw ids of its items."""
    histories: Histories = markov_histories(num_users=15, num_items=10, length=8, seed=seed)
    return write_histories(folder, histories, num_items=10, item_names=names)


def config_of(corpus: Corpus, *stages: StageConfig, **changes: Any) -> RunConfig:
    """Return the config of a run of these stages on a corpus."""
    return RunConfig(corpus=str(corpus.folder), encoder=ENCODER, stages=stages, **changes)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights in the folder of a checkpoint."""
    return load_file(folder / "model.safetensors")


def frozen(stage: StageConfig) -> StageConfig:
    """Return the stage with so low a learning rate that its last weights are its initial ones."""
    return replace(stage, epochs=1, validation=None, optimizer=OptimizerConfig(lr=1e-30))


def third_stage(**changes: Any) -> StageConfig:
    """Return a frozen third stage, which has two objectives of the pretraining again."""
    objectives = {"next": NextItemConfig(), "mip": MIPConfig(), "map": MAPConfig()}
    return replace(frozen(FINETUNE), name="third", objectives=objectives, **changes)


class OneOfTwo(Accelerator):
    """Accelerate's view of the main process of two; the other one does not exist."""

    @property
    def num_processes(self) -> int:
        return 2


def input_error_of(
    config: RunConfig, tmp_path: Path, accelerator: Accelerator | None = None
) -> str:
    """Return the message with which a run is refused before anything is written."""
    with pytest.raises(InputError) as caught:
        execute(config, tmp_path / "refused", options=QUIET, accelerator=accelerator)
    assert not (tmp_path / "refused").exists()
    return str(caught.value)
