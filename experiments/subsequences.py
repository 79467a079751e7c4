"""How much of a model's figures is sub-sequence splitting, of which its paper says nothing?

Dang et al. (2026, arXiv 2604.05309) find that recent models owe much to rows that are made of every
prefix of a history while the data are read, and that it works with one target a row and
cross-entropy alone. Here the rule of rows is crossed with the targets of a row and the loss, for

  sasrec    rows (whole histories, every prefix, sliding windows) x targets (every next item, or the
            last alone) x loss (full softmax, BCE with one negative): 12 cells;
  bsarec    the same rows x loss; the filter reads newer items, so that the last item alone can be
            the target: 6 cells;
  bert4rec  the same rows x what is masked (random items, or the newest alone) x loss: 12 cells.

Each cell is otherwise as its source trains SASRec, BSARec and BERT4Rec on Amazon Beauty. Cells of
SASRec and BSARec stop by patience on validation, so that a rule with more rows may also take more
steps; those of BERT4Rec, whose learning rate falls to 0, all take 2,640 steps. `--budget tokens=N`
compares at equal tokens. Effects and interactions of the factors stand in the report.

Corpus: python -m research prepare s3rec --raw Beauty.txt --out data/corpora/Beauty
Commands: python -m research study experiments.subsequences:sasrec
          python -m research study experiments.subsequences:bsarec
          python -m research study experiments.subsequences:bert4rec
Hardware: two CPU cores, no GPU. Not run yet; results go to experiments/LOG.md.
"""

from __future__ import annotations

from baselines import bert4rec as bert4rec_recipes
from baselines import bsarec as bsarec_recipes
from baselines import sasrec as sasrec_recipes
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.objectives.losses import BinaryCrossEntropy
from research.objectives.masking import MaskItems
from research.runs.config import RunConfig
from research.studies.cells import grid
from research.studies.changes import Levels
from research.studies.study import Study

NEXT = "stages.0.objectives.next"
MASKS = "stages.0.objectives.cloze.corruption"
ROWS: Levels = {
    "whole": {"stages.0.windows": LastItems()},
    "prefixes": {"stages.0.windows": EveryPrefix()},
    "sliding": {"stages.0.windows": Sliding()},
}
LOSS: Levels = {"softmax": {}, "bce": {f"{NEXT}.loss": BinaryCrossEntropy()}}
# What is hidden where it is the newest item alone.
LAST_ONLY = MaskItems(rate=0.2, last_only_share=1.0)


def crossed(name: str, base: RunConfig, factors: dict[str, Levels]) -> Study:
    """The study of one model; its base is the recipe as it is."""
    return Study(
        name=f"subsequences-{name}",
        question=f"What do the rows of training do for {name}, by targets and loss?",
        cells=grid(base, factors, name="recipe"),
        base="recipe",
        corpora=("data/corpora/Beauty",),
        seeds=(0, 1, 2),
        metrics=("hr@10", "ndcg@10", "mrr"),
    )


def sasrec() -> Study:
    """SASRec; its recipe has whole histories, all targets and full softmax."""
    targets: Levels = {"all": {}, "last": {f"{NEXT}.predict": "last"}}
    factors = {"rows": ROWS, "targets": targets, "loss": LOSS}
    return crossed("sasrec", sasrec_recipes.full_softmax(), factors)


def bsarec() -> Study:
    """BSARec; its recipe has every prefix, the last target and full softmax."""
    return crossed("bsarec", bsarec_recipes.beauty(), {"rows": ROWS, "loss": LOSS})


def bert4rec() -> Study:
    """BERT4Rec; its recipe has whole histories, random masks and full softmax."""
    # An epoch of prefixes has about 300 steps, one of the other rows about 45.
    often = {"stages.0.windows": EveryPrefix(), "stages.0.validation.every_epochs": 1}
    masks: Levels = {"random": {}, "last": {MASKS: LAST_ONLY}}
    loss: Levels = {
        "softmax": {},
        "bce": {"stages.0.objectives.cloze.loss": BinaryCrossEntropy()},
    }
    factors = {"rows": {**ROWS, "prefixes": often}, "masks": masks, "loss": loss}
    return crossed("bert4rec", bert4rec_recipes.beauty(), factors)
