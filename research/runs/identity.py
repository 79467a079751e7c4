"""What recognizes a run: its hash and those of its stages, and the protocol of its figures."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from research.config import differing, hash_of, to_json
from research.data.corpus import Corpus
from research.data.preparation.filters import PrepareConfig
from research.evaluation.candidates import md5_of
from research.runs.config import EvaluationConfig, RunConfig
from research.storage.records import DatasetRecord, RunRecord, StartRecord

# Of a preparation's options: what decides which events there are.
FILTERS = ("min_rating", "user_core", "item_core", "duplicates")


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
