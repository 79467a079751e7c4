"""What must any trained model beat: popularity, direct successors, ItemKNN or EASE, each tuned?

ItemKNN has 10 trials as published (neighbors, shrinkage) and 10 with an older item counting for
less (decay); EASE has 10 for its lambda, in ranges that include those of Ferrari Dacrema et al.
(RecSys 2019). The best of each by NDCG@10 on the validation part is tested, once. Popularity and
transitions have nothing to tune. Nothing here is random but the draws of the trials, so each winner
is run once. Each trial computes its pairs of items from the training part.

Command: python -m research tune experiments.counting --corpora CORPUS --no-probe
Hardware: one CPU core; memory for EASE, 8 V^2 bytes; 40 seconds of CPU time for LastFM, some 15
minutes for Beauty, nearly all of them for EASE's inverses.
"""

from __future__ import annotations

from baselines.ease import ease
from baselines.item_knn import item_knn
from baselines.popularity import popularity
from baselines.transitions import transitions
from research.studies.changes import Changes
from research.studies.search import TPE
from research.studies.space import Trial, TunedCell
from research.studies.tuning import Tuning


def item_knn_space(trial: Trial) -> Changes:
    """How many neighbors an item keeps, and how much few common users are discounted."""
    return {
        "ranker.neighbors": trial.integer("neighbors", 5, 1000, log=True),
        "ranker.shrinkage": trial.log_uniform("shrinkage", 0.1, 1000.0),
    }


def decayed_space(trial: Trial) -> Changes:
    """The same, and how much less an item counts than the one after it."""
    return {**item_knn_space(trial), "ranker.decay": trial.uniform("decay", 0.2, 1.0)}


def ease_space(trial: Trial) -> Changes:
    """The only parameter of EASE."""
    return {"ranker.regularization": trial.log_uniform("regularization", 1.0, 1e5)}


def tuning() -> Tuning:
    """ItemKNN with and without decay, and EASE, compared with popularity."""
    return Tuning(
        name="counting",
        question="What must any trained model beat?",
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "item-knn": TunedCell(base=item_knn(), space=item_knn_space),
            "item-knn-decayed": TunedCell(base=item_knn(), space=decayed_space),
            "ease": TunedCell(base=ease(), space=ease_space),
        },
        base="popularity",
        trials=10,
        sampler=TPE(startup_trials=5),
    )
