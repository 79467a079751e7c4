"""How do published models compare on one corpus, under one protocol, each as its source trains it?

Leave-one-out, all items ranked, items of the history excluded; width 64 where a recipe leaves it
open. Counting needs no seeds; all else has seeds 0 to 4, of which `--seeds 1` is the first. Recipes
are those of their sources for Amazon Beauty, so that on another corpus they are only a beginning:
`experiments/tuned.py` shows how to give each an equal number of trials on validation.

Corpora: python -m research prepare s3rec --raw Beauty.txt --out data/corpora/Beauty
Command: python -m research study experiments.leaderboard --corpora data/corpora/Beauty
         --cells sasrec bsarec --seeds 1 --threads 1 --no-probe
         python -m experiments.results.collect runs/leaderboard
         make results
Hardware: two CPU cores, no GPU. Times and results: experiments/results/, experiments/LOG.md.
"""

from __future__ import annotations

from baselines import (
    bert4rec,
    bsarec,
    caser,
    cl4srec,
    duorec,
    ease,
    esasrec,
    fmlp,
    gru4rec,
    hstu,
    item_knn,
    popularity,
    s3rec,
    sasrec,
    transitions,
)
from experiments.recipes import FIVE_SEEDS, METRICS
from research.objectives.losses import BinaryCrossEntropy
from research.overrides import replace_fields
from research.studies.cells import Cells
from research.studies.study import Study

# The width of the configs beside eSASRec's published table, whose README has 64. An epoch costs
# three times as much, so that the patience is not the source's 50.
WIDE = {"encoder.width": 256, "encoder.feed_forward": 1024, "stages.0.validation.patience": 10}
# Two negatives for each target, as RecBoard trains Caser.
BY_PAIRS = {"stages.0.objectives.next.loss": BinaryCrossEntropy(number=2)}


def counting() -> Cells:
    """Models that count, with the parameters that `experiments.counting` found on Beauty."""
    knn = {"ranker.neighbors": 51, "ranker.shrinkage": 25.2}
    return {
        "popularity": popularity.popularity(),
        "transitions": transitions.transitions(),
        "item-knn": replace_fields(item_knn.item_knn(), knn),
        "item-knn-decayed": replace_fields(item_knn.item_knn(), {**knn, "ranker.decay": 0.737}),
        "ease": replace_fields(ease.ease(), {"ranker.regularization": 173.0}),
    }


def trained() -> Cells:
    """Models that are trained, the cheapest first."""
    return {
        "sasrec-bce": sasrec.bce(),
        "sasrec": sasrec.full_softmax(),
        "gru4rec": gru4rec.full_softmax(),
        "caser": caser.full_softmax(),
        "hstu": hstu.full_softmax(),
        "caser-bce": replace_fields(caser.full_softmax(), BY_PAIRS),
        "esasrec": esasrec.beauty(),
        "esasrec-256": replace_fields(esasrec.beauty(), WIDE),
        "cl4srec-bce": cl4srec.bce(),
        "cl4srec-iclrec": cl4srec.iclrec(),
        "cl4srec": cl4srec.full_softmax(),
        "bert4rec": bert4rec.beauty(),
        "fmlp": fmlp.full_softmax(),
        "fmlp-bce": fmlp.original(),
        "bsarec": bsarec.beauty(),
        "duorec": duorec.published(),
        "s3rec": s3rec.corrected(),
        "s3rec-published": s3rec.published_softmax(),
    }


def study() -> Study:
    """All of them, compared with SASRec under full softmax."""
    return Study(
        name="leaderboard",
        question="How do published models compare under one protocol?",
        cells={**counting(), **trained()},
        base="sasrec",
        corpora=("data/corpora/Beauty",),
        seeds=FIVE_SEEDS,
        metrics=METRICS,
        compared="ndcg@10",
    )
