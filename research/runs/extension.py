"""Extending a run: the stage that it stands in goes on beyond the limit that it was given.

A stage that is told of a later limit in the folder where it ended trains on from its last state,
and what it ended with before is kept beside. The run's hash has its extensions in it: a run that
was extended is not taken for one that had the later limit from the beginning, from which a falling
learning rate, a last validation or patience may tell it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from research.checkpoint import files as checkpoint
from research.config import from_json, packages_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.differences import difference_of, other_run
from research.runs.identity import record_of
from research.storage.records import (
    ExtensionRecord,
    RunRecord,
    RunSummary,
)
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import taken_from
from research.training.checkpointer import state_of
from research.training.config import StageConfig
from research.training.state import StageState

# Fields of a stage, and of its validation, that say when it ends.
LIMITS = ("epochs", "steps", "tokens", "seconds")
PATIENCE = ("patience", "patience_steps", "min_epochs", "min_steps")
# The folder in a run's where the summaries of its earlier ends are kept.
EARLIER = "earlier"


def extended(record: RunRecord, extensions: Sequence[ExtensionRecord]) -> RunRecord:
    """What recognizes a run that was extended: `record`, as its config has it, with another hash,
    and another one for every stage whose weights are not what the config alone leads to."""
    marks = dict(record.stages)
    for each in extensions:
        begun = list(marks).index(each.stage)
        for name in list(marks)[begun:]:
            marks[name] = _digest(marks[name], each)
    # The hash of the run before has the extensions before in it.
    mark = _digest(record.hash, extensions[-1]) if extensions else record.hash
    return replace(record, hash=mark, stages=marks, extensions=tuple(extensions))


def _digest(mark: str, extension: ExtensionRecord) -> str:
    text = f"{mark} {extension.hash} {extension.stage} {extension.step}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def extension_of(
    stored: RunRecord, record: RunRecord, config: RunConfig, corpus: Corpus, folder: RunFolder
) -> ExtensionRecord | None:
    """How a run extends the one that its folder holds; None: it does not, it is another run.

    `stored` is what the folder says, `record` and `config` are the run's. `InputError` where one
    limit was raised, but the stage cannot go on.
    """
    try:
        theirs = from_json(stored.config, RunConfig, allow=packages_of(config))
        before = replace(config, stages=theirs.stages)
    except InputError:
        return None
    if extended(record_of(before, corpus, record.start), stored.extensions).hash != stored.hash:
        return None
    changes = {name: (a, b) for name, (a, b) in difference_of(before, config).items()}
    fields = {
        f"stages.{place}.{name}": (place, name)
        for place, each in enumerate(config.stages)
        for name in _limits_of(each)
    }
    places = {fields[name][0] for name in changes if name in fields}
    if len(places) != 1 or not changes.keys() <= fields.keys():
        return None
    place = places.pop()
    stage = config.stages[place]
    state = standing(folder, stage, corpus.fingerprint)
    if state is None:
        return None
    done = done_of(state)
    if not all(
        _is_later(old, new, done.get(fields[name][1])) for name, (old, new) in changes.items()
    ):
        return None
    _check(config, place, state, folder)
    return ExtensionRecord(
        hash=stored.hash,
        stage=stage.name,
        epoch=state.epoch,
        step=state.step,
        ended=state.finished,
        tested=folder.read(RunSummary) is not None,
        limits=changes,
    )


def _is_later(old: object, new: object, done: float | None) -> bool:
    """Whether a limit has been raised; a first one must lie beyond what is `done`."""
    if new is None:
        return True
    assert isinstance(new, (int, float))
    if old is None:
        return done is not None and new > done
    assert isinstance(old, (int, float))
    return new > old


def _check(config: RunConfig, place: int, state: StageState, folder: RunFolder) -> None:
    """`InputError` for a stage that cannot go on."""
    stage = config.stages[place]
    why = None
    begun = [each.name for each in config.stages[place + 1 :] if _has_begun(folder, each.name)]
    origin = taken_from(folder, stage.name)
    reached = [
        f"stages.{place}.{name} = {getattr(stage, name):,}"
        for name, done in done_of(state).items()
        if getattr(stage, name) is not None and done >= getattr(stage, name)
    ]
    if begun:
        why = f"stage {begun[0]} has begun with what it ended with; only the newest can go on"
    elif origin is not None:
        why = f"it was taken over from {origin}; let that run go on, or train this one elsewhere"
    elif reached and state.finished:
        why = f"it has come to {' and '.join(reached)}; raise that as well, or set it to None"
    if why is not None:
        raise InputError(f"{folder.path}: stage {stage.name} cannot go on: {why}")


def _limits_of(stage: StageConfig) -> dict[str, object]:
    """What says when a stage ends, by dotted field."""
    limits = {name: getattr(stage, name) for name in LIMITS}
    if stage.validation is not None:
        limits |= {f"validation.{name}": getattr(stage.validation, name) for name in PATIENCE}
    return limits


def done_of(state: StageState) -> dict[str, float]:
    """What a stage has done, by the name of the limit on it."""
    return {
        "epochs": state.epoch,
        "steps": state.step,
        "tokens": state.items,
        "seconds": state.seconds,
    }


def standing(folder: RunFolder, stage: StageConfig, fingerprint: str) -> StageState | None:
    """The state of a stage's newest whole checkpoint; None: it has none."""
    if not _has_begun(folder, stage.name):
        return None
    path, state = checkpoint.newest_state(folder.stage(stage.name), fingerprint)
    return state_of(state, str(path))


def _has_begun(folder: RunFolder, stage: str) -> bool:
    return bool(checkpoint.numbered(folder.stage(stage)))


def with_more_epochs(config: RunConfig, folder: RunFolder, count: int) -> dict[str, object]:
    """Overrides by which a run has `count` epochs more than the folder's, which has ended.

    A run that was being extended when it was interrupted keeps the limit that it was given then.
    `InputError` where there is nothing to extend.
    """
    if count < 1:
        raise InputError(f"--more-epochs is {count}; it must be at least 1")
    stored = folder.read(RunRecord)
    if stored is None:
        raise InputError(f"{folder.path} holds no run that could go on; leave out --more-epochs")
    theirs = from_json(stored.config, RunConfig, allow=packages_of(config)).stages
    if [each.name for each in theirs] != [each.name for each in config.stages] or not theirs:
        raise InputError(
            f"{folder.path} holds another run: its stages are "
            f"{', '.join(each.name for each in theirs) or 'none'}, this run's "
            f"{', '.join(each.name for each in config.stages) or 'none'}"
        )
    place = max(
        (place for place, each in enumerate(theirs) if _has_begun(folder, each.name)), default=0
    )
    state = standing(folder, theirs[place], stored.fingerprint)
    overrides = {
        f"stages.{number}.{name}": value
        for number, each in enumerate(theirs)
        for name, value in _limits_of(each).items()
    }
    if state is not None and state.finished and place == len(theirs) - 1:
        return {**overrides, f"stages.{place}.epochs": state.epoch + count}
    if stored.extensions and stored.extensions[-1].stage == theirs[place].name:
        return overrides
    raise InputError(
        f"{folder.path} holds a run that has not finished; let its own command continue it, "
        "without --more-epochs, or give a higher limit"
    )


def set_aside(folder: RunFolder, mark: str) -> None:
    """Move the summary and the rank tables of a run with another hash to where they stay."""
    summary = folder.read(RunSummary)
    if not folder.writes or summary is None or summary.hash == mark:
        return
    kept = folder.path / EARLIER / summary.hash
    kept.mkdir(parents=True, exist_ok=True)
    # The summary first: without it the run has not finished, and ranks anew what it needs.
    for name in (RunSummary.FILE, "ranks"):
        if (folder.path / name).exists():
            os.replace(folder.path / name, kept / name)


def note_of(extension: ExtensionRecord, config: RunConfig) -> str:
    """What a reader of the figures must know of an extension."""
    limits = ", ".join(
        f"{name} was {old} and became {new}" for name, (old, new) in extension.limits.items()
    )
    epochs = f"{extension.epoch} epochs ({extension.step:,} steps)"
    if not extension.ended:
        return f"stage {extension.stage} stood at {epochs} when {limits}"
    said = f"stage {extension.stage} had ended after {epochs} and went on: {limits}"
    shapes = {each.name: each.optimizer.schedule.shape for each in config.stages}
    if shapes[extension.stage] in ("linear", "cosine"):
        said += "; the learning rate had fallen by then as if it were the end"
    if extension.tested:
        said += "; the test had been ranked before"
    return said


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What of a run its folder holds."""

    summary: RunSummary | None
    """Its summary; None: it has not ended."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """The later limits that it was given, the one of this call among them."""


def _seen(folder: RunFolder, record: RunRecord, config: RunConfig, corpus: Corpus) -> Seen:
    """What is there of a run; `InputError` when the folder holds another one."""
    stored = folder.read(RunRecord)
    if stored is None or stored.hash == extended(record, stored.extensions).hash:
        before = () if stored is None else stored.extensions
        return Seen(summary=folder.read(RunSummary), extensions=before)
    extension = extension_of(stored, record, config, corpus, folder)
    if extension is None:
        why = other_run(stored, record, config)
        raise InputError(
            f"{folder.path} holds another run ({why}); choose another folder or remove that one"
        )
    return Seen(summary=None, extensions=(*stored.extensions, extension))
