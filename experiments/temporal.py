"""Does pretraining survive an honest clock?

Amazon Beauty and Sports with times are cut at the 0.9 quantile of all times; each user's last item
after it is asked for, and the last one before it selects ("Time to Split", RecSys 2025, as in
`experiments.temporal_anchor`). The cells are counting rankers, SASRec under the full softmax,
BERT4Rec, and S3-Rec's pretraining, with attributes, before the next item: `none` and `s3rec` are
those of `experiments.objectives:beauty`, which asks the same under leave-one-out. Everything that
is trained sees 12 million tokens, pretraining included. Nothing is tuned under the cut.

Corpora: those of `experiments.temporal_anchor` with S3-Rec's attributes, whose item ids they share:
         python -m research prepare csv --raw Beauty.csv --out data/corpora/Beauty-times-attributes
         --attributes Beauty_item2attributes.json --user-column user --item-column item
         --timestamp-column timestamp; the same for Sports
Command: python -m research study experiments.temporal --threads 1 --no-probe
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines import bert4rec
from baselines.item_knn import item_knn
from baselines.popularity import pop_7_days, popularity
from baselines.s3rec import corrected_objectives
from baselines.transitions import transitions
from experiments.objectives import BEAUTY_TOKENS, from_scratch, pretrained_at
from experiments.recipes import METRICS
from experiments.temporal_anchor import SPLIT
from research.runs.config import RunConfig
from research.studies.budget import Budget
from research.studies.study import Study

BUDGET = Budget(of="tokens", amount=BEAUTY_TOKENS)


def study() -> Study:
    """What counts, what is trained from scratch, and what is pretrained first, at one cut."""
    trained: dict[str, RunConfig] = {
        "none": BUDGET.apply_to(from_scratch(rows=256)),
        "s3rec": BUDGET.apply_to(pretrained_at(256)(corrected_objectives())),
        "bert4rec": BUDGET.apply_to(bert4rec.beauty()),
    }
    counted = {
        "popularity": popularity(),
        "pop-7-days": pop_7_days(),
        "transitions": transitions(),
        "item-knn": item_knn(),
    }
    return Study(
        name="temporal",
        question="Does pretraining survive an honest clock?",
        cells={
            name: replace(config, split=SPLIT) for name, config in {**trained, **counted}.items()
        },
        base="none",
        corpora=("data/corpora/Beauty-times-attributes", "data/corpora/Sports-times-attributes"),
        seeds=(0, 1, 2),
        metrics=METRICS,
        compared="ndcg@10",
    )
