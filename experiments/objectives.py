"""What does each pretraining head add, and is it more than noise?

Base `s3`: pretraining on AAP, MIP, MAP and SP together, then the next item. It is compared with
  none                 the next item from scratch: minus what pretraining adds;
  no-aap ... no-sp     one head left out: minus what it adds to the other three;
  only-aap ... only-sp one head alone: whether one of them is enough;
  cloze, cloze+s3      BERT4Rec's objective instead of the four, or beside them;
  joint                the next item, cloze and the four heads in a single stage.
`against_none` compares the same runs with `none`: what does each pretraining add to no pretraining?
After `study` it has nothing to train, but its table is a second family of tests.

Equal budgets: every cell sees 1 million tokens of clean windows, all stages together, and none
stops earlier. A third of them is pretraining; `none` and `joint` spend all in their one stage, so
pretraining has to be worth the tokens that it takes from the fine-tuning. Everything else about the
fine-tuning is the same. Equal tokens are not equal time: a token under the four heads costs twice
one under the next item (SP encodes three sequences for each row), one in `joint` three times;
`--budget seconds=40` makes time equal instead. All stages read the same rows, which are sliding
windows and not every prefix as in S3-Rec. Weights are S3-Rec's (AAP 0.2, MIP 1, MAP 1, SP 0.5), of
sums in the two-stage cells and of means in `joint`, as in `baselines.s3rec`.

Command: python -m research study experiments.objectives
         python -m research study experiments.objectives --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; about 17 s a run on ML-100K, `joint` 40 s, 13 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.s3rec import corrected_objectives
from experiments.recipes import CLOZE, SEEDS, SHARES, next_item, pretrained_next_item, ranking_stage
from research.objectives.next_item import NextItemConfig
from research.studies.budget import Budget
from research.studies.cells import Cells, leave_one_out, one_only
from research.studies.study import Study


def cells() -> Cells:
    """Cells with fine-tuning after each pretraining, and one with all six objectives at once."""
    four = corrected_objectives()
    base = pretrained_next_item(four)
    six = ranking_stage("joint", {"next": NextItemConfig(), "cloze": CLOZE, **four})
    return {
        "s3": base,
        "none": next_item(),
        **leave_one_out(base, "pretrain", name="s3"),
        **one_only(base, "pretrain", name="s3"),
        "cloze": pretrained_next_item({"cloze": CLOZE}),
        "cloze+s3": pretrained_next_item({"cloze": CLOZE, **four}),
        "joint": replace(base, stages=(six,)),
    }


def study() -> Study:
    """Every cell compared with the four heads together."""
    return Study(
        name="objectives",
        question="What does each pretraining head add, and is it more than noise?",
        cells=cells(),
        base="s3",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_000_000, shares=SHARES),
    )


def against_none() -> Study:
    """The same runs, every cell compared with fine-tuning alone."""
    return replace(
        study(), question="Does pretraining add anything to the next item alone?", base="none"
    )
