"""eSASRec: LiGR blocks trained by sampled softmax (Tikhonovich et al. 2025, arXiv 2508.06450).

Sources: the table of hyper-parameters in the README of its repository
(blondered/transformer_benchmark), and RecTools 0.13, whose models it trains: `LiGRLayer`,
`CatalogUniformSampler` (negatives of its own for each token, from all items, the target not
rejected), Adam with beta2 0.98, 128 rows a batch, and dropout of the item table itself, of rows
that are read and rows that are scored alike, which RecTools 0.16 no longer has. One rate serves for
the encoder and the item table there; here a search has to draw both. The README has width 64 for
the Amazon data sets; the configs beside it (`configs/paper/loo`) have 256. A departure: initial
weights are normal with a standard deviation of 0.02, theirs are Xavier-normal.
"""

from __future__ import annotations

from dataclasses import replace

from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.transformer_config import TransformerConfig
from research.objectives.losses import SampledSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig


def recipe(
    *, length: int, width: int, layers: int, heads: int, dropout: float, epochs: int
) -> RunConfig:
    """A run with what eSASRec's recipes have in common; the inner width is four times `width`."""
    loss = SampledSoftmax(number=256, negatives=NegativesConfig(exclude="nothing"))
    return RunConfig(
        items=ItemTableConfig(dropout=dropout),
        encoder=TransformerConfig(
            length=length,
            width=width,
            layers=layers,
            heads=heads,
            feed_forward=4 * width,
            block=LiGR(),
            embedding_norm=False,
            norm_eps=1e-5,
            dropout=dropout,
            inner_dropout=dropout,
        ),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=loss)},
                batches=BatchConfig(sequences_per_batch=128),
                epochs=epochs,
                optimizer=OptimizerConfig(lr=1e-3, beta2=0.98),
                validation=ValidationConfig(metric="recall@10", patience=50),
            ),
        ),
    )


def beauty() -> RunConfig:
    """Amazon Beauty (S3-Rec's file): one block of width 64, one head."""
    return recipe(length=50, width=64, layers=1, heads=1, dropout=0.2, epochs=200)


def ml_1m() -> RunConfig:
    """ML-1M: two blocks of width 64, one head; the paper keeps all its 3,706 items."""
    config = recipe(length=200, width=64, layers=2, heads=1, dropout=0.1, epochs=100)
    return replace(config, corpus="ml-1m")


def ml_20m() -> RunConfig:
    """ML-20M: four blocks of width 256, eight heads."""
    config = recipe(length=200, width=256, layers=4, heads=8, dropout=0.2, epochs=100)
    return replace(config, corpus="ml-20m")
