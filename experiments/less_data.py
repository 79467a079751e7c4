"""How much does pretraining add where few users are trained on?

The next item under the full softmax, from scratch and after S3-Rec's four heads, where 10, 25, 50
and 100 % of the users are trained on and all of them are asked after: a grid of two factors, whose
interaction is the answer. Every run sees as many tokens, half of them in pretraining where there
is one, so that fewer users are seen more often; all else is as in `experiments.objectives:lastfm`.
Which users are trained on is drawn anew for every seed.

Command: python -m research study experiments.less_data --threads 1 --no-probe
         python -m research study experiments.less_data:beauty --threads 1 --no-probe
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.s3rec import corrected_objectives
from experiments.objectives import beauty as beauty_objectives
from experiments.objectives import from_scratch, lastfm, pretrained_at
from research.studies.cells import grid, levels
from research.studies.changes import Levels
from research.studies.factorial import Grid
from research.studies.study import Study

SHARES = (0.1, 0.25, 0.5, 1.0)


def cells(rows: int) -> Grid:
    """With and without pretraining at each share of the users."""
    pretrain = pretrained_at(rows)(corrected_objectives()).stages[0]
    factors: dict[str, Levels] = {
        "pretraining": {
            "none": {},
            "s3": lambda config: replace(config, stages=(pretrain, *config.stages)),
        },
        "users": levels("training_share", SHARES),
    }
    return grid(from_scratch(rows), factors, name="none")


def study() -> Study:
    """LastFM, five seeds."""
    return replace(
        lastfm(),
        name="less-data",
        question="How much does pretraining add where few users are trained on?",
        cells=cells(rows=64),
    )


def beauty() -> Study:
    """Amazon Beauty, three seeds."""
    whole = beauty_objectives()
    return replace(whole, name="less-data-beauty", question=study().question, cells=cells(rows=256))
