"""How far does one plain encoder of width 64 come with any mixture of our objectives?

One cell is tuned, by NDCG@10 on the validation part alone: blocks and their number, dropouts (one
of the item table itself), windows, the loss with its smoothing or cosines, cloze and CL4SRec's
contrast beside the next item, S3-Rec's heads beside it or in a pretraining, which comes on top of
the other epochs, how losses are combined, weight decay and averaging of weights. Batch, epochs,
patience and width are fixed. Its first trial is SASRec under the full softmax, and on Beauty the
second has the values that won on LastFM; two trials run at a time. The winner is run with seeds 0
to 4, and the test part ranked once for each. The SASRec beside it has no trials: the comparison
says how far the search came, not which model is better (`experiments.tuned_leaderboard` tunes
models alike).

Aims, HR@10 / NDCG@10 in the mean of five seeds, with the best published: Beauty .110 / .066 (.1058
/ .0629, one run; .1002 / .0610 as a mean of five), LastFM .098 / .056 (.0972 / .0556, one run).

Command: python -m research tune experiments.strongest --threads 1 --no-probe
         python -m research tune experiments.strongest:lastfm --threads 1 --no-probe
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from baselines.s3rec import corrected_objectives, pretraining
from experiments.recipes import CLOZE, FIVE_SEEDS, METRICS
from research.data.loader import BatchConfig
from research.data.windows import LastItems, Sliding, WindowsConfig
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.transformer_block import BlockConfig, PostNorm, PreNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.contrast import ContrastConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import FullSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.studies.search import TPE, MedianPruner
from research.studies.space import Trial, TunedCell, Value
from research.studies.tuning import Tuning
from research.training.averaging import ExponentialMovingAverage
from research.training.combination import CombinationConfig, WeightedSum
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.uncertainty import UncertaintyWeights

ENCODER = TransformerConfig(length=50, width=64, layers=2, heads=2, feed_forward=256)
# The trial that won on LastFM (2026-11-30), to three digits.
WON_ON_LASTFM: dict[str, Value] = {
    "block": "post-norm", "layers": 3, "dropout": 0.101, "attention": 0.278,
    "table_dropout": 0.111, "smoothing": 0.141, "scores": "cosines", "temperature": 0.0818,
    "cloze": "yes", "cloze_weight": 0.324, "contrast": "no", "heads": "none",
    "combination": "uncertainty", "averaging": "EMA", "windows": "overlapping", "lr": 3.36e-3,
    "weight_decay": 5.51e-6, "rate": "constant",
}  # fmt: skip
# The rows of a stage, by name.
WINDOWS: dict[str, WindowsConfig] = {"newest": LastItems(), "overlapping": Sliding()}


def plain(rows: int, epochs: int, windows: str) -> RunConfig:
    """SASRec under the full softmax."""
    return RunConfig(
        encoder=ENCODER,
        stages=(
            StageConfig(
                name="finetune",
                objectives={"next": NextItemConfig()},
                windows=WINDOWS[windows],
                batches=BatchConfig(sequences_per_batch=rows),
                epochs=epochs,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@10", patience=15),
                rank_by="next",
            ),
        ),
    )


def mixture(trial: Trial, base: RunConfig) -> RunConfig:
    """A run of the space."""
    blocks: dict[str, BlockConfig] = {
        "post-norm": PostNorm(), "pre-norm": PreNorm(), "LiGR": LiGR(), "HSTU": HSTU()
    }  # fmt: skip
    block = trial.choice("block", blocks)
    has_norm_first = not isinstance(block, PostNorm)
    encoder = replace(
        ENCODER,
        block=block,
        embedding_norm=not has_norm_first,
        final_norm=has_norm_first,
        layers=trial.integer("layers", 1, 3),
        dropout=trial.uniform("dropout", 0.1, 0.7),
        attention_dropout=0.0 if isinstance(block, HSTU) else trial.uniform("attention", 0.0, 0.5),
    )
    smoothing = trial.uniform("smoothing", 0.0, 0.3)
    head = HeadConfig()
    if trial.choice("scores", ("products", "cosines")) == "cosines":
        head = HeadConfig(
            similarity="cosine", temperature=trial.log_uniform("temperature", 0.03, 0.2)
        )
    objectives: dict[str, ObjectiveConfig] = {
        "next": NextItemConfig(loss=FullSoftmax(label_smoothing=smoothing), head=head)
    }
    if trial.choice("cloze", ("no", "yes")) == "yes":
        objectives["cloze"] = replace(CLOZE, weight=trial.log_uniform("cloze_weight", 0.05, 1.0))
    if trial.choice("contrast", ("no", "yes")) == "yes":
        weight = trial.log_uniform("contrast_weight", 0.01, 1.0)
        objectives["contrast"] = ContrastConfig(weight=weight)
    heads = trial.choice("heads", ("none", "pretraining", "beside"))
    if heads == "beside":
        objectives |= corrected_objectives(trial.log_uniform("heads_weight", 0.01, 1.0))
    combination: CombinationConfig = WeightedSum()
    if len(objectives) > 1 and trial.choice("combination", ("sum", "uncertainty")) != "sum":
        combination = UncertaintyWeights()
    averaged = trial.choice("averaging", ("no", "EMA")) == "EMA"
    stage = replace(
        base.stages[0],
        objectives=objectives,
        combination=combination,
        windows=trial.choice("windows", WINDOWS),
        averaging=ExponentialMovingAverage(decay=0.99) if averaged else None,
        optimizer=OptimizerConfig(
            lr=trial.log_uniform("lr", 3e-4, 5e-3),
            weight_decay=trial.log_uniform("weight_decay", 1e-6, 1e-1),
            schedule=ScheduleConfig(shape=trial.choice("rate", ("constant", "linear"))),
        ),
    )
    stages: tuple[StageConfig, ...] = (stage,)
    if heads == "pretraining":
        pretrain = pretraining(corrected_objectives(), 60)
        stages = (replace(pretrain, windows=stage.windows), stage)
    items = ItemTableConfig(dropout=trial.uniform("table_dropout", 0.0, 0.5))
    return replace(base, encoder=encoder, stages=stages, items=items)


def tuning_of(
    name: str,
    corpus: str,
    *,
    rows: int,
    epochs: int,
    windows: str,
    trials: int,
    also: Sequence[Mapping[str, Value]] = (),
) -> Tuning:
    """The search on one corpus, and SASRec as it stands, which is its first trial.

    `also` are the values of the next trials.
    """
    base = plain(rows, epochs, windows)
    first: dict[str, Value] = {
        "block": "post-norm", "layers": 2, "dropout": 0.5, "attention": 0.5, "table_dropout": 0.0,
        "smoothing": 0.0, "scores": "products", "cloze": "no", "contrast": "no", "heads": "none",
        "averaging": "no", "windows": windows, "lr": 1e-3, "weight_decay": 1e-6, "rate": "constant",
    }  # fmt: skip
    cell = TunedCell(base=base, space=lambda trial: mixture(trial, base), first=(first, *also))
    return Tuning(
        name=name,
        question="How far does one plain encoder come with any mixture of our objectives?",
        cells={"sasrec": base, "strongest": cell},
        base="sasrec",
        corpora=(corpus,),
        trials=trials,
        trial_length=1 / 3,
        at_once=2,
        sampler=TPE(startup_trials=10),
        pruner=MedianPruner(startup_trials=5, startup_epochs=8),
        seed=5,
        fresh_seeds=FIVE_SEEDS,
        metrics=METRICS,
    )


def tuning() -> Tuning:
    """Amazon Beauty."""
    return tuning_of(
        "strongest-beauty",
        "data/corpora/Beauty",
        rows=256,
        epochs=60,
        windows="newest",
        trials=24,
        also=(WON_ON_LASTFM,),
    )


def lastfm() -> Tuning:
    """LastFM."""
    return tuning_of(
        "strongest-lastfm", "data/corpora/LastFM", rows=64, epochs=90, windows="overlapping",
        trials=40,
    )  # fmt: skip
