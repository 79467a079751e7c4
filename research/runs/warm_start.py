"""Warm start: a run whose weights begin from a stage of an earlier run, not from scratch.

`execute.py` finds that stage by `start_from`, checks that it fits, and fills the run's stages from
its weights before training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from research.checkpoint import files as checkpoint
from research.checkpoint.transfer import (
    ATTRIBUTE_ROWS,
    ITEM_ROWS,
    RowMatch,
    TransferReport,
    transfer_weights,
)
from research.config import from_json, packages_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.corpus import check_fingerprint, open_corpus
from research.storage.folders import kind_of, what_is_at
from research.storage.records import RunRecord, RunSummary, StartRecord
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A stage of an earlier run, from whose weights this run starts."""

    argument: str
    """The field or argument that named it, for error messages."""
    folder: Path
    """The earlier run's folder."""
    stage: StageConfig
    """The stage's config."""
    config: RunConfig
    """The earlier run's config."""
    weights: Path
    """The folder of the checkpoint with which the stage ended."""
    fingerprint: str
    """Fingerprint of the corpus that the item ids of the weights belong to."""
    content: str
    """SHA-256 of the weights; nothing else of a warm start goes into the run hash."""
    vector_encoder: str | None = None
    """Name of the encoder that made the vectors of the items; None: its corpus names none."""
    events: str | None = None
    """`Corpus.events_digest` of its corpus; None: its version did not record it."""

    @property
    def record(self) -> StartRecord:
        """The warm start as config.json holds it."""
        return StartRecord(folder=str(self.folder), stage=self.stage.name, sha256=self.content)

    @property
    def source(self) -> str:
        """Folder and stage, for messages."""
        return f"{self.folder} (stage {self.stage.name})"

    def fill(self, model: MultiObjectiveModel, corpus: Corpus, data_root: str) -> TransferReport:
        """Fill the model of a stage from these weights; returns which parameters were filled.

        If `corpus` is not the one that the weights were trained on, rows of items and of attributes
        are matched by raw name; weights without such rows, as of vectors alone, need no names.
        `InputError` where a shape does not fit.
        """
        weights: dict[str, Tensor] = checkpoint.read_weights(self.weights)
        has_rows = any(name.endswith((*ITEM_ROWS, *ATTRIBUTE_ROWS)) for name in weights)
        if self.fingerprint == corpus.fingerprint or not has_rows:
            return transfer_weights(weights, model, source=self.source)
        old_corpus = self.corpus(data_root)
        return transfer_weights(
            weights,
            model,
            source=self.source,
            items=RowMatch.of(list(old_corpus.item_names), list(corpus.item_names)),
            attributes=RowMatch.of(list(old_corpus.attribute_names), list(corpus.attribute_names)),
        )

    def check(self, config: RunConfig, corpus: Corpus, data_root: str) -> None:
        """Raise `InputError` when a run cannot start from this stage.

        `config` and `corpus` are the run's. It cannot when its encoder would compute something else
        from the same weights, when another encoder made the vectors of its items, or when it splits
        the same events differently, also where its corpus has vectors beside them: the weights
        would have been trained on held-out items.
        """
        self._check_encoder(config)
        encoders = (self.vector_encoder, corpus.vector_encoder)
        if config.items.vectors != "none" and None not in encoders and encoders[0] != encoders[1]:
            raise InputError(
                f"{self.argument} {self.source} has learned from vectors of {encoders[0]!r}, but "
                f"those of corpus {corpus.name} are of {encoders[1]!r}, whose numbers mean "
                "something else; prepare it with vectors of the same encoder"
            )
        if self.config.split != config.split and self._has_events_of(corpus, data_root):
            raise InputError(
                f"{self.argument} {self.source} was trained on {self.config.split}, but this run's "
                f"split is {config.split}: the weights were trained on items that it holds out; "
                "use the same split"
            )

    def _has_events_of(self, corpus: Corpus, data_root: str) -> bool:
        """Whether the earlier run's corpus has the same users, and items of theirs, in that order.

        `InputError` where the run did not record that and its corpus is not there.
        """
        if self.fingerprint == corpus.fingerprint:
            return True
        events = self.events or self.corpus(data_root).events_digest
        return events == corpus.events_digest

    def _check_encoder(self, config: RunConfig) -> None:
        """Raise `InputError` when the encoders compute different things from the same weights.

        Fields that matter in training only, such as dropout, may differ.
        """
        theirs, ours = _decisive(self.config), _decisive(config)
        differing = [
            f"{name} is {theirs[name]!r} in that run and {value!r} in this one"
            for name, value in ours.items()
            if name in theirs and theirs[name] != value
        ]
        if differing:
            raise InputError(
                f"{self.argument} {self.source} does not fit this run: {'; '.join(differing)}; "
                "use the same encoder, or start from another run"
            )

    def corpus(self, data_root: str) -> Corpus:
        """The corpus of the earlier run; `InputError` when it is not there or has changed."""
        name = self.config.corpus
        try:
            corpus = open_corpus(name, data_root)
        except InputError as error:
            raise InputError(
                f"{self.argument} {self.source} was trained on corpus {name!r}, whose item names "
                f"are needed, but: {error}"
            ) from error
        source = f"{self.argument} {self.source}"
        remedy = "prepare the corpus that it was trained on"
        check_fingerprint(corpus, self.fingerprint, source, remedy)
        return corpus


def _decisive(config: RunConfig) -> dict[str, object]:
    """The fields, by dotted name, that decide which states an encoder computes from its weights."""
    encoder, items = config.encoder.decisive, config.items.decisive
    return {
        "encoder": type(config.encoder).__name__,
        **{f"encoder.{name}": value for name, value in encoder.items()},
        **{f"items.{name}": value for name, value in items.items()},
    }


def find_warm_start(
    path: str, argument: str = "start_from", allow: Sequence[str] = ()
) -> WarmStart:
    """The stage that `path` names: RUN/stages/NAME, or RUN, which means its last stage.

    `argument` is the field or argument that gave the path, for error messages; `allow` names
    packages, beside ours, whose config classes the run may hold. `InputError` when the folder holds
    no run, or the run no such stage, or when the stage has not ended.
    """
    folder = Path(os.path.expanduser(path))
    name = None
    if folder.parent.name == "stages" and (folder.parent.parent / "config.json").is_file():
        folder, name = folder.parent.parent, folder.name
    reader = RunFolder(folder, writes=False)
    record = reader.read(RunRecord)
    if record is None or kind_of(folder) == "hub":
        raise InputError(
            f"{argument} {path} is neither an earlier run's folder nor one of its stages, "
            f"RUN/stages/NAME: {what_is_at(folder)}"
        )
    config = from_json(record.config, RunConfig, allow=allow)
    stages = {stage.name: stage for stage in config.stages}
    if name is None and stages:
        name = list(stages)[-1]
    if name not in stages:
        stage_list = f"its stages: {', '.join(stages)}" if stages else "it has no stages"
        raise InputError(f"{argument} {path}: there is no such stage; {stage_list}")
    weights = final_checkpoint(reader, name, record.fingerprint, f"{argument} {path}")
    content = checkpoint.read_state(weights, record.fingerprint)["sha256"]
    assert isinstance(content, dict), "read_state has checked it"
    encoder = record.dataset.options.get("vector_encoder")
    return WarmStart(
        argument=argument,
        folder=folder,
        stage=stages[name],
        config=config,
        weights=weights,
        fingerprint=record.fingerprint,
        content=str(content.get("model.safetensors")),
        vector_encoder=None if encoder is None else str(encoder),
        events=record.dataset.events,
    )


def final_checkpoint(reader: RunFolder, stage: str, fingerprint: str, source: str) -> Path:
    """The folder of the weights with which a run's stage ended: its best, if it selects.

    `fingerprint` is the corpus's, `source` begins error messages. `InputError` when the stage has
    not ended, or the weights are missing or damaged.
    """
    folder = reader.stage(stage)
    if not folder.is_dir() and reader.read(RunSummary) is not None:
        raise InputError(
            f"{source}: it has finished but holds no weights of stage {stage}; a run imported from "
            "the Hub holds those of its last stage alone: name the run that was exported, or the "
            f"last stage; if they were removed, remove its {RunSummary.FILE} too, and its command "
            "trains them again"
        )
    path, state = checkpoint.newest_state(folder, fingerprint)
    if state.get("finished") is True:
        return checkpoint.result_folder_of(folder, path, state)
    if reader.read(RunSummary) is None:
        raise InputError(
            f"{source}: stage {stage} has not ended; run its own command to finish it first"
        )
    raise InputError(
        f"{source}: the final checkpoint of stage {stage} is damaged; remove "
        f"{reader.path / RunSummary.FILE}, and run the command of that run again"
    )


def resolve_warm_start(
    config: RunConfig, folder: RunFolder, allow: Sequence[str]
) -> tuple[WarmStart | None, StartRecord]:
    """What a run starts from, and its record in config.json.

    The first is None if the run starts from scratch, and also if it has finished in `folder` and
    the earlier run is gone: config.json then says enough. Otherwise `InputError` when the earlier
    run cannot be read.
    """
    if config.start_from is None:
        return None, StartRecord()
    try:
        start = find_warm_start(config.start_from, allow=(*allow, *packages_of(config)))
    except InputError:
        stored = folder.read(RunRecord)
        if stored is None or folder.read(RunSummary) is None:
            raise
        return None, stored.start
    return start, start.record
