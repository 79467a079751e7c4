"""BSARec (Shin et al. 2024, arXiv 2312.10325): every prefix is a row, whose last state is trained.

Sources: the authors' code and its log of Amazon Beauty (yehjin-shin/BSARec), and, for the other
data sets, the job files of its reproduction (Janhutter/BSARec). The loss is
the full softmax at the item after each prefix of a user's newest 50 training items; the prefix is
the input, read bidirectionally. Published test HR@10 / NDCG@10 on S3-Rec's Beauty are .1008 / .0611
(the authors' log, one seed) and .1002 / .0610 (RecBoard, MTandHJ, mean of five seeds).

Departures: the authors' code fills the places before a row with the embedding of a padding id
(research/model/bsarec.py), which also competes in the softmax, and trains the first item of a user
from such a row alone; here a row of one item has no target. The 5-core files of S3-Rec are given by
`--corpus`.
"""

from __future__ import annotations

from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.model.bsarec import BSARec
from research.model.transformer_block import BlockConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.losses import FullSoftmax, ItemLossConfig
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig


def on_every_prefix(
    block: BlockConfig, *, heads: int, lr: float, loss: ItemLossConfig = FullSoftmax()
) -> RunConfig:
    """A post-norm encoder of two such blocks, trained at the last state of every prefix.

    Width 64, length 50, dropout 0.5, 256 rows a batch, at most 200 epochs, patience 10 on NDCG@20.
    """
    objective = NextItemConfig(loss=loss, predict="last", direction="bidirectional")
    return RunConfig(
        encoder=TransformerConfig(
            length=50, width=64, layers=2, heads=heads, feed_forward=256, block=block
        ),
        stages=(
            StageConfig(
                objectives={"next": objective},
                windows=EveryPrefix(),
                batches=BatchConfig(sequences_per_batch=256),
                epochs=200,
                optimizer=OptimizerConfig(lr=lr),
                validation=ValidationConfig(metric="ndcg@20", patience=10),
            ),
        ),
    )


def beauty() -> RunConfig:
    """Amazon Beauty."""
    return on_every_prefix(BSARec(alpha=0.7, c=5), heads=1, lr=5e-4)


def sports() -> RunConfig:
    """Amazon Sports and Outdoors."""
    return on_every_prefix(BSARec(alpha=0.3, c=5), heads=4, lr=1e-3)


def toys() -> RunConfig:
    """Amazon Toys and Games."""
    return on_every_prefix(BSARec(alpha=0.7, c=3), heads=1, lr=1e-3)


def yelp() -> RunConfig:
    """Yelp."""
    return on_every_prefix(BSARec(alpha=0.7, c=3), heads=4, lr=1e-3)


def lastfm() -> RunConfig:
    """LastFM."""
    return on_every_prefix(BSARec(alpha=0.9, c=3), heads=1, lr=1e-3)


def ml_1m() -> RunConfig:
    """ML-1M; the authors' file has 3,416 items in an order of ties of its own."""
    return on_every_prefix(BSARec(alpha=0.3, c=9), heads=4, lr=5e-4)
