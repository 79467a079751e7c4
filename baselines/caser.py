"""Caser under the next-item objective, one function for each recipe.

Sources, as in their code: the authors' PyTorch version (graytowne/caser_pytorch, its defaults for
ML-1M) of Tang and Wang 2018 (WSDM), and RecBole's Caser (`caser.py`, `Caser.yaml`). Departures in
both are those of `research/model/caser.py`: no embedding of the user, and one item to predict after
each window instead of three. Initial weights are ours: normal with a standard deviation of 0.02,
which is the authors' 1 / width for embeddings; they leave filters to torch's own.

Published for Beauty as in S3-Rec's file, full ranking: HR@5 .0205, NDCG@5 .0131, HR@10 .0347,
NDCG@10 .0176 (Rajput et al. 2023, TIGER, table 1, whose other baselines are S3-Rec's figures).
RecBoard (MTandHJ) has HR@10 .0427 and NDCG@10 .0227 there, means of five seeds at width 64 under
BCE with three targets and two negatives each, dropout 0.5, 300 epochs.
"""

from __future__ import annotations

from baselines.sasrec import s3rec_block
from research.data.loader import BatchConfig
from research.data.windows import Sliding
from research.model.caser import CaserConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig


def original() -> RunConfig:
    """Caser as in its authors' code: BCE with three negatives, an output table with biases.

    Every window of 5 items is trained on, as histories are cut into neighboring pieces of 50 and
    each item of a piece ends a window; so a step of 16 rows has at most 800 windows, where theirs
    has 512. The first windows of a piece lack the items before it, theirs only those of a history.
    They train 50 epochs without validation; here the best of them by validation is kept. Their
    loss is the mean over targets plus the mean over negatives; here the three negatives are summed.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=CaserConfig(),
        stages=(
            StageConfig(
                objectives={
                    "next": NextItemConfig(
                        loss=BinaryCrossEntropy(number=3), head=HeadConfig(table="own", bias=True)
                    )
                },
                windows=Sliding(stride=50),
                batches=BatchConfig(sequences_per_batch=16),
                epochs=50,
                optimizer=OptimizerConfig(lr=1e-3, weight_decay=1e-6),
                validation=ValidationConfig(metric="ndcg@10", patience=None),
            ),
        ),
    )


def full_softmax() -> RunConfig:
    """The strong plain recipe: RecBole's network under full softmax, trained as SASRec's.

    All but the encoder is as in `baselines.sasrec.full_softmax`, to be compared with it. A state
    reads 10 items, as RecBole recommends; its default of 50 would need filters of 50 heights. Left
    out are its L2 penalty of 1e-4 and the dense layer that joins the user's embedding.
    """
    encoder = CaserConfig(width=64, newest=10, horizontal=16, vertical=8, dropout=0.4)
    return replace_fields(s3rec_block(FullSoftmax()), {"encoder": encoder})
