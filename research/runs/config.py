"""`RunConfig`: everything that decides a run's result, its hash, and the protocol of its figures.

`research/runs/parts.py` builds a run's parts from it, `research/runs/execute.py` does the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from research.config import check_types
from research.data.splits import LeaveOneOut, SplitConfig
from research.errors import InputError
from research.evaluation.metrics import parse_all
from research.evaluation.ranker import RankerConfig
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.model.backbone import BackboneConfig
from research.model.compute import ComputeConfig
from research.model.item_table import ItemTableConfig
from research.model.transformer_config import TransformerConfig
from research.training.config import StageConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Which figures a run reports."""

    metrics: tuple[str, ...] = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr")
    """hr@K, ndcg@K, recall@K, precision@K, map@K, mrr@K or mrr."""
    candidates: tuple[str, ...] = ("full",)
    """Candidate sets of the test: full, uniform-N, popularity-N."""
    negatives_file: str | None = None
    """A `user item item ...` file of raw ids to rank against in addition."""
    candidates_seed: int = 0
    """Seed of sampled candidates, apart from the run's so that seeds share them."""
    seen: SeenPolicy = "excluded"
    """Items of the history are out of the ranking, compete, or score 0 (S3-Rec as published)."""
    ties: TiePolicy = "expected"
    """Among candidates of equal scores, figures are expectations over all orders of them, or those
    of their mean rank."""

    def __post_init__(self) -> None:
        check_types(self)
        parse_all(self.metrics, "evaluation.metrics")
        for name in self.candidates:
            if not re.fullmatch(r"full|(uniform|popularity)-[1-9][0-9]{0,8}", name):
                raise InputError(
                    f"evaluation.candidates has {name!r}; allowed: full, uniform-N, popularity-N"
                )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result."""

    corpus: str = "ml-100k"
    """A corpus folder, or the name of a data set that `prepare` knows."""
    split: SplitConfig = LeaveOneOut()
    """What is held out."""
    encoder: BackboneConfig = TransformerConfig()
    """The shared encoder."""
    items: ItemTableConfig = ItemTableConfig()
    """What an item is to the encoder, beside its own embedding."""
    stages: tuple[StageConfig, ...] = ()
    """Stages of training, the encoder carried from one to the next; none for a counting ranker."""
    start_from: str | None = None
    """An earlier run's folder, or RUN/stages/NAME for another stage than its last: the first stage
    starts from its weights; items of another vocabulary are matched by raw id. None: from scratch.
    """
    ranker: RankerConfig | None = None
    """A ranker that only counts; None: the last stage ranks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is reported."""
    compute: ComputeConfig = ComputeConfig()
    """How training is computed: precision, compilation, what is kept for the backward pass."""
    seed: int = 0
    """Seed of initial weights, order, masks, negatives and dropout."""

    def __post_init__(self) -> None:
        check_types(self)
        if bool(self.stages) == (self.ranker is not None):
            raise InputError("a run has either stages or a counting ranker, and not both")
        if self.start_from is not None and not self.stages:
            raise InputError("start_from is set, but the run has no stage to start")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"stages are named {', '.join(names)}; names must differ")
        for stage in self.stages:
            if stage.validation is None:
                continue
            parse_all([stage.validation.metric], f"stage {stage.name}: validation.metric")
            if isinstance(self.split, LeaveOneOut) and self.split.validation_in_training:
                raise InputError(
                    f"stage {stage.name} selects on validation items that split."
                    "validation_in_training puts into the training rows; set its validation to None"
                )
