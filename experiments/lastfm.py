"""Does S3-Rec's pretraining help on LastFM (S3-Rec's file, 1,090 users)?

Corpus: python -m research prepare s3rec --raw LastFM.txt --out data/corpora/LastFM
Candidates: S3-Rec's LastFM_sample.txt, as data/LastFM_sample.txt
Commands: python -m research study experiments.lastfm:pretraining
          python -m research study experiments.lastfm
          python -m research study experiments.lastfm:bce
All fine-tunings (seeds 0, 1, 2) start from one pretraining of 100 epochs.
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import s3rec
from research.runs.config import EvaluationConfig, RunConfig
from research.studies.study import Study
from research.training.config import StageConfig

CORPORA = ("data/corpora/LastFM",)
PRETRAINED = "runs/lastfm-pretraining/LastFM/published/0/stages/pretrain"
# The file that S3-Rec's authors released, with 99 uniform negatives for each user.
NEGATIVES = "data/LastFM_sample.txt"


def pretraining() -> Study:
    """One pretraining, followed by a fine-tuning because a run must end in a stage that ranks."""
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


def finetuning_run(stage: StageConfig, start_from: str | None) -> RunConfig:
    """A run of one fine-tuning stage, from the stage folder `start_from` or (None) from scratch."""
    return RunConfig(
        encoder=s3rec.ENCODER,
        stages=(stage,),
        start_from=start_from,
        evaluation=EvaluationConfig(negatives_file=NEGATIVES),
    )


def comparison(question: str, cells: dict[str, RunConfig], base: str) -> Study:
    """A study of cells with comparable figures.

    A head with special classes ranks among more columns, so it needs a study of its own.
    """
    return Study(
        name="lastfm",
        question=question,
        cells=cells,
        base=base,
        corpora=CORPORA,
        seeds=(0, 1, 2),
    )


def study() -> Study:
    """Full softmax with and without pretraining."""
    stage = s3rec.published_softmax().stages[-1]
    cells = {
        "softmax": finetuning_run(stage, None),
        "s3rec-softmax": finetuning_run(stage, PRETRAINED),
    }
    return comparison("S3-Rec's pretraining under full softmax on LastFM", cells, "softmax")


def bce() -> Study:
    """The published BCE with one negative, with and without pretraining."""
    stage = s3rec.published().stages[-1]
    cells = {"bce": finetuning_run(stage, None), "s3rec-bce": finetuning_run(stage, PRETRAINED)}
    return comparison("S3-Rec's pretraining under its published BCE on LastFM", cells, "bce")
