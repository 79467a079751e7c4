"""The run hash, the hashes of a run's stages, and the protocol of its figures.

`execute.py` recognizes a run by the first, `stage_reuse.py` a stage by the second; the third says
which results may be compared.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from research.config import hash_of, non_default_fields, to_json
from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.evaluation.candidates import md5_of
from research.runs.config import EvaluationConfig, RunConfig
from research.storage.records import DatasetRecord, RunRecord, StartRecord

# The options of `prepare` that decide which events a corpus has, and in which order.
FILTERS = ("min_rating", "user_core", "item_core", "duplicates", "tie_seed")


def run_hash(config: RunConfig, corpus: Corpus, start: str | None) -> str:
    """The run hash; a file that the config names is hashed by its content, not by its path.

    `start` is the checksum of the weights that `start_from` names; None: from scratch. `InputError`
    when the negatives file cannot be read.
    """
    evaluation, contents = config.evaluation, [corpus.fingerprint]
    if start is not None:
        contents.append(start)
        config = replace(config, start_from="")
    if evaluation.negatives_file is not None:
        contents.append(md5_of(Path(os.path.expanduser(evaluation.negatives_file))))
        evaluation = replace(evaluation, negatives_file="")
    hashed = replace(without_sharding(config), corpus="", evaluation=evaluation)
    return hash_of(hashed, *contents)


def without_sharding(config: RunConfig) -> RunConfig:
    """The config without `compute.shard_weights`, which changes neither weights nor checkpoints."""
    return replace(config, compute=replace(config.compute, shard_weights=False))


def stage_hashes(config: RunConfig, corpus: Corpus, start: str | None) -> dict[str, str]:
    """By stage, the hash of all that decides its weights: stages with equal hashes are the same.

    `start` is as in `run_hash`. Which figures are reported does not decide weights; but from the
    first stage that selects by validation on, the policies for seen items and for ties do.
    """
    base = replace(without_sharding(config), corpus="", start_from=None if start is None else "")
    contents = [corpus.fingerprint, *([] if start is None else [start])]
    plain = EvaluationConfig()
    hashes = {}
    for index, stage in enumerate(config.stages):
        if stage.validation is not None:
            plain = EvaluationConfig(seen=config.evaluation.seen, ties=config.evaluation.ties)
        chain = replace(base, stages=config.stages[: index + 1], evaluation=plain)
        hashes[stage.name] = hash_of(chain, *contents)
    return hashes


def record_of(config: RunConfig, corpus: Corpus, start: StartRecord = StartRecord()) -> RunRecord:
    """The record of a run as config.json holds it, without provenance and extensions."""
    return RunRecord(
        hash=run_hash(config, corpus, start.sha256),
        fingerprint=corpus.fingerprint,
        dataset=dataset_record(corpus),
        start=start,
        stages=stage_hashes(config, corpus, start.sha256),
        config=to_json(config),
    )


def dataset_record(corpus: Corpus) -> DatasetRecord:
    """What the record of a run says of its corpus."""
    return DatasetRecord(
        name=corpus.name,
        users=corpus.num_users,
        items=corpus.num_items,
        interactions=corpus.num_interactions,
        attributes=corpus.num_attributes,
        filters=filters_of(corpus),
        options=dict(corpus.manifest.options),
        events=corpus.events_digest,
    )


def filters_of(corpus: Corpus) -> dict[str, object]:
    """The options of `prepare` that decide which events a corpus has, and in which order."""
    options = corpus.manifest.options
    return {name: value for name, value in options.items() if name in FILTERS}


def protocol_of(config: RunConfig, corpus: Corpus, split: str) -> dict[str, object]:
    """What two results must have in common to be compared, beside candidates, seen and ties.

    `split` is the part, "validation" or "test". Every ranker is given whole histories; how much of
    a history an encoder reads is up to the config. The split and the filters are in the short form
    that is hashed, without defaults.
    """
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "filters": non_default_fields(PrepareConfig, filters_of(corpus)),
        "history": "whole",
        "split": to_json(config.split, short=True),
        "part": split,
        "candidates_seed": config.evaluation.candidates_seed,
    }
