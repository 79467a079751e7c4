"""SASRec and its descendants, one function for each published recipe.

Sources: Kang and McAuley 2018 (kang205/SASRec), Zhou et al. 2020 (S3-Rec's fine-tuning),
Klenitskiy and Vasilev 2023 (SASRec+), Petrov and Macdonald 2023 (gSASRec). Published ML-1M figures
are on `ml-1m.txt` (3,416 items, SASRec's file), not on GroupLens's archive that the name `ml-1m`
stands for: give `--corpus` a folder prepared from it, as experiments/ml_1m.py does.
"""

from __future__ import annotations

from dataclasses import replace

from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.model.item_table import ItemTableConfig
from research.model.transformer_block import QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax, GeneralizedBCE
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig

# The encoder of SASRec's authors, with their settings for ML-1M. A block computes
#   q = LN(x); x = q + Attn(q, x, x); y = LN(x); x = y + FFN(y)
# without output projection, with a feed-forward part of the model's width and ReLU. A LayerNorm
# follows the last block, and input embeddings are multiplied by sqrt(width).
ENCODER = TransformerConfig(
    length=200,
    width=50,
    layers=2,
    heads=1,
    feed_forward=50,
    activation="relu",
    block=QueryNorm(),
    output_projection=False,
    embedding_norm=False,
    embedding_scale=True,
    final_norm=True,
    norm_eps=1e-8,
    dropout=0.2,
    attention_output_dropout=0.0,
    inner_dropout=0.2,
)


def original() -> RunConfig:
    """SASRec as in its authors' code, with its settings for ML-1M.

    For other data sets the authors use length 50 and dropout 0.5. The loss is BCE with one negative
    that is no training item of the user; users are drawn with replacement. A departure: our initial
    weights are normal with a standard deviation of 0.02, theirs are TensorFlow's glorot-uniform.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=ENCODER,
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=BinaryCrossEntropy())},
                batches=BatchConfig(sequences_per_batch=128, replacement=True),
                epochs=200,
                optimizer=OptimizerConfig(lr=1e-3, beta2=0.98),
                validation=ValidationConfig(metric="ndcg@10", every_epochs=1, patience=20),
            ),
        ),
    )


def s3rec_block(loss: FullSoftmax | BinaryCrossEntropy) -> RunConfig:
    """S3-Rec's post-norm backbone under the next-item objective, one row for each user."""
    return RunConfig(
        encoder=TransformerConfig(length=50, width=64, layers=2, heads=2, feed_forward=256),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=loss)},
                batches=BatchConfig(sequences_per_batch=256),
                epochs=200,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@20", patience=10),
            ),
        ),
    )


def full_softmax() -> RunConfig:
    """The strong plain recipe: full softmax at every position (Li et al. 2023)."""
    return s3rec_block(FullSoftmax())


def bce() -> RunConfig:
    """S3-Rec's fine-tuning without pretraining: BCE with one negative."""
    return s3rec_block(BinaryCrossEntropy())


def with_attributes() -> RunConfig:
    """SASRec_F, S3-Rec's feature-aware baseline: item and attribute embeddings are summed.

    The input is an item's embedding plus the sum of its attributes' embeddings; all else is as in
    `full_softmax`.
    """
    config = full_softmax()
    return replace(config, items=ItemTableConfig(attributes=True))


def plus() -> RunConfig:
    """SASRec+ on ML-1M: width 64, one head, length 200, dropout 0.1, full softmax, 128 rows."""
    return RunConfig(
        corpus="ml-1m",
        encoder=replace(
            ENCODER,
            width=64,
            feed_forward=64,
            output_projection=True,
            dropout=0.1,
            inner_dropout=0.1,
        ),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=FullSoftmax())},
                batches=BatchConfig(sequences_per_batch=128),
                epochs=100,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@10", patience=10),
            ),
        ),
    )


def gsasrec() -> RunConfig:
    """gSASRec on ML-1M: 256 negatives a token, gBCE with t = 0.75, a separate output table.

    As in its authors' code, negatives are drawn from all items and positives are not rejected. That
    code's epochs end after 100 batches and its patience is 200 of them; ours is 20 full epochs. It
    draws embeddings from N(0, 1), as torch does; here they have a standard deviation of 0.02. It
    ranks by popularity for its first thousand steps and more; `prior_shift` of the loss ends that
    (docs/pitfalls.md, "negatives outweigh the target").
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=replace(
            ENCODER,
            width=128,
            feed_forward=128,
            embedding_scale=False,
            norm_eps=1e-5,
            dropout=0.5,
            inner_dropout=0.5,
        ),
        stages=(
            StageConfig(
                objectives={
                    "next": NextItemConfig(
                        loss=GeneralizedBCE(
                            number=256,
                            calibration=0.75,
                            negatives=NegativesConfig(exclude="nothing"),
                        ),
                        head=HeadConfig(table="own"),
                    )
                },
                batches=BatchConfig(sequences_per_batch=128),
                epochs=200,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@10", patience=20),
            ),
        ),
    )
