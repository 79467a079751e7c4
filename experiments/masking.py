"""How should cloze hide items: how many, how often the last one, and what should replace them?

Base `base`: each item is hidden with probability 0.3, and the last one in half of the rows in
addition; a hidden item is always replaced by the mask. The cells vary one factor at a time:
  rate=...       the probability of being hidden (BERT4Rec's paper: best at 0.2 on ML-1M, 0.6 on
                 its Beauty, falling above 0.6);
  last=...       the share of rows whose last item is hidden in addition: with 0, as in most ports,
                 training seldom shows the masked last place that ranking asks for; 1 is S3-Rec's;
  last-only=...  the share of rows in which the last item alone is hidden (BERT4Rec's code: 1/11);
  behind=...     what replaces a hidden item: 80-10-10 is BERT's 80 % mask, 10 % random item, 10 %
                 itself; random and kept are 80 % mask and 20 % of one of the other two.

Equal budgets: 1.5 million tokens a run, hence equal steps; a higher rate has more targets in them.

Command: python -m research study experiments.masking
         python -m research study experiments.masking --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; 30 to 45 s a run on ML-100K, 13 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from experiments.recipes import SEEDS, cloze
from research.studies.budget import Budget
from research.studies.cells import levels, one_factor
from research.studies.changes import Levels
from research.studies.study import Study

MASKS = "stages.0.objectives.cloze.corruption"
FACTORS: dict[str, Levels] = {
    "rate": levels(f"{MASKS}.rate", (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)),
    "last": levels(f"{MASKS}.mask_last_share", (0.0, 0.25, 1.0)),
    "last-only": levels(f"{MASKS}.last_only_share", (0.1,)),
    "behind": {
        "80-10-10": {f"{MASKS}.random_share": 0.1, f"{MASKS}.keep_share": 0.1},
        "random": {f"{MASKS}.random_share": 0.2},
        "kept": {f"{MASKS}.keep_share": 0.2},
    },
}


def study() -> Study:
    """Cells that vary one factor of the masking at a time."""
    return Study(
        name="masking",
        question="How should cloze hide items?",
        cells=one_factor(cloze(), FACTORS),
        base="base",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_500_000),
    )
