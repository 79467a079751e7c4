"""Does S3-Rec's pretraining help on LastFM (S3-Rec's file, 1,090 users)?

Corpus: python -m research prepare s3rec --raw ../shared/data/s3rec/LastFM.txt
        --out data/corpora/LastFM
Commands: python -m research study experiments.lastfm:pretraining
          python -m research study experiments.lastfm
One pretraining of 100 epochs serves all fine-tunings, seeds 0, 1, 2.
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import s3rec
from research.run import EvaluationConfig, RunConfig
from research.study import Study
from research.training.stage import StageConfig

CORPORA = ("data/corpora/LastFM",)
PRETRAINED = "runs/lastfm-pretraining/LastFM/published/0/stages/pretrain"
# S3-Rec's 99 uniform negatives a user, as released.
NEGATIVES = "../shared/data/s3rec/LastFM_sample.txt"


def pretraining() -> Study:
    """One pretraining, and one fine-tuning because a run must end in something that ranks."""
    config = s3rec.published_softmax()
    pretrain, finetune = config.stages
    stages = (replace(pretrain, epochs=100), finetune)
    return Study(
        name="lastfm-pretraining",
        question="S3-Rec's pretraining as published, on LastFM",
        cells={"published": replace(config, stages=stages)},
        base="published",
        corpora=CORPORA,
    )


def finetuned(stage: StageConfig, start_from: str | None) -> RunConfig:
    """One fine-tuning, from the pretraining or from scratch."""
    return RunConfig(
        encoder=s3rec.ENCODER,
        stages=(stage,),
        start_from=start_from,
        evaluation=EvaluationConfig(negatives_file=NEGATIVES),
    )


def study() -> Study:
    """Full softmax and the published BCE, each with and without pretraining."""
    softmax = s3rec.published_softmax().stages[-1]
    published = s3rec.published()
    bce = published.stages[-1]
    cells = {
        "softmax": finetuned(softmax, None),
        "s3rec-softmax": finetuned(softmax, PRETRAINED),
        "bce": finetuned(bce, None),
        "s3rec-bce": finetuned(bce, PRETRAINED),
    }
    return Study(
        name="lastfm",
        question="S3-Rec's pretraining on LastFM",
        cells=cells,
        base="softmax",
        corpora=CORPORA,
        seeds=(0, 1, 2),
    )
