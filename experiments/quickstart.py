"""Do SASRec, BERT4Rec and a two-stage S3-Rec beat the counting rankers on MovieLens-100K?

Command: make quickstart (or python -m research study experiments.quickstart --workers 2
         --threads 1 --no-probe).
Hardware: two CPU cores, no GPU; README.md has the time and the figures.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.s3rec import ENCODER, corrected_objectives, pretraining
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.loader import BatchConfig
from research.data.windows import Sliding, WindowsConfig
from research.model.transformer_block import PreNorm
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.studies.study import Study
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig

# What the choices rest on: validation NDCG@10 of trials, experiments/LOG.md, 2026-11-29. For the
# same seconds of training SASRec had more with windows of 30 items than of 20, 50 or 100, of about
# 100 in a history.
LENGTH = 30
# As wide as the states, as in SASRec's paper: the epochs that a width of 256 costs are worth more.
FEED_FORWARD = 64
# The learning rate falls to 0, so that few epochs are enough.
FALLING = OptimizerConfig(lr=3e-3, schedule=ScheduleConfig(shape="linear"))


def sized_for_ml_100k(config: RunConfig, stage: StageConfig) -> RunConfig:
    """A baseline with an encoder sized for ML-100K, and one stage.

    With the norms before its parts a block trains at a high rate from the start; with the norms
    after them BERT4Rec stays at popularity's level for 5 to 10 epochs.
    """
    encoder = replace(
        ENCODER,
        length=LENGTH,
        feed_forward=FEED_FORWARD,
        block=PreNorm(),
        final_norm=True,
        dropout=0.2,
        attention_dropout=0.0,
    )
    return replace(config, encoder=encoder, stages=(stage,))


def training(
    objectives: dict[str, ObjectiveConfig],
    windows: WindowsConfig,
    optimizer: OptimizerConfig,
    epochs: int,
) -> StageConfig:
    """A stage that is validated after every epoch; the best epoch's model is ranked."""
    return StageConfig(
        name="train",
        objectives=objectives,
        windows=windows,
        batches=BatchConfig(sequences_per_batch=32),
        epochs=epochs,
        optimizer=optimizer,
        validation=ValidationConfig(metric="ndcg@10", every_epochs=1, patience=None),
    )


def on_next_items(epochs: int) -> StageConfig:
    """Training on the next item, under the full softmax; each item is a target once an epoch.

    With less weight decay validation falls while the rate goes to 0.
    """
    return training(
        {"next": NextItemConfig(head=HeadConfig(bias=True))},
        Sliding(stride=LENGTH),
        replace(FALLING, weight_decay=3e-3),
        epochs,
    )


def on_masked_items(epochs: int) -> StageConfig:
    """Training on masked items, in windows that overlap by half."""
    masks = MaskItems(rate=0.3, mask_last_share=0.5)
    schedule = replace(FALLING.schedule, warmup_steps=200)
    return training(
        {"cloze": ClozeConfig(corruption=masks, head=HeadConfig(bias=True))},
        Sliding(),
        replace(FALLING, weight_decay=1e-4, schedule=schedule),
        epochs,
    )


def with_pretraining(config: RunConfig, epochs: int) -> RunConfig:
    """The run with a pretraining stage first: S3-Rec's four objectives on items and genres.

    The pretraining rows are overlapping windows and not every prefix of the newest items
    (`EveryPrefix`), of which an epoch would take a minute.
    """
    pretrain = replace(
        pretraining(corrected_objectives(), epochs),
        windows=Sliding(),
        batches=BatchConfig(sequences_per_batch=64),
    )
    return replace(config, stages=(pretrain, replace(config.stages[0], name="finetune")))


def study() -> Study:
    """SASRec, BERT4Rec, S3-Rec and transitions, compared with popularity."""
    sasrec = sized_for_ml_100k(full_softmax(), on_next_items(12))
    return Study(
        name="quickstart",
        question="Do SASRec, BERT4Rec and S3-Rec beat counting?",
        # Two workers take the cells in this order, and both are busy nearly to the end.
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "sasrec": sasrec,
            "s3rec": with_pretraining(sasrec, 3),
            "bert4rec": sized_for_ml_100k(cloze(), on_masked_items(12)),
        },
        base="popularity",
        corpora=("ml-100k",),
        next_commands=(
            "recommend {runs}/quickstart/ml-100k/s3rec/0 --items 50,181,172 --k 5  # Star Wars",
            "report {runs}/quickstart  # a page with learning curves, CSV, LaTeX",
            "study experiments.quickstart --seeds 3 --workers 2 --runs {runs}  # more seeds",
        ),
    )
