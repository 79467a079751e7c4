"""The recipes that the studies vary: one or two stages on one backbone, with the same rows in all.

They are sized for MovieLens-100K on one CPU thread, and a study's budget ends them. Rows are
windows of 50 items that slide by 25 over whole histories, 64 in a batch; Adam has a learning rate
of 0.003; the last stage is validated after every epoch, and its best weights by NDCG@10 are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from baselines.s3rec import ENCODER, MASKS, fine_tuning, pretraining
from research.data.loader import BatchConfig
from research.data.windows import Sliding
from research.model.transformer_block import PreNorm
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig

SEEDS = (0, 1, 2)
# Of studies whose figures stand beside published ones.
FIVE_SEEDS = (0, 1, 2, 3, 4)
METRICS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr")
# How a budget is divided among the stages: a third is pretraining, where there is one.
SHARES = {"pretrain": 1, "finetune": 2}
# Cloze hides the same items as S3-Rec's heads, so that one encoding serves them all.
CLOZE = ClozeConfig(corruption=MASKS)


def ranking_stage(name: str, objectives: Mapping[str, ObjectiveConfig]) -> StageConfig:
    """A stage that ranks, with its weights selected by validation; every loss is a mean."""
    return replace(
        fine_tuning(NextItemConfig()),
        name=name,
        objectives=objectives,
        windows=Sliding(),
        batches=BatchConfig(sequences_per_batch=64),
        optimizer=OptimizerConfig(lr=3e-3),
        validation=ValidationConfig(metric="ndcg@10", patience=None),
        rank_by="next" if "next" in objectives else None,
    )


def next_item() -> RunConfig:
    """SASRec with full softmax at width 32: the fine-tuning stage without pretraining."""
    encoder = replace(
        ENCODER,
        width=32,
        feed_forward=128,
        dropout=0.3,
        attention_dropout=0.0,
    )
    return RunConfig(
        encoder=encoder, stages=(ranking_stage("finetune", {"next": NextItemConfig()}),)
    )


def pretrained_next_item(objectives: Mapping[str, ObjectiveConfig]) -> RunConfig:
    """`next_item` after a pretraining stage on `objectives`; their weights are weights of sums."""
    config = next_item()
    pretrain = replace(
        pretraining(dict(objectives), 150),
        windows=Sliding(),
        batches=BatchConfig(sequences_per_batch=64),
        optimizer=OptimizerConfig(lr=3e-3),
    )
    return replace(config, stages=(pretrain, *config.stages))


def cloze() -> RunConfig:
    """BERT4Rec in one stage, but pre-norm, as a short budget ends before post-norm has learnt much.

    A batch is 1,600 tokens whatever the encoder's length is, so that equal tokens are equal steps.
    """
    encoder = replace(
        ENCODER,
        block=PreNorm(),
        embedding_norm=False,
        final_norm=True,
        dropout=0.2,
        attention_dropout=0.0,
    )
    masks = MaskItems(rate=0.3, mask_last_share=0.5)
    stage = replace(
        ranking_stage("train", {"cloze": ClozeConfig(corruption=masks)}),
        batches=BatchConfig(sequences_per_batch=None, tokens_per_batch=1600),
    )
    return RunConfig(encoder=encoder, stages=(stage,))
