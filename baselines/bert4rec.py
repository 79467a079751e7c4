"""BERT4Rec as in its authors' code, as in the common PyTorch ports, and in tuned recipes.

Sources: Sun et al. 2019 (FeiSun/BERT4Rec), jaywonchung/BERT4Rec-VAE-Pytorch, Petrov and Macdonald
2022 (a systematic review and replicability study).
"""

from __future__ import annotations

from dataclasses import replace

from research.data.loader import BatchConfig
from research.data.splits import LeaveOneOut
from research.data.windows import LastItems, Sliding
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm, PreNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.masking import MaskItems
from research.runs.config import EvaluationConfig, RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig

ORIGINAL = TransformerConfig(
    length=200,
    width=64,
    layers=2,
    heads=2,
    feed_forward=256,
    activation="gelu",
    block=PostNorm(),
    embedding_norm=True,
    positions=LearnedPositions(count_from="oldest"),
    segments=2,
    dropout=0.2,
)


def original() -> RunConfig:
    """The authors' code with its settings for ML-1M: 400,000 steps; picked items become masks.

    The validation item is part of the training rows, so no validation selects the weights: the last
    ones are tested. Departures: our warm-up begins at 1/100 of the learning rate instead of 0, and
    the decay counts from the end of the warm-up instead of from step 0 (100 of 400,000 steps);
    initial weights are normal, not truncated normal; new masks are drawn in every epoch, where the
    source writes ten maskings of every row beforehand (and one of its last item alone) and repeats
    them; its softmax and output bias have classes for its four special tokens too; the popularity
    of candidates is counted in the training rows alone, where the source counts all interactions,
    held-out ones too. Published figures are on `ml-1m.txt` (3,416 items), not on the archive that
    `ml-1m` stands for.
    """
    return RunConfig(
        corpus="ml-1m",
        split=LeaveOneOut(validation_in_training=True),
        encoder=ORIGINAL,
        stages=(
            StageConfig(
                objectives={
                    "cloze": ClozeConfig(
                        corruption=MaskItems(
                            rate=0.2, count="rounded", max_picked=40, last_only_share=1 / 11
                        ),
                        head=HeadConfig(bias=True, transform="nonlinear"),
                    )
                },
                windows=Sliding(stride=100),
                batches=BatchConfig(sequences_per_batch=256),
                epochs=1_000_000,
                steps=400_000,
                optimizer=OptimizerConfig(
                    method="adamw",
                    lr=1e-4,
                    eps=1e-6,
                    weight_decay=0.01,
                    bias_correction=False,
                    clip_norm=5.0,
                    schedule=ScheduleConfig(shape="linear", warmup_steps=100),
                ),
                validation=None,
            ),
        ),
        evaluation=EvaluationConfig(candidates=("full", "popularity-100")),
    )


def original_elsewhere(
    rate: float, max_picked: int, stride: int, hidden_dropout: float, attention_dropout: float
) -> RunConfig:
    """The authors' code at length 50; the arguments are what differs between its data sets."""
    config = original()
    encoder = replace(
        ORIGINAL, length=50, dropout=hidden_dropout, attention_dropout=attention_dropout
    )
    masks = MaskItems(rate=rate, count="rounded", max_picked=max_picked, last_only_share=1 / 11)
    cloze_config = ClozeConfig(corruption=masks, head=HeadConfig(bias=True, transform="nonlinear"))
    stage = replace(
        config.stages[0], objectives={"cloze": cloze_config}, windows=Sliding(stride=stride)
    )
    return replace(config, encoder=encoder, stages=(stage,))


def original_beauty() -> RunConfig:
    """The authors' code on their Beauty file (40,226 users): mask rate 0.6, windows 5 apart."""
    return original_elsewhere(0.6, 30, 5, 0.5, 0.2)


def original_steam() -> RunConfig:
    """The authors' code on Steam: mask rate 0.4, windows 25 apart.

    They train it for 800,000 steps, this recipe for 400,000.
    """
    return original_elsewhere(0.4, 20, 25, 0.1, 0.1)


def port() -> RunConfig:
    """The common PyTorch ports: pre-norm, width 256, a separate output table, Adam at 1e-3.

    Departures from jaywonchung/BERT4Rec-VAE-Pytorch: its LayerNorm divides by the unbiased standard
    deviation plus eps, ours by the root of the biased variance plus eps; it applies dropout once
    more at the end of a block; its output layer has a class for padding; its test histories lack
    the validation item; initial weights differ; so do the number of epochs and the metric that
    selects the weights, which it computes among sampled candidates and we among all items.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=TransformerConfig(
            length=100,
            width=256,
            layers=2,
            heads=4,
            feed_forward=1024,
            activation="gelu_tanh",
            block=PreNorm(),
            embedding_norm=False,
            final_norm=False,
            norm_eps=1e-6,
            positions=LearnedPositions(count_from="newest"),
            dropout=0.1,
            inner_dropout=0.1,
        ),
        stages=(
            StageConfig(
                objectives={
                    "cloze": ClozeConfig(
                        corruption=MaskItems(
                            rate=0.15, at_least_one=False, random_share=0.1, keep_share=0.1
                        ),
                        head=HeadConfig(table="own", bias=True),
                    )
                },
                windows=LastItems(),
                batches=BatchConfig(sequences_per_batch=128),
                epochs=200,
                optimizer=OptimizerConfig(
                    lr=1e-3, schedule=ScheduleConfig(shape="constant", decay_every_epochs=25)
                ),
                validation=ValidationConfig(metric="ndcg@10", patience=20),
            ),
        ),
        evaluation=EvaluationConfig(
            metrics=tuple(
                f"{kind}@{k}" for k in (1, 5, 10, 20, 50, 100) for kind in ("hr", "ndcg")
            ),
            candidates=("full", "uniform-100"),
        ),
    )


# S3-Rec's post-norm backbone, for the tuned recipes.
SMALL = TransformerConfig(length=50, width=64, layers=2, heads=2, feed_forward=256, dropout=0.2)


def cloze() -> RunConfig:
    """Cloze for data of any size: a high learning rate that falls to 0 within 4,000 steps.

    Learning rate, weight decay and mask rate are those of BERT4Rec in MTandHJ/RecBoard
    (`BERT4Rec/configs/Amazon2014Beauty_550_LOU.yaml`), which trains 500 epochs and has a separate
    output table; the tied one is better here on validation (experiments/LOG.md). There is no
    patience: for its first hundreds of steps a cloze model ranks no better than popularity, and
    on few users it overfits long before the learning rate is low; the best validation is kept.
    For more than some 10,000 users, `beauty` is better; a lower rate is better there too, and
    worse on ML-100K.
    """
    stage = StageConfig(
        objectives={
            "cloze": ClozeConfig(corruption=MaskItems(rate=0.2), head=HeadConfig(bias=True))
        },
        batches=BatchConfig(sequences_per_batch=128),
        epochs=None,
        steps=4_000,
        optimizer=OptimizerConfig(
            lr=5e-3, weight_decay=1e-4, schedule=ScheduleConfig(shape="linear")
        ),
        validation=ValidationConfig(metric="ndcg@10", every_epochs=5, patience=None),
    )
    return RunConfig(encoder=SMALL, stages=(stage,))


def beauty() -> RunConfig:
    """`cloze` for Amazon Beauty (S3-Rec's file): batches of 512 rows for 60 epochs, four heads.

    These are RecBoard's too, except for the number of epochs. The limit is given in steps (44 an
    epoch), so that the recipe serves other data too.
    """
    config = cloze()
    stage = replace(config.stages[0], batches=BatchConfig(sequences_per_batch=512), steps=2_640)
    return replace(config, encoder=replace(SMALL, heads=4), stages=(stage,))


def ml_1m() -> RunConfig:
    """Cloze on ML-1M at width 64, length 200, about 200 epochs (Klenitskiy and Vasilev 2023).

    An epoch has 48 steps. Limit and patience are given in steps, so that the recipe serves other
    data too; for the same reason dropout is 0.2, where the paper has 0.1.
    """
    encoder = TransformerConfig(
        length=200, width=64, layers=2, heads=2, feed_forward=256, dropout=0.2
    )
    stage = StageConfig(
        objectives={"cloze": ClozeConfig(corruption=MaskItems(rate=0.2, mask_last_share=0.5))},
        batches=BatchConfig(sequences_per_batch=128),
        epochs=None,
        steps=9_600,
        optimizer=OptimizerConfig(lr=1e-3),
        validation=ValidationConfig(
            metric="ndcg@10", every_epochs=2, patience=20, patience_steps=2_000, min_steps=3_000
        ),
    )
    return RunConfig(corpus="ml-1m", encoder=encoder, stages=(stage,))
