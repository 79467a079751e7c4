"""HSTU (Zhai et al. 2024, arXiv 2402.17152): as its authors train it, and on Amazon Beauty.

Sources: facebookresearch/generative-recommenders (`configs/ml-1m/hstu-sampled-softmax-n128-*.gin`
and the code that they configure), MTandHJ/RecBoard
(`HSTU/configs/Amazon2014Beauty_550_LOU.yaml`). A departure that matters: both score by the cosine
of state and item over a temperature (0.05 and 0.1); ours score by inner products, by which the
figures in `docs/results.md` were made (`HeadConfig(similarity="cosine", temperature=0.1)` has the
cosine). Smaller departures: the authors' code leaves out a negative that equals the target, which
counts here; and it draws other initial weights for positions (normal with a standard deviation of
width^-1/2) and for the last projection (Xavier-uniform), where ours are normal with 0.02.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import sasrec
from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.data.splits import LeaveOneOut
from research.model.hstu import HSTU
from research.model.positions import LearnedPositions
from research.model.transformer_config import TransformerConfig
from research.objectives.losses import SampledSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig


def sampled_softmax(number: int) -> NextItemConfig:
    """Next item by sampled softmax over `number` negatives for each token, drawn from all items."""
    negatives = NegativesConfig(exclude="nothing")
    return NextItemConfig(loss=SampledSoftmax(number=number, negatives=negatives))


def ml_1m_recipe(*, layers: int, heads: int) -> RunConfig:
    """HSTU on ML-1M: width 50, 128 negatives, 101 epochs, with timestamps.

    The validation item is part of the training rows, as the authors hold out only one item; so the
    last weights are tested. The length is 200 here and 211 in the authors' code, which pads rows by
    eleven more; its tables of distances and positions are longer by as much.
    """
    return RunConfig(
        corpus="ml-1m",
        split=LeaveOneOut(validation_in_training=True),
        encoder=TransformerConfig(
            length=200,
            width=50,
            layers=layers,
            heads=heads,
            block=HSTU(times=True),
            positions=LearnedPositions(count_from="oldest"),
            embedding_norm=False,
            embedding_scale=True,
            norm_eps=1e-6,
            dropout=0.2,
            attention_dropout=0.0,
        ),
        stages=(
            StageConfig(
                objectives={"next": sampled_softmax(128)},
                batches=BatchConfig(sequences_per_batch=128),
                epochs=101,
                optimizer=OptimizerConfig(method="adamw", lr=1e-3, beta2=0.98),
                validation=None,
            ),
        ),
    )


def original() -> RunConfig:
    """HSTU on ML-1M: two blocks, one head."""
    return ml_1m_recipe(layers=2, heads=1)


def large() -> RunConfig:
    """HSTU-large on ML-1M: eight blocks, two heads."""
    return ml_1m_recipe(layers=8, heads=2)


def beauty() -> RunConfig:
    """RecBoard's sizes for Amazon Beauty: four blocks of width 64, two heads of width 4.

    S3-Rec's file has no timestamps, so attention scores are biased by distances alone. RecBoard's
    config does not say when it stops before its 300 epochs; our patience is 10 validations.
    """
    return RunConfig(
        encoder=TransformerConfig(
            length=50,
            width=64,
            layers=4,
            heads=2,
            block=HSTU(head_width=4, norm="layer"),
            embedding_norm=False,
            embedding_scale=True,
            norm_eps=1e-6,
            dropout=0.2,
            embedding_dropout=0.4,
            attention_dropout=0.0,
        ),
        stages=(
            StageConfig(
                objectives={"next": sampled_softmax(512)},
                batches=BatchConfig(sequences_per_batch=256),
                epochs=300,
                optimizer=OptimizerConfig(method="adamw", lr=1e-3, beta2=0.98, weight_decay=1e-3),
                validation=ValidationConfig(metric="ndcg@10", patience=10),
            ),
        ),
    )


def full_softmax() -> RunConfig:
    """`baselines.sasrec.full_softmax` with HSTU's blocks, and without attention dropout."""
    encoder = TransformerConfig(
        length=50, width=64, layers=2, heads=2, block=HSTU(), attention_dropout=0.0
    )
    return replace(sasrec.full_softmax(), encoder=encoder)
