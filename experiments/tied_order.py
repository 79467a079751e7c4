"""How much of what models learn from Amazon's reviews is the order of a day's items in the file?

Times of Amazon's reviews of 2014 are days, and 43 % of the users of Beauty have their last two
items on one day, so that the file decides which of them is last. S3-Rec's file, on which most
figures are published, has the items of every day in one order of the whole catalogue: two users who
have the same two neighbors within a day always have them in the same order. TiCoSeRec's copy of the
same events has days in an order drawn at random, so that two users agree half of the time. The
cells are the same on both: counting, the next item under the full softmax from scratch, and after a
pretraining on S3-Rec's heads (`none` and `s3` of `experiments.objectives:beauty`).

A day in a fixed order is easier for a model that reads order, in training and in the test. And the
last item is then another one: the last of the catalogue's order.

Corpora: data/corpora/Beauty, as for `experiments.objectives:beauty`, and
         data/corpora/Beauty-times-attributes, as for `experiments.temporal`
Command: python -m research study experiments.tied_order --threads 1 --no-probe
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.ease import ease
from baselines.item_knn import item_knn
from baselines.popularity import popularity
from baselines.transitions import transitions
from experiments.objectives import beauty
from research.studies.study import Study


def study() -> Study:
    """The same cells on the file whose days are sorted, and on one whose days are drawn."""
    pretraining = beauty()
    assert pretraining.budget is not None, "all its cells see as many tokens"
    return replace(
        pretraining,
        name="tied-order",
        question="How much of what models learn is the order of a day's items in the file?",
        cells={
            **{
                name: pretraining.budget.apply_to(pretraining.cells[name])
                for name in ("none", "s3")
            },
            "popularity": popularity(),
            "transitions": transitions(),
            "item-knn": item_knn(),
            "ease": ease(),
        },
        corpora=("data/corpora/Beauty", "data/corpora/Beauty-times-attributes"),
        budget=None,
    )
