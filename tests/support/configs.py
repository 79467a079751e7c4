"""Run configs for the tests of JSON and overrides: all baselines, and one with two stages."""

from __future__ import annotations

from collections.abc import Callable

import baselines.bert4rec
import baselines.caser
import baselines.cl4srec
import baselines.ease
import baselines.gru4rec
import baselines.item_knn
import baselines.popularity
import baselines.s3rec
import baselines.sasrec
import baselines.transitions
from research.data.splits import GlobalTemporal
from research.data.windows import EveryPrefix, Sliding
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import SampledSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig

TWO_STAGES = RunConfig(
    split=GlobalTemporal(test_share=0.2),
    stages=(
        StageConfig(name="first", objectives={"cloze": ClozeConfig()}, windows=EveryPrefix()),
        StageConfig(
            name="second",
            objectives={
                "cloze": ClozeConfig(corruption=MaskItems(count="rounded", max_picked=3)),
                "next": NextItemConfig(loss=SampledSoftmax(log_q=True)),
            },
            windows=Sliding(stride=7),
            rank_by="next",
            validation=None,
        ),
    ),
)
CONFIGS: dict[str, Callable[[], RunConfig]] = {
    "sasrec, original": baselines.sasrec.original,
    "sasrec, full softmax": baselines.sasrec.full_softmax,
    "sasrec, bce": baselines.sasrec.bce,
    "sasrec, plus": baselines.sasrec.plus,
    "sasrec, gsasrec": baselines.sasrec.gsasrec,
    "sasrec, with attributes": baselines.sasrec.with_attributes,
    "cl4srec, bce": baselines.cl4srec.bce,
    "s3rec, published": baselines.s3rec.published,
    "s3rec, published, full softmax": baselines.s3rec.published_softmax,
    "s3rec, corrected": baselines.s3rec.corrected,
    "s3rec, joint": baselines.s3rec.joint,
    "bert4rec, original": baselines.bert4rec.original,
    "bert4rec, port": baselines.bert4rec.port,
    "bert4rec, cloze": baselines.bert4rec.cloze,
    "bert4rec, ml-1m": baselines.bert4rec.ml_1m,
    "gru4rec, full softmax": baselines.gru4rec.full_softmax,
    "gru4rec, bce": baselines.gru4rec.bce,
    "gru4rec, ml-1m": baselines.gru4rec.ml_1m,
    "gru4rec, in batch": baselines.gru4rec.in_batch,
    "caser, original": baselines.caser.original,
    "caser, full softmax": baselines.caser.full_softmax,
    "popularity": baselines.popularity.popularity,
    "recent popularity": baselines.popularity.recent,
    "transitions": baselines.transitions.transitions,
    "item knn": baselines.item_knn.item_knn,
    "ease": baselines.ease.ease,
    "two stages": lambda: TWO_STAGES,
}
