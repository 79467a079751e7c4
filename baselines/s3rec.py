"""S3-Rec (Zhou et al. 2020): pretraining on four objectives, then fine-tuning on the next item.

`published` follows the authors' code (RUCAIBox/CIKM2020-S3Rec), errors included, in every choice
that a config field can express; `published_softmax` follows that pretraining by a full-softmax
fine-tuning (Li et al. 2023); `corrected` has the same objectives without the errors. A departure:
losses are sums divided by the number of rows in the batch, a factor that Adam's update does not
depend on while batches are equally large.
"""

from __future__ import annotations

from dataclasses import replace

from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.data.windows import EveryPrefix
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import BayesianPersonalizedRanking, BinaryCrossEntropy
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import CutSegment, SPConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig

ENCODER = TransformerConfig(length=50, width=64, layers=2, heads=2, feed_forward=256)
# Hide each item with probability 0.2, and always the last one, as ranking asks for the last place.
MASKS = MaskItems(rate=0.2, mask_last_share=1.0)


def published_objectives() -> dict[str, ObjectiveConfig]:
    """The four pretraining objectives as in the authors' code, errors included."""
    return {
        "aap": AAPConfig(weight=0.2, corruption=MASKS, count_bare_items=True, zero_attribute=True),
        "mip": MIPConfig(
            weight=1.0,
            corruption=MASKS,
            loss=BayesianPersonalizedRanking(
                inner_sigmoid=True,
                negatives=NegativesConfig(exclude="window", include_mask=True),
            ),
        ),
        "map": MAPConfig(weight=1.0, corruption=MASKS, count_bare_items=True, zero_attribute=True),
        "sp": SPConfig(
            weight=0.5,
            corruption=CutSegment(foreign="everything", short_rows=True),
            inner_sigmoid=True,
        ),
    }


def corrected_objectives(factor: float = 1.0) -> dict[str, ObjectiveConfig]:
    """The four pretraining objectives with published masks, without the errors.

    Their weights are the published ones times `factor`.
    """
    return {
        "aap": AAPConfig(weight=0.2 * factor, corruption=MASKS),
        "mip": MIPConfig(weight=1.0 * factor, corruption=MASKS),
        "map": MAPConfig(weight=1.0 * factor, corruption=MASKS),
        "sp": SPConfig(weight=0.5 * factor),
    }


def pretraining(objectives: dict[str, ObjectiveConfig], epochs: int) -> StageConfig:
    """The pretraining stage: every prefix of the newest 50 training items, 100 rows a batch.

    Each loss is a sum divided by the number of rows, so the objectives' weights weigh sums.
    """
    return StageConfig(
        name="pretrain",
        objectives=objectives,
        windows=EveryPrefix(),
        batches=BatchConfig(sequences_per_batch=100),
        epochs=epochs,
        optimizer=OptimizerConfig(lr=1e-3),
        normalize="sequences",
        validation=None,
    )


def fine_tuning(objective: NextItemConfig) -> StageConfig:
    """The fine-tuning stage: causal, next item, one row a user, 256 rows, selected by NDCG@20."""
    return StageConfig(
        name="finetune",
        objectives={"next": objective},
        batches=BatchConfig(sequences_per_batch=256),
        epochs=200,
        optimizer=OptimizerConfig(lr=1e-3),
        validation=ValidationConfig(metric="ndcg@20", patience=10),
    )


def published() -> RunConfig:
    """As published: BCE with one negative, PAD and MASK as candidates, seen items score 0."""
    objective = NextItemConfig(
        loss=BinaryCrossEntropy(negatives=NegativesConfig(exclude="history", include_mask=True)),
        head=HeadConfig(special_classes=True),
    )
    return RunConfig(
        encoder=ENCODER,
        stages=(pretraining(published_objectives(), 150), fine_tuning(objective)),
        evaluation=EvaluationConfig(seen="zero"),
    )


def published_softmax() -> RunConfig:
    """The published pretraining, then a fine-tuning by full softmax (Li et al. 2023)."""
    stages = (pretraining(published_objectives(), 150), fine_tuning(NextItemConfig()))
    return RunConfig(encoder=ENCODER, stages=stages)


def corrected() -> RunConfig:
    """The corrected pretraining, then a fine-tuning by full softmax."""
    stages = (pretraining(corrected_objectives(), 150), fine_tuning(NextItemConfig()))
    return RunConfig(encoder=ENCODER, stages=stages)


def joint() -> RunConfig:
    """All six objectives on one encoder in one stage, ranked by the next item.

    The next-item rows are each user's newest items; the other objectives have every prefix as rows.
    Each loss is a mean here, so the weights do not mean the same as in the published sums.
    """
    stage = replace(
        fine_tuning(NextItemConfig()),
        name="joint",
        objectives={
            "next": NextItemConfig(),
            "cloze": ClozeConfig(corruption=MASKS),
            **corrected_objectives(),
        },
        own_windows={key: EveryPrefix() for key in ("cloze", "aap", "mip", "map", "sp")},
        rank_by="next",
    )
    return RunConfig(encoder=ENCODER, stages=(stage,))
