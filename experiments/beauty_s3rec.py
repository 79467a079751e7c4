"""Does S3-Rec's pretraining lift a strong plain SASRec on Amazon Beauty (S3-Rec's file)?

Corpus: python -m research prepare s3rec --raw Beauty.txt --out data/corpora/Beauty
Command: python -m research study experiments.beauty_s3rec --cells none published
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import s3rec
from research.runs.config import RunConfig
from research.studies.study import Study


def with_100_epochs(config: RunConfig) -> RunConfig:
    """A two-stage run with its pretraining set to 100 epochs."""
    pretrain, finetune = config.stages
    return replace(config, stages=(replace(pretrain, epochs=100), finetune))


def study() -> Study:
    """The same full-softmax fine-tuning from scratch and after each form of the pretraining."""
    published = s3rec.published_softmax()
    return Study(
        name="beauty-s3rec",
        question="S3-Rec's pretraining under a full-softmax fine-tuning on Amazon Beauty",
        cells={
            "none": replace(published, stages=published.stages[-1:]),
            "published": with_100_epochs(published),
            "corrected": with_100_epochs(s3rec.corrected()),
        },
        base="none",
        corpora=("data/corpora/Beauty",),
        metrics=("hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr"),
    )
