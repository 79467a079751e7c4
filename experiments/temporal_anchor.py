"""Does SASRec under a global temporal split reach the figures published for it?

"Time to Split" (Gusak et al., RecSys 2025, arXiv 2507.16289) cuts Amazon Beauty and Sports at the
0.9 quantile of all times, asks for each user's last item after it, and selects by the last item
before it. With full softmax at width 64 it reports HR@10 / NDCG@10 of .0516 / .0295 on Beauty and
.0353 / .0211 on Sports. The results in the authors' repository (monkey0head/time-to-split,
val_last_train_item/*/q09/SASRec, one seed) tell which points of their grid these are:

    blocks, heads, dropout   Beauty           Sports
    2, 1, 0.5                .0504 / .0295    .0353 / .0211   (the one reported on Sports)
    3, 1, 0.5                .0516 / .0295    .0362 / .0216   (the one reported on Beauty)
    2, 2, 0.5                .0524 / .0309    .0330 / .0193
    2, 2, 0.3                .0473 / .0281    .0322 / .0196
    2, 2, 0.1                .0458 / .0272    .0304 / .0184

The cells here are the first three, with popularity, popularity of the last 7 days and transitions.
Length 128, batches of 256, Adam at 0.001, at most 300 epochs, patience 10 on NDCG@10 as there.
Departures: validation ranks all users, not 1,024 drawn ones, and padding has no share of the
softmax. The repository's figures are over 6,110 and 10,203 test users, which our split has too.

Corpora: Amazon's 5-core reviews of 2014 with times, as user,item,timestamp; ties within a day stay
         in the order of the file, so that other copies of the data hold out other items.
         python -m research prepare csv --raw Beauty.csv --out data/corpora/Beauty-times
         --user-column user --item-column item --timestamp-column timestamp; the same for Sports
Command: python -m research study experiments.temporal_anchor [--corpora FOLDER ...]
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.popularity import pop_7_days, popularity
from baselines.sasrec import plus
from baselines.transitions import transitions
from research.data.splits import AtQuantile, ByLastItem, TemporalCut
from research.model.positions import LearnedPositions
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.study import Study

SPLIT = TemporalCut(cut=AtQuantile(quantile=0.9), target="last", validation=ByLastItem())


def sasrec(layers: int = 2, heads: int = 1, dropout: float = 0.5) -> RunConfig:
    """SASRec+ as in the code of "Time to Split", at width 64."""
    return replace_fields(
        plus(),
        {
            "corpus": "data/corpora/Beauty-times",
            "split": SPLIT,
            "encoder.length": 128,
            "encoder.layers": layers,
            "encoder.heads": heads,
            "encoder.dropout": dropout,
            "encoder.inner_dropout": dropout,
            "encoder.positions": LearnedPositions(count_from="oldest"),
            "stages.0.batches.sequences_per_batch": 256,
            "stages.0.epochs": 300,
        },
    )


def study() -> Study:
    """Three points of the published grid and three counting rankers under one split."""
    return Study(
        name="temporal-anchor",
        question="Does SASRec under a global temporal split reach its published figures?",
        cells={
            "sasrec": sasrec(),
            "sasrec-3-layers": sasrec(layers=3),
            "sasrec-2-heads": sasrec(heads=2),
            "popularity": replace(popularity(), split=SPLIT),
            "pop-7-days": replace(pop_7_days(), split=SPLIT),
            "transitions": replace(transitions(), split=SPLIT),
        },
        base="sasrec",
        corpora=("data/corpora/Beauty-times", "data/corpora/Sports-times"),
        seeds=(0, 1, 2),
        metrics=("hr@10", "ndcg@10", "mrr"),
    )
