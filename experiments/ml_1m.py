"""How good are plain SASRec and BERT4Rec on MovieLens-1M (SASRec's file, 3,416 items)?

Corpus: python -m research prepare pairs --raw ml-1m.txt --out data/corpora/ml-1m-sas
Command: python -m research study experiments.ml_1m
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.bert4rec import ml_1m
from baselines.popularity import popularity
from baselines.sasrec import plus
from baselines.transitions import transitions
from research.data.windows import Sliding
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.study import Study
from research.training.schedule import ScheduleConfig


def sliding() -> RunConfig:
    """SASRec+ on windows that slide over whole histories, instead of on the newest 201 items."""
    config = plus()
    return replace(config, stages=(replace(config.stages[0], windows=Sliding(stride=200)),))


def bert4rec() -> RunConfig:
    """The cloze recipe with dropout 0.1, with which the figures in experiments/LOG.md were made."""
    return replace_fields(ml_1m(), {"encoder.dropout": 0.1})


def with_annealing(config: RunConfig, epochs: int, lr: float, anneal_epochs: int) -> RunConfig:
    """A recipe's stage for `epochs`, then a second stage with a falling learning rate.

    The second stage trains `anneal_epochs` on sliding windows, from the learning rate `lr` on.
    """
    rule = config.stages[0].validation
    assert rule is not None, "the recipes on ML-1M select on validation"
    rule = replace(rule, patience_steps=0, min_steps=0)
    stage = replace(config.stages[0], epochs=epochs, steps=None, validation=rule)
    schedule = ScheduleConfig(shape="linear")
    anneal = replace(
        stage,
        name="anneal",
        windows=Sliding(stride=200),
        epochs=anneal_epochs,
        optimizer=replace(stage.optimizer, lr=lr, schedule=schedule),
        validation=replace(rule, patience=None, every_epochs=1),
    )
    return replace(config, stages=(stage, anneal))


def study() -> Study:
    """Two counting rankers, SASRec+ (full softmax) and BERT4Rec at width 64 and length 200."""
    return Study(
        name="ml-1m",
        question="Plain baselines on MovieLens-1M",
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "sasrec": plus(),
            "sasrec-annealed": with_annealing(sliding(), 30, 1e-3, 20),
            "bert4rec-annealed": with_annealing(bert4rec(), 156, 5e-4, 35),
        },
        base="sasrec-annealed",
        corpora=("data/corpora/ml-1m-sas",),
    )
