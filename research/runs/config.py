"""`RunConfig`: everything that decides a run's result, its hash, and the protocol of its figures.

`research/runs/parts.py` builds a run's parts from it, `research/runs/execute.py` does the run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from research.config import check_types, differing, hash_of, to_json
from research.data.corpus import Corpus
from research.data.preparation.download import ARCHIVES
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.splits import LeaveOneOut, SplitConfig
from research.errors import InputError
from research.evaluation.candidates import md5_of
from research.evaluation.metrics import parse_all
from research.evaluation.ranker import RankerConfig
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.model.backbone import BackboneConfig
from research.model.compute import ComputeConfig
from research.model.item_table import ItemTableConfig
from research.model.transformer_config import TransformerConfig
from research.storage.records import DatasetRecord, RunRecord, StartRecord
from research.training.config import StageConfig

# Of a preparation's options: what decides which events there are.
FILTERS = ("min_rating", "user_core", "item_core", "duplicates")


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


def open_corpus(name: str, data_root: str) -> Corpus:
    """A corpus folder, one under `data_root/corpora`, or a known data set.

    A known data set is prepared at first use, with nothing filtered.
    """
    name = os.path.expanduser(name)
    for folder in (Path(name), Path(data_root) / "corpora" / name):
        if (folder / "manifest.json").is_file():
            return Corpus.open(folder)
    if name in ARCHIVES:
        return prepare(PrepareConfig(source=name), data_root=data_root)
    if "/" in name or Path(name).exists():
        raise InputError(f"corpus {name} is not a prepared corpus folder; run `prepare` first")
    return prepare(PrepareConfig(source=name), data_root=data_root)


def identity(config: RunConfig, corpus: Corpus, start: str | None) -> str:
    """The hash that recognises a run; files take part by their content, not by their paths.

    `start` is the checksum of the weights that `start_from` names.
    """
    evaluation, contents = config.evaluation, [corpus.fingerprint]
    if start is not None:
        contents.append(start)
        config = replace(config, start_from="")
    if evaluation.negatives_file is not None:
        contents.append(md5_of(Path(os.path.expanduser(evaluation.negatives_file))))
        evaluation = replace(evaluation, negatives_file="")
    plain = replace(unsharded(config), corpus="", evaluation=evaluation)
    return hash_of(plain, *contents)


def unsharded(config: RunConfig) -> RunConfig:
    """The run without `compute.shard_weights`, which changes nothing that is learned or kept."""
    return replace(config, compute=replace(config.compute, shard_weights=False))


def stage_marks(config: RunConfig, corpus: Corpus, start: str | None) -> dict[str, str]:
    """By stage, the hash of all that decides its weights; stages with equal marks are the same.

    Which figures are reported decides nothing, but how seen items rank and what becomes of ties
    does where a stage selects.
    """
    begun = replace(unsharded(config), corpus="", start_from=None if start is None else "")
    contents = [corpus.fingerprint, *([] if start is None else [start])]
    plain = EvaluationConfig()
    marks = {}
    for place, stage in enumerate(config.stages):
        if stage.validation is not None:
            plain = EvaluationConfig(seen=config.evaluation.seen, ties=config.evaluation.ties)
        chain = replace(begun, stages=config.stages[: place + 1], evaluation=plain)
        marks[stage.name] = hash_of(chain, *contents)
    return marks


def record_of(config: RunConfig, corpus: Corpus, start: StartRecord = StartRecord()) -> RunRecord:
    """What config.json says of a run, but for who did it."""
    return RunRecord(
        hash=identity(config, corpus, start.sha256),
        fingerprint=corpus.fingerprint,
        dataset=DatasetRecord(
            name=corpus.name,
            users=corpus.num_users,
            items=corpus.num_items,
            interactions=corpus.num_interactions,
            attributes=corpus.num_attributes,
            filters=filters_of(corpus),
        ),
        start=start,
        stages=stage_marks(config, corpus, start.sha256),
        config=to_json(config),
    )


def filters_of(corpus: Corpus) -> dict[str, object]:
    """The options of `prepare` that decide which events a corpus has."""
    options = corpus.manifest.options
    return {name: value for name, value in options.items() if name in FILTERS}


def protocol_of(config: RunConfig, corpus: Corpus, split: str) -> dict[str, object]:
    """What two results must share to stand in one table, beside the candidate set.

    Rankers are given whole histories; how much of them an encoder reads is its cell's own choice.
    Split and filters stand in the short form that is hashed.
    """
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "filters": differing(PrepareConfig, filters_of(corpus)),
        "history": "whole",
        "split": to_json(config.split, short=True),
        "part": split,
        "candidates_seed": config.evaluation.candidates_seed,
    }
