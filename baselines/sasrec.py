"""SASRec and its descendants, one function a published recipe.

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


def original() -> RunConfig:
    """SASRec as its authors' code has it, at ML-1M's sizes (elsewhere length 50, dropout 0.5).

    q = LN(x); x = q + Attn(q, x, x); y = LN(x); x = y + FFN(y); no output projection, feed-forward
    of the model's width with ReLU, a last LayerNorm, embeddings times sqrt(50) on the input side;
    BCE with one negative outside the training items; users drawn with replacement. A departure: we
    begin from normal weights of 0.02, that code from TensorFlow's glorot-uniform ones.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=TransformerConfig(
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
        ),
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
    """S3-Rec's post-norm backbone under the next-item objective, on whole histories."""
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

    The input is an item's embedding plus the sum of its attributes'; otherwise as `full_softmax`.
    """
    config = full_softmax()
    return replace(config, items=ItemTableConfig(attributes=True))


def plus() -> RunConfig:
    """SASRec+ on ML-1M: width 64, one head, length 200, dropout 0.1, full softmax, 128 rows."""
    return RunConfig(
        corpus="ml-1m",
        encoder=TransformerConfig(
            length=200,
            width=64,
            layers=2,
            heads=1,
            feed_forward=64,
            activation="relu",
            block=QueryNorm(),
            output_projection=True,
            embedding_norm=False,
            embedding_scale=True,
            final_norm=True,
            norm_eps=1e-8,
            dropout=0.1,
            attention_output_dropout=0.0,
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
    """gSASRec on ML-1M: 256 negatives a token, gBCE with t = 0.75, an output table of its own.

    As in its authors' code, negatives are drawn from all items and positives are not rejected. That
    code ends an epoch after 100 batches and waits 200 of them; ours waits 20 whole ones.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=TransformerConfig(
            length=200,
            width=128,
            layers=2,
            heads=1,
            feed_forward=128,
            activation="relu",
            block=QueryNorm(),
            output_projection=False,
            embedding_norm=False,
            embedding_scale=False,
            final_norm=True,
            norm_eps=1e-5,
            dropout=0.5,
            attention_output_dropout=0.0,
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
