"""Do SASRec, BERT4Rec and a two-stage S3-Rec beat the counting rankers on MovieLens-100K?

Command: make quickstart (or python -m research study experiments.quickstart).
Hardware: two CPU cores, no GPU; README.md has the time and the figures.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.s3rec import ENCODER, corrected_objectives, pretraining
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.loader import BatchConfig
from research.data.windows import LastItems, Sliding
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.study import Study
from research.training.config import ValidationConfig


def sized_for_ml_100k(
    config: RunConfig, key: str, objective: ObjectiveConfig, epochs: int, dropout: float
) -> RunConfig:
    """A baseline sized for ML-100K: windows of 50 items that slide by 25 over whole histories."""
    stage = replace(
        config.stages[0],
        objectives={key: objective},
        windows=Sliding(),
        batches=BatchConfig(sequences_per_batch=64),
        epochs=epochs,
        steps=None,
        validation=ValidationConfig(metric="ndcg@10", every_epochs=epochs // 10, patience=4),
    )
    encoder = replace(
        ENCODER,
        dropout=dropout,
        attention_dropout=0.0,
    )
    return replace(config, encoder=encoder, stages=(stage,))


def with_pretraining(config: RunConfig, epochs: int) -> RunConfig:
    """The run with a pretraining stage first: S3-Rec's four objectives on items and genres.

    The pretraining rows are each user's newest 50 items (`LastItems`), not every prefix of them: an
    epoch over 50 prefixes for each user would take minutes.
    """
    pretrain = replace(
        pretraining(corrected_objectives(), epochs),
        windows=LastItems(),
        batches=BatchConfig(sequences_per_batch=64),
    )
    return replace(config, stages=(pretrain, replace(config.stages[0], name="finetune")))


def study() -> Study:
    """SASRec, BERT4Rec, S3-Rec and transitions, compared with popularity."""
    sasrec = sized_for_ml_100k(full_softmax(), "next", NextItemConfig(), 30, 0.3)
    masks = ClozeConfig(
        corruption=MaskItems(rate=0.3, mask_last_share=0.5), head=HeadConfig(bias=True)
    )
    # With batches of 64 rows the rate of `cloze` keeps the model at popularity's level for 5 to 35
    # epochs, depending on the seed and on rounding; this one for 5 to 10.
    bert4rec = replace_fields(
        sized_for_ml_100k(cloze(), "cloze", masks, 50, 0.2), {"stages.0.optimizer.lr": 2e-3}
    )
    return Study(
        name="quickstart",
        question="Do SASRec, BERT4Rec and S3-Rec beat counting?",
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "sasrec": sasrec,
            "bert4rec": bert4rec,
            "s3rec": with_pretraining(sasrec, 15),
        },
        base="popularity",
        corpora=("ml-100k",),
        next_commands=(
            "recommend {runs}/quickstart/ml-100k/s3rec/0 --items 50,181,172 --k 5  # Star Wars",
            "report {runs}/quickstart  # a page with learning curves, CSV, LaTeX",
            "study experiments.quickstart --seeds 3 --workers 2 --runs {runs}  # more seeds",
        ),
    )
