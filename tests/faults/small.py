"""The run that faults happen to: S3-Rec's four heads, then the next item; about a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.map import MAPConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from tests.support.synthetic import markov_histories, write_histories

CORPUS = "markov"
FOUR = {"aap": AAPConfig(), "mip": MIPConfig(), "map": MAPConfig(), "sp": SPConfig()}
# Each process trains on its own share, so that dropout and sums over processes are in play.
STAGES = (
    StageConfig(
        name="pretrain",
        objectives=FOUR,
        windows=EveryPrefix(),
        batches=BatchConfig(sequences_per_batch=64),
        epochs=3,
        normalize="sequences",
        validation=None,
        log_every=3,
    ),
    StageConfig(
        name="finetune",
        objectives={"next": NextItemConfig()},
        batches=BatchConfig(sequences_per_batch=32),
        epochs=10,
        validation=ValidationConfig(metric="mrr", patience=None),
        log_every=4,
        # The best epoch is then not the last one.
        optimizer=OptimizerConfig(lr=0.01),
    ),
)


def two_stages() -> RunConfig:
    """With dropout, validation after every epoch, and two candidate sets at the end."""
    return RunConfig(
        corpus=CORPUS,
        encoder=TransformerConfig(length=8, width=16, layers=1, heads=2, feed_forward=32),
        stages=STAGES,
        evaluation=EvaluationConfig(candidates=("full", "uniform-10")),
    )


def write_corpus(data: Path) -> Corpus:
    """The corpus under a data root: 160 users, 30 items."""
    histories = markov_histories(num_users=160, num_items=30, length=10, seed=7)
    return write_histories(data / "corpora" / CORPUS, histories, num_items=30)


def large() -> RunConfig:
    """A second stage of two steps that wants 250 MB at once, eight in all."""
    few = BatchConfig(sequences_per_batch=8)
    first = replace(STAGES[0], epochs=None, steps=1, batches=few)
    second = replace(STAGES[1], epochs=None, steps=2, batches=BatchConfig(sequences_per_batch=160))
    encoder = TransformerConfig(length=8, width=16, layers=1, heads=2, feed_forward=50_000)
    return replace(two_stages(), encoder=encoder, stages=(first, second))
