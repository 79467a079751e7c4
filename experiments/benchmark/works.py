"""The works of the benchmark: our config of each, and the same as a task for peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from baselines.bert4rec import cloze
from baselines.s3rec import ENCODER, fine_tuning, pretraining, published_objectives
from baselines.sasrec import bce, full_softmax
from experiments.benchmark.peers.task import FULL_SOFTMAX, ONE_NEGATIVE, S3_LOSSES, Task
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig

BEAUTY, ML_1M = "Beauty", "ml-1m-sas"


@dataclass(frozen=True)
class Work:
    """A work that the benchmark times."""

    title: str
    """What the table calls it."""
    corpus: str | None
    """Name of its corpus; None: it has none."""
    config: Callable[[], RunConfig] | None = None
    """Our run of it, whose corpus is `corpus`; None: W8, which has no run."""
    ranks: bool = False
    """Whether test items are ranked; else the first stage is trained for an epoch."""
    model: str = "sasrec"
    """The peers' model: sasrec, bert4rec or s3rec."""
    peers: tuple[str, ...] = ()
    """The peers that can do it."""


def sasrec() -> RunConfig:
    """W1's model on Beauty."""
    return replace(full_softmax(), corpus=BEAUTY)


def bert4rec() -> RunConfig:
    """W3's model on Beauty."""
    config = cloze()
    objectives = {"cloze": ClozeConfig(corruption=MaskItems(rate=0.2))}
    return replace(
        config, corpus=BEAUTY, stages=(replace(config.stages[0], objectives=objectives),)
    )


def long_sasrec() -> RunConfig:
    """W4's model on ML-1M."""
    config = full_softmax()
    stage = replace(config.stages[0], batches=BatchConfig(sequences_per_batch=128))
    return replace(
        config, corpus=ML_1M, encoder=replace(config.encoder, length=200), stages=(stage,)
    )


def s3rec_pretraining(objectives: dict[str, ObjectiveConfig]) -> RunConfig:
    """W2's model on Beauty."""
    stages = (pretraining(objectives, 1), fine_tuning(NextItemConfig()))
    return RunConfig(corpus=BEAUTY, encoder=ENCODER, stages=stages)


WORKS: Mapping[str, Work] = {
    "W1": Work(
        "SASRec, full softmax, Beauty", BEAUTY, sasrec, peers=("rectools", "fast", "recbole")
    ),
    "W2": Work(
        "S3-Rec's pretraining, Beauty",
        BEAUTY,
        lambda: s3rec_pretraining(published_objectives()),
        model="s3rec",
        peers=("recbole",),
    ),
    "W3": Work(
        "BERT4Rec, mask 0.2, Beauty",
        BEAUTY,
        bert4rec,
        model="bert4rec",
        peers=("rectools", "recbole"),
    ),
    "W4": Work(
        "SASRec, full softmax, ML-1M",
        ML_1M,
        long_sasrec,
        peers=("rectools", "fast", "recbole"),
    ),
    "W5": Work(
        "SASRec, one negative, Beauty",
        BEAUTY,
        lambda: replace(bce(), corpus=BEAUTY),
        peers=("rectools",),
    ),
    "W6": Work(
        "rank all test items, Beauty", BEAUTY, sasrec, ranks=True, peers=("rectools", "recbole")
    ),
    "W8": Work("softmax over 1,000,000 items, a step", None),
}


def loss_of(config: RunConfig) -> str:
    """The loss of a run's first stage, as sides name it in their facts."""
    objectives = config.stages[0].objectives
    if any(isinstance(objective, AAPConfig) for objective in objectives.values()):
        assert list(objectives) == ["aap", "mip", "map", "sp"], "W2 has S3-Rec's four"
        return S3_LOSSES
    (objective,) = objectives.values()
    assert isinstance(objective, (NextItemConfig, ClozeConfig)), "works rank by one of these"
    if isinstance(objective.loss, BinaryCrossEntropy):
        assert objective.loss.number == 1, "W5 draws one negative"
        return ONE_NEGATIVE
    assert isinstance(objective.loss, FullSoftmax), "works have one of two losses"
    return FULL_SOFTMAX


def mask_rate_of(config: RunConfig) -> float:
    """The probability that an item is masked in a run's first stage; 0: nothing is masked."""
    for objective in config.stages[0].objectives.values():
        if isinstance(objective, (ClozeConfig, AAPConfig)):
            assert isinstance(objective.corruption, MaskItems), "works mask single items"
            return objective.corruption.rate
    return 0.0


def encoder_of(config: RunConfig) -> TransformerConfig:
    """The config of a run's encoder, which is a transformer in all works."""
    assert isinstance(config.encoder, TransformerConfig), "works have a transformer"
    return config.encoder


def task_of(
    name: str, peer: str, arrays: Path, *, steps: int | None, threads: int, device: str
) -> Task:
    """A work as a task for a peer; `arrays` is the file that `write_arrays` wrote."""
    work = WORKS[name]
    assert work.config is not None, "W8 has no peers"
    config = work.config()
    encoder, stage = encoder_of(config), config.stages[0]
    assert stage.batches.sequences_per_batch is not None, "works count rows"
    return Task(
        work=name,
        peer=peer,
        model=work.model,
        ranks=work.ranks,
        arrays=str(arrays),
        length=encoder.length,
        width=encoder.width,
        layers=encoder.layers,
        heads=encoder.heads,
        feed_forward=encoder.feed_forward,
        dropout=encoder.dropout,
        batch=stage.batches.sequences_per_batch,
        loss=loss_of(config),
        mask_rate=mask_rate_of(config),
        lr=stage.optimizer.lr,
        steps=steps,
        threads=threads,
        device=device,
    )


def write_arrays(corpus: Corpus, path: Path) -> None:
    """Write a corpus's histories and attributes for peers, as `.npz`."""
    np.savez(
        path,
        items=corpus.items,
        offsets=corpus.offsets,
        attribute_ids=corpus.attribute_ids,
        attribute_offsets=corpus.attribute_offsets,
    )
