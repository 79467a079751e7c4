"""Which of the published code's peculiarities matter, taken one at a time?

Base `corrected`: S3-Rec's four heads without the errors of their code, then the next item under a
full softmax. Losses are means, and the last item is hidden no more often than others (in that
`baselines.s3rec.corrected` keeps the published choice, which is no error). Every other cell adds
one choice of the authors' code (RUCAIBox/CIKM2020-S3Rec), and `all` those of the pretraining:
  mip-sigmoid, sp-sigmoid  scores pass a sigmoid before their difference does (docs/pitfalls.md,
                           "sigmoid inside the sigmoid");
  mip-mask                 the mask, which is no item, can be drawn as MIP's negative
                           (docs/pitfalls.md, "mask drawn as a negative");
  mip-window               MIP's negatives avoid only the row's own items, not all training items
                           (docs/pitfalls.md, "leak by exclusion");
  sp-everything            foreign segments come from all histories joined, held-out items included
                           (docs/pitfalls.md, "segments from everybody's items");
  sp-short-rows            rows of one item take part in SP, where both segments are that item
                           (docs/pitfalls.md, "rows of one item");
  zero-attribute           a class that no item has is scored in AAP and MAP;
  bare-items               items without attributes count in AAP and MAP (in ML-100K one film has
                           none, so there this cell nearly repeats the base);
  last-masked              AAP, MIP and MAP always hide the last item (docs/pitfalls.md, "rows
                           without a target");
  sums                     losses are sums over a batch's rows, and weights those of sums
                           (docs/pitfalls.md, "weights of sums");
  special-classes          PAD and MASK compete in the fine-tuning's softmax and in ranking
                           (docs/pitfalls.md, "padding competes in the softmax");
  seen-zero                seen items score 0, not minus infinity, in selection and test
                           (docs/pitfalls.md, "seen items score zero").
The last two change the protocol: their rows are in tables of their own, compared with nothing.

`bce` asks the same about the published fine-tuning, BCE with one negative. Its corrected form is
compared with bce-mask (the mask can be drawn as a negative), bce-history (negatives avoid held-out
items too: docs/pitfalls.md, "leak by exclusion"), bce-special-classes (in ranking alone; a table
of its own), and softmax.

Rows of the pretraining are every prefix, as published, since some choices concern short rows.
Equal budgets: 1 million tokens a run, a third for pretraining, as in `experiments.objectives`.

Command: python -m research study experiments.published_quirks
         python -m research study experiments.published_quirks:bce
         python -m research study experiments.published_quirks --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; about 20 s a run on ML-100K, 14 and 5 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from baselines.s3rec import corrected_objectives, published_objectives
from experiments.recipes import SEEDS, SHARES, pretrained_next_item
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.budget import Budget
from research.studies.cells import named_cells
from research.studies.changes import Changes
from research.studies.study import Study

PRETRAIN, FINETUNE = "stages.0.objectives", "stages.1.objectives.next"
LAST_MASKED = [f"{PRETRAIN}.{key}.corruption.mask_last_share" for key in ("aap", "mip", "map")]
BUDGET = Budget(of="tokens", amount=1_000_000, shares=SHARES)
OF_PRETRAINING: dict[str, Changes] = {
    "mip-sigmoid": {f"{PRETRAIN}.mip.loss.inner_sigmoid": True},
    "sp-sigmoid": {f"{PRETRAIN}.sp.inner_sigmoid": True},
    "mip-mask": {f"{PRETRAIN}.mip.loss.negatives.include_mask": True},
    "mip-window": {f"{PRETRAIN}.mip.loss.negatives.exclude": "window"},
    "sp-everything": {f"{PRETRAIN}.sp.corruption.foreign": "everything"},
    "sp-short-rows": {f"{PRETRAIN}.sp.corruption.short_rows": True},
    "zero-attribute": dict.fromkeys(
        (f"{PRETRAIN}.aap.zero_attribute", f"{PRETRAIN}.map.zero_attribute"), True
    ),
    "bare-items": dict.fromkeys(
        (f"{PRETRAIN}.aap.count_bare_items", f"{PRETRAIN}.map.count_bare_items"), True
    ),
    "last-masked": dict.fromkeys(LAST_MASKED, 1.0),
    "sums": {"stages.0.normalize": "sequences"},
}
OF_PROTOCOL: dict[str, Changes] = {
    "special-classes": {f"{FINETUNE}.head.special_classes": True},
    "seen-zero": {"evaluation.seen": "zero"},
}


def corrected_run() -> RunConfig:
    """The base: corrected heads, mean losses, every prefix, the last item hidden as any other."""
    config = replace_fields(
        pretrained_next_item(corrected_objectives()), dict.fromkeys(LAST_MASKED, 0.0)
    )
    return replace_fields(
        config,
        {
            "stages.0.windows": EveryPrefix(),
            "stages.0.batches": BatchConfig(sequences_per_batch=128),
            "stages.0.normalize": "terms",
        },
    )


def study() -> Study:
    """Each published choice of pretraining and ranking, compared with the corrected recipe."""
    every: dict[str, Changes] = {
        "all": {PRETRAIN: published_objectives(), "stages.0.normalize": "sequences"}
    }
    return Study(
        name="published-quirks",
        question="Which of the published code's peculiarities matter, one at a time?",
        cells=named_cells(
            corrected_run(), {**OF_PRETRAINING, **every, **OF_PROTOCOL}, name="corrected"
        ),
        base="corrected",
        seeds=SEEDS,
        budget=BUDGET,
    )


def bce() -> Study:
    """Each published choice of the fine-tuning by BCE, compared with its corrected form."""
    base = replace_fields(corrected_run(), {f"{FINETUNE}.loss": BinaryCrossEntropy()})
    changes: dict[str, Changes] = {
        "bce-mask": {f"{FINETUNE}.loss.negatives.include_mask": True},
        "bce-history": {f"{FINETUNE}.loss.negatives.exclude": "history"},
        "bce-special-classes": {f"{FINETUNE}.head.special_classes": True},
        "softmax": {f"{FINETUNE}.loss": FullSoftmax()},
    }
    return Study(
        name="published-quirks-bce",
        question="Which peculiarities of the published fine-tuning matter, one at a time?",
        cells=named_cells(base, changes, name="bce"),
        base="bce",
        seeds=SEEDS,
        budget=BUDGET,
    )
