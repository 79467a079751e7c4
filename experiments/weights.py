"""Do the weights of the pretraining's losses matter, and the way in which losses are combined?

Base `published`: AAP 0.2, MIP 1, MAP 1 and SP 0.5, as weights of sums over a batch's rows, then the
next item. The cells vary one factor at a time, each weight over two orders of magnitude:
  aap=x0.1 ... sp=x10  one head's weight divided or multiplied by ten;
  cloze=0.1, 1, 10     cloze beside the four heads, at that weight;
  all=equal            all four weights at 1, of sums; all=equal-means: at 1, of means (`normalize`,
                       each loss divided by its own number of terms);
  combination=...      the published weights in other combinations: SP rising from 0 to its weight
                       over the first 300 steps, weights learned by uncertainty (Kendall et al.
                       2018), PCGrad (Yu et al. 2020), one objective in each step.
A factor common to all weights changes Adam's update only as far as its eps (1e-8) matters beside
the root of the second moment, so only the proportions are varied.

Equal budgets: 1 million tokens a run, a third for pretraining, as in `experiments.objectives`.

Command: python -m research study experiments.weights
         python -m research study experiments.weights --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; about 20 s a run on ML-100K, 18 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.s3rec import corrected_objectives
from experiments.recipes import CLOZE, SEEDS, SHARES, pretrained_next_item
from research.studies.budget import Budget
from research.studies.cells import one_factor
from research.studies.changes import Levels
from research.studies.study import Study
from research.training.combination import CombinationConfig
from research.training.one_objective import OneObjective
from research.training.pcgrad import PCGrad
from research.training.uncertainty import UncertaintyWeights
from research.training.weight_ramps import Ramp, WeightRamps

OBJECTIVES = "stages.0.objectives"
WAYS: dict[str, CombinationConfig] = {
    "sp-ramp": WeightRamps(ramps={"sp": Ramp(end=300)}),
    "uncertainty": UncertaintyWeights(),
    "pcgrad": PCGrad(),
    "one-a-step": OneObjective(),
}


def factors() -> dict[str, Levels]:
    """The factors: one for each head, one for cloze, one for all heads, one for the combination."""
    heads = corrected_objectives()
    equal = {f"{OBJECTIVES}.{key}.weight": 1.0 for key in heads}
    return {
        **{
            key: {
                "x0.1": {f"{OBJECTIVES}.{key}.weight": head.weight / 10},
                "x10": {f"{OBJECTIVES}.{key}.weight": head.weight * 10},
            }
            for key, head in heads.items()
        },
        "cloze": {
            "0.1": {f"{OBJECTIVES}.cloze": replace(CLOZE, weight=0.1)},
            "1": {f"{OBJECTIVES}.cloze": CLOZE},
            "10": {f"{OBJECTIVES}.cloze": replace(CLOZE, weight=10.0)},
        },
        "all": {"equal": equal, "equal-means": {**equal, "stages.0.normalize": "terms"}},
        "combination": {
            name: {"stages.0.combination": combination} for name, combination in WAYS.items()
        },
    }


def study() -> Study:
    """Every change of weights or combination, compared with the published weights."""
    return Study(
        name="weights",
        question="Does it matter how the pretraining's losses are weighed and combined?",
        cells=one_factor(pretrained_next_item(corrected_objectives()), factors(), name="published"),
        base="published",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_000_000, shares=SHARES),
    )
