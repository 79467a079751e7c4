"""Why does gSASRec rank by popularity for thousands of steps, and what ends it?

Training begins at scores near 0. There the 256 negatives' part of the gradient in a score that all
share is 256 times the target's under BCE, and 850 times under gBCE on LastFM, where t = 0.75 weighs
the target by 0.3. Scores have no bias, so that they can only follow by a direction that states and
items have in common. A constant added to scores in the loss, the logit of the prior, makes both
parts equal (`prior_shift`). Two factors on gSASRec's encoder and table at the size of the other
models, with its negatives, rate and dropout:
  calibration  t, 0.75 as published, or 0, which is BCE but for a constant factor;
  prior_shift  whether the constant is added; it is log(beta / 256), and t sets beta.
Each run has 1,200 steps of 64 rows, a sixth of what gSASRec has in `experiments.tuned_leaderboard`,
and keeps the best weights by validation. So the study tells how soon each learns, at one rate and
one dropout which are tuned for none, and not which is best in the end.

Command: python -m research study experiments.prior_shift --threads 1 --no-probe
Hardware: two CPU cores, no GPU; two minutes a run. Results: experiments/LOG.md.
"""

from __future__ import annotations

from experiments.recipes import FIVE_SEEDS, METRICS
from experiments.tuned_leaderboard import in_steps, trained_on_small
from research.studies.cells import grid, levels
from research.studies.study import Study

STEPS = 1_200
LOSS = "stages.0.objectives.next.loss"


def study() -> Study:
    """LastFM, five seeds."""
    base = in_steps(trained_on_small()["gsasrec"], patience=None, steps=STEPS)
    factors = {
        "calibration": levels(f"{LOSS}.calibration", (0.75, 0.0)),
        "prior_shift": levels(f"{LOSS}.prior_shift", (False, True)),
    }
    return Study(
        name="prior-shift-lastfm",
        question="Does gSASRec leave popularity sooner where negatives do not outweigh the target?",
        cells=grid(base, factors, name="gsasrec"),
        base="gsasrec",
        corpora=("data/corpora/LastFM",),
        seeds=FIVE_SEEDS,
        metrics=METRICS,
        compared="ndcg@10",
    )
