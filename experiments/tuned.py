"""Which is better on MovieLens-100K once both are tuned, SASRec or BERT4Rec?

Each has 12 trials of 8 epochs, the recipe of `experiments.quickstart` with drawn values: learning
rate, weight decay, dropout, layers and the block's norms; SASRec's loss, BERT4Rec's masking. Trials
below the median of the earlier ones are ended early. The best of each by NDCG@10 on the validation
part is run with five fresh seeds, which alone rank the test part; popularity stands beside them.

Command: python -m research tune experiments.tuned --workers 2 --threads 1 --no-probe
Hardware: two CPU cores, no GPU; about 10 minutes.
"""

from __future__ import annotations

from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from experiments.quickstart import on_masked_items, on_next_items, sized_for_ml_100k
from research.model.transformer_block import PostNorm, PreNorm
from research.objectives.losses import FullSoftmax, ItemLossConfig, SampledSoftmax
from research.studies.changes import Changes
from research.studies.search import TPE, MedianPruner
from research.studies.space import Trial, TunedCell
from research.studies.tuning import Tuning

EPOCHS = 8


def encoder_and_optimizer(trial: Trial) -> Changes:
    """What both encoders are tuned by."""
    return {
        "stages.0.optimizer.lr": trial.log_uniform("lr", 3e-4, 1e-2),
        "stages.0.optimizer.weight_decay": trial.log_uniform("weight_decay", 1e-5, 1e-2),
        "encoder.dropout": trial.uniform("dropout", 0.0, 0.5),
        "encoder.layers": trial.integer("layers", 1, 2),
        "encoder.block": trial.choice("norm", {"before": PreNorm(), "after": PostNorm()}),
    }


def sasrec_space(trial: Trial) -> Changes:
    """The softmax over all items, or over the target and some drawn ones."""
    loss: ItemLossConfig = FullSoftmax()
    if trial.choice("loss", ("full", "sampled")) == "sampled":
        loss = SampledSoftmax(number=trial.integer("negatives", 16, 128, log=True))
    return {**encoder_and_optimizer(trial), "stages.0.objectives.next.loss": loss}


def bert4rec_space(trial: Trial) -> Changes:
    """How many items are masked, and in what share of rows the last one is masked alone."""
    masks = "stages.0.objectives.cloze.corruption"
    return {
        **encoder_and_optimizer(trial),
        f"{masks}.rate": trial.uniform("rate", 0.1, 0.6),
        f"{masks}.mask_last_share": trial.uniform("mask_last_share", 0.0, 1.0),
    }


def tuning() -> Tuning:
    """SASRec and BERT4Rec with as many trials each, and popularity."""
    return Tuning(
        name="tuned",
        question="Which is better once both are tuned, SASRec or BERT4Rec?",
        cells={
            "sasrec": TunedCell(
                base=sized_for_ml_100k(full_softmax(), on_next_items(EPOCHS)), space=sasrec_space
            ),
            "bert4rec": TunedCell(
                base=sized_for_ml_100k(cloze(), on_masked_items(EPOCHS)), space=bert4rec_space
            ),
            "popularity": popularity(),
        },
        base="sasrec",
        trials=12,
        sampler=TPE(startup_trials=5),
        pruner=MedianPruner(startup_trials=4, startup_epochs=2),
    )
