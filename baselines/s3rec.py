"""S3-Rec (Zhou et al. 2020): pretraining on four objectives, then fine-tuning on the next item.

`published` follows the authors' code (RUCAIBox/CIKM2020-S3Rec) in every choice that has a field,
errors included; `published_softmax` puts a full-softmax fine-tuning on that pretraining (Li et al.
2023); `corrected` has the same objectives without the errors. A departure: losses are sums divided
by the rows of a batch, a factor that Adam does not see while batches are equally large.
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
# Each item with probability 0.2, and the last one always, as it is what ranking will ask for.
MASKS = MaskItems(rate=0.2, mask_last_share=1.0)


def published_objectives() -> dict[str, ObjectiveConfig]:
    """The four heads as the authors' code has them."""
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


def corrected_objectives() -> dict[str, ObjectiveConfig]:
    """The four heads with their published weights and masks, without what is wrong with them."""
    return {
        "aap": AAPConfig(weight=0.2, corruption=MASKS),
        "mip": MIPConfig(weight=1.0, corruption=MASKS),
        "map": MAPConfig(weight=1.0, corruption=MASKS),
        "sp": SPConfig(weight=0.5),
    }


def pretraining(objectives: dict[str, ObjectiveConfig], epochs: int) -> StageConfig:
    """Every prefix of the newest 50 training items, 100 rows a batch, weights of sums."""
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
    """Causal, next item, whole histories, 256 rows, selected by NDCG@20."""
    return StageConfig(
        name="finetune",
        objectives={"next": objective},
        batches=BatchConfig(sequences_per_batch=256),
        epochs=200,
        optimizer=OptimizerConfig(lr=1e-3),
        validation=ValidationConfig(metric="ndcg@20", patience=10),
    )


def published() -> RunConfig:
    """As published: BCE with one negative, PAD and MASK among the candidates, seen items at 0."""
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
    """The published pretraining under a full-softmax fine-tuning (Li et al. 2023)."""
    stages = (pretraining(published_objectives(), 150), fine_tuning(NextItemConfig()))
    return RunConfig(encoder=ENCODER, stages=stages)


def corrected() -> RunConfig:
    """The corrected pretraining under a full-softmax fine-tuning."""
    stages = (pretraining(corrected_objectives(), 150), fine_tuning(NextItemConfig()))
    return RunConfig(encoder=ENCODER, stages=stages)


def joint() -> RunConfig:
    """All six objectives on one encoder in one stage, ranked by the next item.

    The next item is asked of whole histories, the others of every prefix. Each loss is a mean here,
    so the weights say something else than in the published sums.
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
