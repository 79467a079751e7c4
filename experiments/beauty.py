"""How good are plain SASRec and BERT4Rec on Amazon Beauty (S3-Rec's file)?

Corpus: python -m research prepare s3rec --raw Beauty.txt --out data/corpora/Beauty
Command: python -m research study experiments.beauty --cells popularity transitions sasrec
         sasrec-bce; the same with --cells bert4rec --seeds 1
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from baselines.bert4rec import beauty
from baselines.popularity import popularity
from baselines.sasrec import bce, full_softmax
from baselines.transitions import transitions
from research.studies.study import Study


def study() -> Study:
    """Two counting rankers, SASRec with full softmax and with BCE, and BERT4Rec."""
    return Study(
        name="beauty",
        question="Plain baselines on Amazon Beauty",
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "sasrec": full_softmax(),
            "sasrec-bce": bce(),
            "bert4rec": beauty(),
        },
        base="sasrec",
        corpora=("data/corpora/Beauty",),
        seeds=(0, 1, 2),
        metrics=("hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr"),
    )
