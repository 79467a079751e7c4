"""`RunConfig`: everything that decides a run's result, and so its run hash and protocol.

`research/runs/run_hash.py` computes hash and protocol from it, `research/runs/parts.py` builds the
parts of the run, `research/runs/execute.py` does the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from research.config import check_types
from research.data.cold_items import ColdItems
from research.data.split_config import AnySplit
from research.data.splits import LeaveOneOut, TemporalCut
from research.data.user_range import TrainedUsers, UserRange
from research.errors import InputError
from research.evaluation.list_metrics import OF_SEEN
from research.evaluation.metrics import check_metric_names, of_lists, of_ranks, parse_metric
from research.evaluation.ranker import RankerConfig
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.model.backbone import BackboneConfig
from research.model.compute import ComputeConfig
from research.model.item_table import ItemTableConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.sp import SPConfig
from research.training.config import StageConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Which figures a run reports, and how items are ranked for them."""

    metrics: tuple[str, ...] = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr")
    """Metrics to report: hr@K, ndcg@K, recall@K, precision@K, map@K, map-r@K, mrr@K or mrr. `map`
    divides a user's sum of precisions by min(R, K), R being the number of held-out items, and
    `map-r` by R (trec_eval, RecTools). Of the recommended lists: coverage@K, gini@K, novelty@K,
    arp@K, lift@K, diversity@K, and, where seen items are kept, repeat@K and explore@K."""
    candidates: tuple[str, ...] = ("full",)
    """Candidate sets of the test: full, uniform-N, popularity-N (N sampled negatives), cold (of a
    split that holds out items: these alone)."""
    negatives_file: str | None = None
    """A file of lines `user item item ...`, in raw ids: the negatives of one more candidate set;
    None: no such set."""
    candidates_seed: int = 0
    """Seed of the sampled candidates; not the run's seed, so that runs of all seeds share them."""
    seen: SeenPolicy = "excluded"
    """Items of the history are excluded from the ranking, kept in it, or score 0 ("zero": S3-Rec as
    published)."""
    ties: TiePolicy = "expected"
    """Where candidates tie, a metric is its expectation over all their orders ("expected"), or its
    value at their mean rank ("mean")."""
    test: bool = True
    """Whether the test part is ranked at the end. Off for runs among which one chooses, such as a
    tuning's trials: their test part is never ranked."""

    def __post_init__(self) -> None:
        check_types(self)
        check_metric_names(self.metrics, "evaluation.metrics")
        for name in self.candidates:
            if not re.fullmatch(r"full|cold|(uniform|popularity)-[1-9][0-9]{0,8}", name):
                raise InputError(
                    f"evaluation.candidates has {name!r}; allowed: full, uniform-N, popularity-N, "
                    "cold"
                )
            if name == "cold" and self.seen == "zero":
                raise InputError(
                    "evaluation.candidates has cold, but with evaluation.seen=zero the items of "
                    "the history compete too; set it to excluded or kept"
                )
        for name in of_lists(self.metrics):
            is_of_seen = parse_metric(name)[0] in OF_SEEN
            if self.seen == "zero" or (self.seen == "excluded" and is_of_seen):
                raise InputError(
                    f"evaluation.metrics has {name}, which cannot be computed with evaluation.seen="
                    f"{self.seen}; set it to kept" + ("" if is_of_seen else " or excluded")
                )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result."""

    corpus: str = "ml-100k"
    """A prepared corpus: its folder, its name below the data root, or a data set that `prepare`
    knows."""
    split: AnySplit = LeaveOneOut()
    """Which interactions are held out for validation and test."""
    training_share: float = 1.0
    """Share of the users who are trained on, drawn by `seed`, above 0; all are asked after. Users
    of a smaller share are among those of a larger one. A ranker that counts counts them alone;
    sampled candidates, slices and metrics of lists go by the counts of all. The weights of
    `start_from` may have been trained on others."""
    encoder: BackboneConfig = TransformerConfig()
    """The encoder that all stages share."""
    items: ItemTableConfig = ItemTableConfig()
    """What the encoder knows of an item beside the item's own embedding."""
    stages: tuple[StageConfig, ...] = ()
    """The stages of training, in order, each from the weights of those before; none if `ranker` is
    set."""
    start_from: str | None = None
    """Warm start: an earlier run's folder (its last stage), or RUN/stages/NAME (that stage), whose
    weights this run begins with; items of another vocabulary are matched by raw id, or served by
    the projection of their vectors. None: from scratch."""
    ranker: RankerConfig | None = None
    """A ranker that only counts; None: the model ranks, after its last stage."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is reported."""
    compute: ComputeConfig = ComputeConfig()
    """How training is computed: precision, compilation, what is kept for the backward pass."""
    seed: int = 0
    """Seed of initial weights, order of rows, masks, negatives and dropout, and of the order of
    users that `training_share` and a stage's `users` go by."""

    @property
    def is_seeded(self) -> bool:
        """Whether the seed changes anything: a ranker that only counts all users draws nothing."""
        return bool(self.stages) or self.training_share < 1.0

    @property
    def trained_users(self) -> TrainedUsers:
        """The users whom the run is trained on, by its share and its stages."""
        ranges = tuple(stage.users for stage in self.stages) or (UserRange(),)
        return TrainedUsers(self.training_share, ranges, self.seed)

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.training_share <= 1.0:
            raise InputError(
                f"training_share is {self.training_share}; it must be above 0 and at most 1"
            )
        if bool(self.stages) == (self.ranker is not None):
            raise InputError("a run has either stages or a counting ranker, and not both")
        if self.start_from is not None and not self.stages:
            raise InputError("start_from is set, but the run has no stage to start")
        for stage in self.stages:
            if self.training_share == 1.0 and stage.users == UserRange():
                continue
            objectives = stage.objectives.values()
            cuts = [each.corruption for each in objectives if isinstance(each, SPConfig)]
            if any(cut.foreign == "everything" for cut in cuts):
                raise InputError(
                    f"stage {stage.name}: foreign segments are drawn from everything, and so from "
                    f"users whom it is not trained on (training_share {self.training_share:g}, "
                    f"users {stage.users.start:g} to {stage.users.stop:g}); set corruption.foreign "
                    "to training, or train on all users"
                )
        lists = of_lists(self.evaluation.metrics)
        if lists and isinstance(self.split, TemporalCut) and self.split.target == "successive":
            raise InputError(
                f"evaluation.metrics has {lists[0]}, a metric of one recommended list a user, but "
                "split.target=successive asks after several histories of a user; choose another "
                "target, or leave the metric out"
            )
        if "cold" in self.evaluation.candidates and not isinstance(self.split, ColdItems):
            raise InputError(
                f"evaluation.candidates has cold, but split is {type(self.split).__name__}, which "
                "holds out no items; set split=ColdItems, or leave cold out"
            )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"stages are named {', '.join(names)}; names must differ")
        for stage in self.stages:
            if stage.validation is None:
                continue
            name, where = stage.validation.metric, f"stage {stage.name}: validation.metric"
            check_metric_names([name], where)
            if not of_ranks([name]):
                raise InputError(
                    f"{where} is {name}, a metric of recommended lists; select by one of ranks, "
                    "such as ndcg@10"
                )
            if isinstance(self.split, LeaveOneOut) and self.split.validation_in_training:
                raise InputError(
                    f"stage {stage.name} selects on validation items that split."
                    "validation_in_training puts into the training rows; set its validation to None"
                )
