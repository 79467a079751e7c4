"""Which loss trains the next item best at an equal number of tokens?

Base `softmax`: the softmax over all items. It is compared with
  softmax-bf16         the same with logits in bf16, which is fast where a device has units for it;
  softmax-smoothed     the same, a tenth of the target's probability being spread over all items;
  softmax-cosine       the same over cosines divided by 0.05;
  bce-1 ... bce-64     binary cross-entropy with 1 to 64 negatives (SASRec has one);
  gbce-64              gBCE with calibration 0.75 (gSASRec), and gbce-64-t1 fully calibrated;
  sampled-16, -64      softmax over the target and 16 or 64 negatives;
  sampled-256-shared   over 256 which the tokens of a row share (cheap: as much time as softmax);
  sampled-256-logq     the same, drawn by popularity and corrected for it;
  sampled-256-target   the latter, with the target left out of the correction;
  in-batch             softmax over the step's targets;
  in-batch-logq        the same, corrected for their popularity;
  in-batch-target      the latter, with the target left out of the correction;
  mixed-256            over the step's targets and 256 items drawn for the step, corrected;
  mixed-256-target     the latter, with the target left out of the correction;
  bpr-1, bpr-16        Bayesian personalized ranking.
Unless the list says otherwise, each token draws its own negatives, uniformly. None of them is a
training item of the user. Nothing else differs: the rows, their order and the initial weights are
the same.

Equal budgets: 1 million tokens a run in one stage, hence equal steps; a sampled loss does less
work for each token on a large catalogue. Every catalogue must have more than 256 items.

Command: python -m research study experiments.losses
         python -m research study experiments.losses --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; 10 to 50 s a run on ML-100K, 22 cells with 3 seeds.
Results: experiments/LOG.md. The times of the losses alone: experiments/loss_speed.py.
"""

from __future__ import annotations

from dataclasses import replace

from experiments.recipes import SEEDS, next_item
from research.data.negatives import NegativesConfig
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    ItemLossConfig,
    SampledSoftmax,
)
from research.objectives.mixed_softmax import MixedSoftmax
from research.studies.budget import Budget
from research.studies.cells import named_cells
from research.studies.study import Study

SHARED = SampledSoftmax(number=256, share="sequence")
POPULAR = replace(SHARED, log_q=True, negatives=NegativesConfig(distribution="popularity"))
IN_BATCH = InBatchSoftmax(log_q=True, q_from="training")
MIXED = MixedSoftmax(number=256)
COSINE = HeadConfig(similarity="cosine", temperature=0.05)
LOSSES: dict[str, ItemLossConfig] = {
    "softmax-bf16": FullSoftmax(bf16_logits=True),
    "softmax-smoothed": FullSoftmax(label_smoothing=0.1),
    **{f"bce-{number}": BinaryCrossEntropy(number=number) for number in (1, 4, 16, 64)},
    "gbce-64": GeneralizedBCE(number=64),
    "gbce-64-t1": GeneralizedBCE(number=64, calibration=1.0),
    **{f"sampled-{number}": SampledSoftmax(number=number) for number in (16, 64)},
    "sampled-256-shared": SHARED,
    "sampled-256-logq": POPULAR,
    "sampled-256-target": replace(POPULAR, corrected=True),
    "in-batch": InBatchSoftmax(),
    "in-batch-logq": IN_BATCH,
    "in-batch-target": replace(IN_BATCH, corrected=True),
    "mixed-256": MIXED,
    "mixed-256-target": replace(MIXED, corrected=True),
    **{f"bpr-{number}": BayesianPersonalizedRanking(number=number) for number in (1, 16)},
}


def study() -> Study:
    """Every loss compared with the full softmax."""
    changes: dict[str, dict[str, object]] = {
        cell: {"stages.0.objectives.next.loss": loss} for cell, loss in LOSSES.items()
    }
    changes["softmax-cosine"] = {"stages.0.objectives.next.head": COSINE}
    return Study(
        name="losses",
        question="Which loss trains the next item best at an equal number of tokens?",
        cells=named_cells(next_item(), changes, name="softmax"),
        base="softmax",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_000_000),
    )
