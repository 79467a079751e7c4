"""Where a first stage starts when it does not start from scratch: a stage of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from research.config import from_json
from research.data.corpus import Corpus
from research.errors import InputError
from research.run import RunConfig, open_corpus
from research.tracking import RunFolder
from research.training import checkpoint
from research.training.carry import Carried, RowMatch, carry
from research.training.pretrainer import Pretrainer
from research.training.stage import StageConfig


@dataclass(frozen=True, eq=False)
class Start:
    """An earlier run's stage: its weights, and what its items are called."""

    source: str
    """The folder, for people."""
    weights: Path
    """Its checkpoint."""
    fingerprint: str
    """Of the corpus that its item ids belong to."""
    corpus_name: str
    """How its run named that corpus."""
    content: str
    """Checksum of the weights: what of a start decides a run's result."""

    def into(self, pretrainer: Pretrainer, corpus: Corpus, data_root: str) -> Carried:
        """Fill a first stage; `InputError` where something does not fit."""
        given: dict[str, Tensor] = checkpoint.read_weights(self.weights)
        if self.fingerprint == corpus.fingerprint:
            return carry(given, pretrainer, source=self.source)
        theirs = self._corpus(data_root)
        return carry(
            given,
            pretrainer,
            source=self.source,
            items=RowMatch.of(list(theirs.item_names), list(corpus.item_names)),
            attributes=RowMatch.of(list(theirs.attribute_names), list(corpus.attribute_names)),
        )

    def _corpus(self, data_root: str) -> Corpus:
        try:
            corpus = open_corpus(self.corpus_name, data_root)
        except InputError as error:
            raise InputError(
                f"start_from {self.source} was trained on another corpus, {self.corpus_name!r}, "
                f"whose item names are needed to match items, but: {error}"
            ) from error
        if corpus.fingerprint != self.fingerprint:
            raise InputError(
                f"start_from {self.source} was trained on a corpus with fingerprint "
                f"{self.fingerprint}, but {corpus.folder} has {corpus.fingerprint}; prepare the "
                "corpus that it was trained on"
            )
        return corpus


def find_start(path: str) -> Start:
    """The stage that `path` names: RUN/stages/NAME, or RUN, which means its last stage.

    `InputError` for a folder that is no run or no trained stage, or a stage that has not ended.
    """
    folder = Path(path)
    name = None
    if folder.parent.name == "stages" and (folder.parent.parent / "config.json").is_file():
        folder, name = folder.parent.parent, folder.name
    reader = RunFolder(folder, writes=False)
    stored = reader.read("config.json")
    if stored is None:
        raise InputError(
            f"start_from {path} holds no config.json; give an earlier run's folder or one of its "
            "stages, RUN/stages/NAME"
        )
    stages, corpus_name = _stages_of(stored.get("config"), path)
    if name is None and stages:
        name = list(stages)[-1]
    if name not in stages:
        known = f"its stages: {', '.join(stages)}" if stages else "it has no stages"
        raise InputError(f"start_from {path}: there is no such stage; {known}")
    fingerprint = str(stored.get("fingerprint"))
    last = checkpoint.existing(reader.stage(name) / "last")
    if checkpoint.read_state(last, fingerprint).get("finished") is not True:
        raise InputError(
            f"start_from {path}: stage {name} has not ended; let its own command continue it first"
        )
    kept = last if stages[name].validation is None else reader.stage(name) / "best"
    found = checkpoint.existing(kept)
    state = checkpoint.read_state(found, fingerprint)
    content = state["sha256"]
    assert isinstance(content, dict), "read_state has checked it"
    source = f"{folder} (stage {name})"
    return Start(source, found, fingerprint, corpus_name, str(content.get("model.safetensors")))


def _stages_of(stored: object, path: str) -> tuple[dict[str, StageConfig], str]:
    config = from_json(stored, RunConfig)
    return {stage.name: stage for stage in config.stages}, config.corpus
