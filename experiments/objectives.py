"""What does each pretraining objective add, and is it more than noise?

`study` is the quick form, on MovieLens-100K at width 32; `lastfm` and `beauty` are at the size of
the published models. Cells, where S3 is the pretraining on AAP, MIP, MAP and SP together, followed
by the next item under the full softmax:
  s3                   S3;
  none                 the next item from scratch, with all the tokens;
  no-aap ... no-sp     one of the four heads left out: `s3` minus it is what the head adds to the
                       other three;
  only-aap ... only-sp one head alone: whether one of them is enough;
  cloze, cloze+s3      BERT4Rec's objective instead of the four, or beside them;
  joint                the next item, cloze and the four heads in a single stage.

Equal budgets: every cell of a study sees as many tokens of clean windows, all stages together, and
none stops earlier; validation keeps the best weights of the last stage. `none` and `joint` spend
all in their one stage, so pretraining has to be worth the tokens that it takes from the
fine-tuning. Equal tokens are not equal time: a token under the four heads costs twice one under the
next item (SP encodes three sequences for each row), one in `joint` three times; `--budget
seconds=40` makes time equal instead. All stages read the same rows, which are not every prefix as
in S3-Rec. Weights are S3-Rec's (AAP 0.2, MIP 1, MAP 1, SP 0.5), of sums in the two-stage cells and
of means in `joint`, as in `baselines.s3rec`.

`study` compares with `s3`: 1 million tokens a run, a third of them pretraining; overlapping
windows. `against_none` compares the same runs with `none`, and is a second family of tests.
`lastfm` and `beauty` compare with `none`: 4 and 12 million tokens, 154 and 80 epochs, half of them
pretraining, on a user's newest 50 training items; S3-Rec's encoder, batches and rates, but that
LastFM's 1,090 users are 64 a step in both stages. There gradients of the objectives on the shared
encoder are compared every 200 steps in `s3` and `joint` (`gradient_cosine/` in metrics.jsonl).
`every_prefix` has beside `none` and `s3` a cell whose pretraining sees every prefix of LastFM's
histories for as many epochs, 77, and so 19 times the tokens of `s3`'s; one seed.

Command: python -m research study experiments.objectives
         python -m research study experiments.objectives:lastfm --threads 1 --no-probe
         python -m research study experiments.objectives:beauty --threads 1 --no-probe
         python -m research study experiments.objectives:every_prefix --threads 1 --no-probe
Hardware: one CPU thread, no GPU; about 17 s a run on ML-100K, `joint` 40 s, 13 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from baselines import s3rec
from baselines.s3rec import corrected_objectives
from experiments.recipes import (
    CLOZE,
    FIVE_SEEDS,
    METRICS,
    SEEDS,
    SHARES,
    next_item,
    pretrained_next_item,
    ranking_stage,
)
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix, LastItems
from research.objectives.base import ObjectiveConfig
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.budget import Budget
from research.studies.cells import Cells, leave_one_out, one_only
from research.studies.study import Study
from research.training.config import StageConfig, ValidationConfig

LASTFM_TOKENS, BEAUTY_TOKENS = 4_000_000, 12_000_000
# Half of the former, at 25,983 tokens an epoch of users' newest 50 training items.
LASTFM_PRETRAINING_EPOCHS = 77
Pretrained = Callable[[Mapping[str, ObjectiveConfig]], RunConfig]


def cells(none: RunConfig, pretrained: Pretrained, joint: StageConfig) -> Cells:
    """Cells with fine-tuning after each pretraining, and one with all six objectives at once.

    `pretrained` makes the run with a stage `pretrain` on some objectives before `none`'s.
    """
    four = corrected_objectives()
    base = pretrained(four)
    return {
        "s3": base,
        "none": none,
        **leave_one_out(base, "pretrain", name="s3"),
        **one_only(base, "pretrain", name="s3"),
        "cloze": pretrained({"cloze": CLOZE}),
        "cloze+s3": pretrained({"cloze": CLOZE, **four}),
        "joint": replace(none, stages=(joint,)),
    }


def all_six() -> dict[str, ObjectiveConfig]:
    """The objectives of `joint`."""
    return {"next": NextItemConfig(), "cloze": CLOZE, **corrected_objectives()}


def study() -> Study:
    """MovieLens-100K: every cell compared with the four heads together."""
    return Study(
        name="objectives",
        question="What does each pretraining head add, and is it more than noise?",
        cells=cells(next_item(), pretrained_next_item, ranking_stage("joint", all_six())),
        base="s3",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_000_000, shares=SHARES),
    )


def against_none() -> Study:
    """The same runs, every cell compared with fine-tuning alone."""
    return replace(
        study(), question="Does pretraining add anything to the next item alone?", base="none"
    )


def from_scratch(rows: int) -> RunConfig:
    """SASRec under the full softmax on S3-Rec's encoder, `rows` a step."""
    stage = replace(
        s3rec.fine_tuning(NextItemConfig()),
        batches=BatchConfig(sequences_per_batch=rows),
        validation=ValidationConfig(metric="ndcg@10", patience=None),
        rank_by="next",
    )
    return RunConfig(encoder=s3rec.ENCODER, stages=(stage,))


def pretrained_at(rows: int) -> Pretrained:
    """Makes `from_scratch` after a pretraining on the newest items, 100 rows a step at most."""

    def pretrained(objectives: Mapping[str, ObjectiveConfig]) -> RunConfig:
        config = from_scratch(rows)
        stage = replace(
            s3rec.pretraining(dict(objectives), 200),
            windows=LastItems(),
            batches=BatchConfig(sequences_per_batch=min(100, rows)),
        )
        return replace(config, stages=(stage, *config.stages))

    return pretrained


def as_published(name: str, corpus: str, rows: int, tokens: int) -> Study:
    """Every cell at the size of the published models, compared with no pretraining."""
    none = from_scratch(rows)
    joint = replace(none.stages[0], name="joint", objectives=all_six())
    all_cells = cells(none, pretrained_at(rows), joint)
    for cell in ("s3", "joint"):
        all_cells[cell] = replace_fields(all_cells[cell], {"stages.0.gradients_every": 200})
    return Study(
        name=name,
        question="What does each pretraining head add to the next item under the full softmax?",
        cells=all_cells,
        base="none",
        corpora=(corpus,),
        seeds=FIVE_SEEDS,
        metrics=METRICS,
        compared="ndcg@10",
        budget=Budget(of="tokens", amount=tokens),
    )


def lastfm() -> Study:
    """LastFM, five seeds."""
    return as_published("objectives-lastfm", "data/corpora/LastFM", 64, LASTFM_TOKENS)


def beauty() -> Study:
    """Amazon Beauty, three seeds."""
    study = as_published("objectives-beauty", "data/corpora/Beauty", 256, BEAUTY_TOKENS)
    return replace(study, seeds=SEEDS)


def every_prefix() -> Study:
    """LastFM: a pretraining on every prefix, for as many epochs as `lastfm` has on whole rows."""
    whole = lastfm()
    budget = Budget(of="tokens", amount=LASTFM_TOKENS)
    none, s3 = budget.apply_to(whole.cells["none"]), budget.apply_to(whole.cells["s3"])
    longer = {
        "stages.0.windows": EveryPrefix(),
        "stages.0.tokens": None,
        "stages.0.epochs": LASTFM_PRETRAINING_EPOCHS,
    }
    return replace(
        whole,
        name="objectives-every-prefix",
        question="Does a pretraining on every prefix add more?",
        cells={"none": none, "s3": s3, "s3-every-prefix": replace_fields(s3, longer)},
        seeds=FIVE_SEEDS[:1],
        budget=None,
    )
