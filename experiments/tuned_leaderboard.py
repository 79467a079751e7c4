"""How do published models compare on one corpus once all are tuned alike?

Leave-one-out, all items ranked, items of the history excluded, width 64, length 50. Every recipe
has 8 trials on validation, each a third as long as a run: its learning rate, its dropout and at
most one value of its own. The first trial of what is trained has the recipe's own values, the next
four are drawn at random and the last three by TPE; none is ended early. The best by NDCG@10 on the
validation part is run with seeds 0 to 4, which alone rank the test part. Rankers that count have
trials too and are run once, as they draw nothing. The seed of the draws is 5 on LastFM, whose four
learning rates at random lie within a factor of 2.4 of one another, and elsewhere 10, chosen before
any trial because its four are spread (.0004, .0037, .0071, .0005).

Departures from the sources, beside those that the recipes tell: weights are kept by NDCG@10; stages
end after at most 60 epochs on Beauty (BCE with one negative 150, gSASRec 100), which all but
BERT4Rec may leave earlier by their patience; S3-Rec is pretrained for 100 epochs on the rows that
it is fine-tuned on, a seventh of the tokens of every prefix on Beauty, and its encoder's dropout is
not drawn, so that all trials share one pretraining; segments of `s3rec-published` are drawn from
everything, test items included, as published. BSARec has every prefix, 7 times the tokens of the
others. A trial of a third favours what learns fast.

On the small corpora (`small` is LastFM, `ml_100k` MovieLens-100K) histories are cut into pieces of
50 items, 64 a step, and stages end after 2,400 steps, 60 to 90 epochs, or when 12 epochs have
brought nothing. BERT4Rec keeps the rows, batches and 4,000 steps of its recipe for small data.
BSARec keeps every prefix of the newest 50 items, eight times the tokens an epoch, 256 a step; on
LastFM it has a patience of 5 epochs, and its runs ended after 18 at most, where its authors' best
was the 49th, so that on MovieLens-100K it has 7,200 steps and a patience of 10. gSASRec ranks by
popularity for its first thousands of steps, so it has 7,200 and no patience (its authors' code: a
million at most, a patience of 20,000); its trials, of 2,400, choose by how soon it leaves that.
Beauty's recipes are tuned in two parts (`tuning`, `further`), alike but for their cells.

Corpora: python -m research prepare s3rec --raw LastFM.txt --out data/corpora/LastFM
         python -m research prepare s3rec --raw Beauty.txt --out data/corpora/Beauty
Command: python -m research tune experiments.tuned_leaderboard:small --threads 1 --no-probe
         python -m research tune experiments.tuned_leaderboard:ml_100k --threads 1 --no-probe
         python -m research tune experiments.tuned_leaderboard --threads 1 --no-probe
         python -m research tune experiments.tuned_leaderboard:further --threads 1 --no-probe
         python -m experiments.results.collect runs/tuned-small runs/tuned-ml-100k runs/tuned
         make results
Hardware: two CPU cores, no GPU. Times and results: experiments/results/, experiments/LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from baselines import (
    bert4rec,
    bsarec,
    cl4srec,
    ease,
    gru4rec,
    hstu,
    item_knn,
    popularity,
    s3rec,
    sasrec,
    transitions,
)
from experiments.counting import decayed_space, ease_space, item_knn_space
from experiments.recipes import FIVE_SEEDS, METRICS
from research.data.windows import LastItems, Sliding, WindowsConfig
from research.model.ligr import LiGR
from research.model.transformer_config import TransformerConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.changes import Changes
from research.studies.search import TPE
from research.studies.space import Trial, TunedCell, Value
from research.studies.tuning import Tuning

TRIALS, TRIAL_LENGTH = 8, 1 / 3
NARROW_SEED, SPREAD_SEED = 5, 10
SMALL_STEPS = 2_400
PIECES = Sliding(stride=50)


@dataclass(frozen=True, kw_only=True)
class Own:
    """A value of a recipe's own that is drawn, by name; its first value is the recipe's."""

    name: str
    """The name under which it is drawn."""
    field: str
    """The dotted name of the field that it sets."""
    low: float
    """The least value."""
    high: float
    """The greatest value."""
    log: bool = False
    """Whether its logarithm is uniform."""

    def draw(self, trial: Trial) -> Changes:
        """What the drawn value changes."""
        drawn = trial.log_uniform if self.log else trial.uniform
        return {self.field: drawn(self.name, self.low, self.high)}


NEXT, CLOZE = "stages.0.objectives.next", "stages.0.objectives.cloze"
# By cell: gSASRec's t, the share of items that BERT4Rec masks, CL4SRec's lambda, BSARec's alpha.
OWN = {
    "gsasrec": Own(name="t", field=f"{NEXT}.loss.calibration", low=0.0, high=1.0),
    "bert4rec": Own(name="rate", field=f"{CLOZE}.corruption.rate", low=0.1, high=0.7),
    "cl4srec": Own(
        name="weight", field="stages.0.objectives.contrast.weight", low=0.01, high=1.0, log=True
    ),
    "bsarec": Own(name="alpha", field="encoder.block.alpha", low=0.1, high=0.9),
}
# By cell, the fields of the encoder that share one dropout; of the others it is `dropout` alone.
DROPOUTS: dict[str, tuple[str, ...]] = {
    "gsasrec": ("dropout", "inner_dropout"),
    "ligr": ("dropout", "inner_dropout"),
    "gru4rec": ("embedding_dropout",),
    # One pretraining serves all trials.
    "s3rec": (),
    "s3rec-published": (),
}


def tuned(cell: str, base: RunConfig) -> TunedCell:
    """A recipe with its space: learning rate of the last stage, dropout, a value of its own.

    The first trial has the recipe's own values.
    """
    own, dropouts = OWN.get(cell), DROPOUTS.get(cell, ("dropout",))
    rate = f"stages.{len(base.stages) - 1}.optimizer.lr"

    def space(trial: Trial) -> Changes:
        changes: dict[str, object] = {rate: trial.log_uniform("lr", 3e-4, 1e-2)}
        if dropouts:
            share = trial.uniform("dropout", 0.0, 0.7)
            changes |= {f"encoder.{name}": share for name in dropouts}
        return changes if own is None else {**changes, **own.draw(trial)}

    first: dict[str, Value] = {"lr": base.stages[-1].optimizer.lr}
    if dropouts:
        first["dropout"] = getattr(base.encoder, dropouts[0])
    if own is not None:
        first[own.name] = value_at(base, own.field)
    return TunedCell(base=base, space=space, first=first)


def value_at(config: RunConfig, field: str) -> float:
    """The number at a dotted name."""
    value: object = config
    for part in field.split("."):
        if isinstance(value, Mapping):
            value = value[part]
        else:
            value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    assert isinstance(value, float), f"{field} is {value!r}"
    return value


def counting() -> dict[str, TunedCell | RunConfig]:
    """What counts, with spaces as in `experiments.counting`."""
    return {
        "popularity": popularity.popularity(),
        "transitions": transitions.transitions(),
        "item-knn": TunedCell(base=item_knn.item_knn(), space=item_knn_space),
        "item-knn-decayed": TunedCell(base=item_knn.item_knn(), space=decayed_space),
        "ease": TunedCell(base=ease.ease(), space=ease_space),
    }


def gsasrec() -> RunConfig:
    """gSASRec's loss and output table at the size of the others; its 256 negatives, t 0.75."""
    changes = {
        "encoder.length": 50,
        "encoder.width": 64,
        "encoder.feed_forward": 64,
        "stages.0.epochs": 100,
    }
    return replace_fields(sasrec.gsasrec(), changes)


def ligr() -> RunConfig:
    """SASRec under the full softmax with LiGR's blocks (eSASRec's), two of one head."""
    encoder = TransformerConfig(
        length=50, width=64, layers=2, heads=1, feed_forward=256, block=LiGR(),
        embedding_norm=False, dropout=0.2, inner_dropout=0.2,
    )  # fmt: skip
    return replace(sasrec.full_softmax(), encoder=encoder)


def pretrained(config: RunConfig, windows: WindowsConfig, epochs: int) -> RunConfig:
    """S3-Rec with its pretraining on these rows."""
    changes = {"stages.0.windows": windows, "stages.0.epochs": epochs}
    return replace_fields(config, changes)


# Of the recipes those that are tuned in the second part on Beauty.
FURTHER = ("hstu", "ligr", "cl4srec", "bsarec", "s3rec-published")


def trained() -> dict[str, RunConfig]:
    """The recipes for Amazon Beauty."""
    full_softmax = limited(sasrec.full_softmax(), 60)
    return {
        "sasrec": full_softmax,
        "sasrec-bce": limited(sasrec.bce(), 150),
        "gsasrec": gsasrec(),
        "gru4rec": limited(gru4rec.full_softmax(), 60),
        "bert4rec": bert4rec.beauty(),
        "s3rec": limited(pretrained(s3rec.corrected(), LastItems(), 100), 60),
        "hstu": limited(hstu.full_softmax(), 60),
        "ligr": limited(ligr(), 60),
        "cl4srec": limited(cl4srec.full_softmax(), 60),
        "bsarec": limited(bsarec.beauty(), 60),
        "s3rec-published": limited(pretrained(s3rec.published_softmax(), LastItems(), 100), 60),
    }


def limited(config: RunConfig, epochs: int) -> RunConfig:
    """A run whose last stage has so many epochs at most, and keeps what is best by NDCG@10."""
    stage = f"stages.{len(config.stages) - 1}"
    changes = {f"{stage}.epochs": epochs, f"{stage}.validation.metric": "ndcg@10"}
    return replace_fields(config, changes)


def in_steps(config: RunConfig, patience: int | None, steps: int = SMALL_STEPS) -> RunConfig:
    """A run whose last stage has so many steps at most, with this patience in epochs."""
    stage = f"stages.{len(config.stages) - 1}"
    changes = {
        f"{stage}.epochs": None,
        f"{stage}.steps": steps,
        f"{stage}.validation.metric": "ndcg@10",
        f"{stage}.validation.patience": patience,
    }
    return replace_fields(config, changes)


def sized(config: RunConfig, patience: int | None = 12, steps: int = SMALL_STEPS) -> RunConfig:
    """A recipe on rows for some thousand users: pieces of histories, 64 a step."""
    stage = f"stages.{len(config.stages) - 1}"
    rows = {f"{stage}.windows": PIECES, f"{stage}.batches.sequences_per_batch": 64}
    return in_steps(replace_fields(config, rows), patience, steps)


def trained_on_small() -> dict[str, RunConfig]:
    """The recipes for corpora of some thousand users."""
    cells = trained()
    special = {
        "bert4rec": bert4rec.cloze(),
        "gsasrec": sized(cells["gsasrec"], patience=None, steps=3 * SMALL_STEPS),
        "bsarec": in_steps(bsarec.lastfm(), patience=5),
        "s3rec": sized(pretrained(cells["s3rec"], PIECES, 100)),
        "s3rec-published": sized(pretrained(cells["s3rec-published"], PIECES, 100)),
    }
    return {name: special.get(name) or sized(config) for name, config in cells.items()}


def leaderboard(
    name: str,
    corpus: str,
    cells: Mapping[str, TunedCell | RunConfig],
    *,
    base: str = "sasrec",
    seed: int = SPREAD_SEED,
) -> Tuning:
    """A tuning of these cells, compared with one of them: SASRec under the full softmax."""
    return Tuning(
        name=name,
        question="How do published models compare once all are tuned alike?",
        cells=cells,
        base=base,
        corpora=(corpus,),
        trials=TRIALS,
        trial_length=TRIAL_LENGTH,
        sampler=TPE(startup_trials=5),
        seed=seed,
        fresh_seeds=FIVE_SEEDS,
        metrics=METRICS,
    )


def tuning() -> Tuning:
    """Amazon Beauty, what counts and the classic recipes."""
    cells = {name: tuned(name, base) for name, base in trained().items() if name not in FURTHER}
    return leaderboard("tuned", "data/corpora/Beauty", {**counting(), **cells})


def further() -> Tuning:
    """Amazon Beauty, the other recipes."""
    cells = {name: tuned(name, base) for name, base in trained().items() if name in FURTHER}
    return leaderboard("tuned-further", "data/corpora/Beauty", cells, base="bsarec")


def small_cells() -> dict[str, TunedCell | RunConfig]:
    """All recipes for corpora of some thousand users, with their spaces."""
    cells = {name: tuned(name, base) for name, base in trained_on_small().items()}
    return {**counting(), **cells}


def small() -> Tuning:
    """LastFM."""
    return leaderboard("tuned-small", "data/corpora/LastFM", small_cells(), seed=NARROW_SEED)


def ml_100k() -> Tuning:
    """MovieLens-100K; BSARec has as many steps as gSASRec."""
    longer = in_steps(bsarec.lastfm(), patience=10, steps=3 * SMALL_STEPS)
    cells = {**small_cells(), "bsarec": tuned("bsarec", longer)}
    return leaderboard("tuned-ml-100k", "ml-100k", cells)
