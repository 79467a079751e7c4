"""Extending a run: its newest stage trains on in the same folder, beyond the limit it had before.

The stage continues from its last checkpoint under a later limit; the summary and rank tables of its
earlier end are kept in a folder beside. The run hash covers the extensions, so an extended run is
not taken for one that had the later limit from the beginning. The two may differ: a decaying
learning rate depends on the limit, a stage validates at its end, and patience starts from zero
again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from research.checkpoint import files as checkpoint
from research.config import from_json, packages_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.differences import difference_of
from research.runs.run_hash import record_of
from research.storage.records import ExtensionRecord, RunRecord, RunSummary
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import stage_origin
from research.storage.untrusted import file_inside, is_file_name
from research.training.checkpointer import state_of
from research.training.config import StageConfig
from research.training.state import StageState

# The fields of a stage, and those of its validation, that say when the stage ends.
LIMITS = ("epochs", "steps", "tokens", "seconds")
PATIENCE = ("patience", "patience_steps", "min_epochs", "min_steps")
# The folder inside a run's folder that keeps the summaries and rank tables of its earlier ends.
EARLIER_FOLDER = "earlier"


def with_extensions(record: RunRecord, extensions: Sequence[ExtensionRecord]) -> RunRecord:
    """The record of a run with these extensions; `record` is the one of its config alone.

    Each extension changes the run hash, and the hashes of the stages whose weights it changes: the
    extended stage and those after it. Without extensions the result equals `record`.
    """
    stage_hashes = dict(record.stages)
    for extension in extensions:
        # If there is no such stage, the extension is of another run; the run hash will show that.
        names = list(stage_hashes)
        first = names.index(extension.stage) if extension.stage in names else len(names)
        for name in names[first:]:
            stage_hashes[name] = _digest(stage_hashes[name], extension)
    # The last extension holds the run hash before it, which covers the earlier extensions.
    run_hash = _digest(record.hash, extensions[-1]) if extensions else record.hash
    return replace(record, hash=run_hash, stages=stage_hashes, extensions=tuple(extensions))


def _digest(previous: str, extension: ExtensionRecord) -> str:
    text = f"{previous} {extension.hash} {extension.stage} {extension.step}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def extension_of(
    stored: RunRecord, record: RunRecord, config: RunConfig, corpus: Corpus, folder: RunFolder
) -> ExtensionRecord | None:
    """The extension that turns the run in a folder into the requested one; None: another run.

    `stored` is the folder's record; `record` and `config` are those of the requested run. It is an
    extension when nothing differs but limits of one stage, which has begun, and all become later.
    `InputError` when that is so but the stage cannot be extended.
    """
    try:
        stored_config = from_json(stored.config, RunConfig, allow=packages_of(config))
        config_before = replace(config, stages=stored_config.stages)
    except InputError:
        return None
    if (
        with_extensions(record_of(config_before, corpus, record.start), stored.extensions).hash
        != stored.hash
    ):
        return None
    changes = {name: (a, b) for name, (a, b) in difference_of(config_before, config).items()}
    fields = {
        f"stages.{index}.{name}": (index, name)
        for index, stage_config in enumerate(config.stages)
        for name in limits_of(stage_config)
    }
    changed_stages = {fields[name][0] for name in changes if name in fields}
    if len(changed_stages) != 1 or not changes.keys() <= fields.keys():
        return None
    index = changed_stages.pop()
    stage = config.stages[index]
    state = newest_state(folder, stage, corpus.fingerprint)
    if state is None:
        return None
    changed = {fields[name][1]: both for name, both in changes.items()}
    if not all(_extends_limit(name, *both, state) for name, both in changed.items()):
        return None
    _check_can_continue(config, index, state, folder, changed)
    earlier = folder.path / EARLIER_FOLDER / stored.hash
    return ExtensionRecord(
        hash=stored.hash,
        stage=stage.name,
        epoch=state.epoch,
        step=state.step,
        ended=state.finished,
        # A crash may have come after the earlier summary was moved to its final place.
        tested=folder.read(RunSummary) is not None or earlier.exists(),
        limits=changes,
    )


def limits_of(stage: StageConfig) -> dict[str, object]:
    """The limits of a stage, by the dotted name of the field."""
    limits = {name: getattr(stage, name) for name in LIMITS}
    if stage.validation is not None:
        limits |= {f"validation.{name}": getattr(stage.validation, name) for name in PATIENCE}
    return limits


def progress_of(state: StageState) -> dict[str, float]:
    """How much a stage has done, by the name of the limit on it; an epoch cut short counts."""
    return {
        "epochs": state.epoch,
        "steps": state.step,
        "tokens": state.items,
        "seconds": state.seconds,
    }


def _extends_limit(name: str, old: object, new: object, state: StageState) -> bool:
    """Whether a new limit is beyond what the stage has done; for patience, beyond the old value."""
    if new is None:
        return True
    before = progress_of(state)[name] if name in LIMITS else old
    assert isinstance(new, (int, float))
    return isinstance(before, (int, float)) and new > before


def _check_can_continue(
    config: RunConfig,
    index: int,
    state: StageState,
    folder: RunFolder,
    changed: Mapping[str, tuple[object, object]],
) -> None:
    """Raise `InputError` when stage number `index` cannot be extended.

    It cannot when a later stage has begun, when it was taken over from another run, or when it has
    reached a limit that was not raised. `changed` holds the changed limits, before and now.
    """
    stage = config.stages[index]
    later = [each.name for each in config.stages[index + 1 :] if _has_begun(folder, each.name)]
    origin = stage_origin(folder, stage.name)
    # If another limit was raised, that one may have cut the last epoch short: `epochs` need not be
    # raised then to complete it.
    raises_limit = any(name in changed for name in LIMITS)
    limits = {
        name: getattr(stage, name)
        for name, amount in progress_of(state).items()
        if getattr(stage, name) is not None and amount >= getattr(stage, name)
    }
    if raises_limit and state.epoch == stage.epochs:
        limits.pop("epochs", None)
    reason = None
    if later:
        reason = (
            f"stage {later[0]} has already started from its weights; only the newest stage can be "
            "extended"
        )
    elif origin is not None:
        reason = (
            f"it was copied from {origin}; extend that run, or train this one in another folder"
        )
    elif limits and state.finished:
        reached = " and ".join(f"stages.{index}.{name} = {at:,}" for name, at in limits.items())
        reason = f"it has reached {reached}; raise that limit as well, or set it to None"
    if reason is not None:
        raise InputError(f"{folder.path}: stage {stage.name} cannot be extended: {reason}")


def newest_state(folder: RunFolder, stage: StageConfig, fingerprint: str) -> StageState | None:
    """The state in a stage's newest undamaged checkpoint; None: the stage has no checkpoint."""
    if not _has_begun(folder, stage.name):
        return None
    path, state = checkpoint.newest_state(folder.stage(stage.name), fingerprint)
    return state_of(state, str(path))


def _has_begun(folder: RunFolder, stage: str) -> bool:
    return bool(checkpoint.checkpoints_by_step(folder.stage(stage)))


def with_more_epochs(config: RunConfig, folder: RunFolder, count: int) -> dict[str, object]:
    """Overrides of `config`, by dotted field, that extend the run in `folder` by `count` epochs.

    They extend the last stage of a finished run. For a run whose extension was interrupted they
    keep the limit of that extension. Other limits are the folder's, unless those of `config` are
    higher. `InputError` when the folder holds nothing that can be extended.
    """
    if count < 1:
        raise InputError(f"--more-epochs is {count}; it must be at least 1")
    stored = folder.read(RunRecord)
    if stored is None:
        raise InputError(
            f"{folder.path} holds no run that could be extended; leave out --more-epochs"
        )
    stored_stages = from_json(stored.config, RunConfig, allow=packages_of(config)).stages
    if not stored_stages or not config.stages:
        raise InputError(
            f"{folder.path}: a counting ranker has no epochs to extend; leave out --more-epochs"
        )
    if [stage.name for stage in stored_stages] != [stage.name for stage in config.stages]:
        raise InputError(
            f"{folder.path} holds another run: its stages are "
            f"{', '.join(stage.name for stage in stored_stages)}, this run's "
            f"{', '.join(stage.name for stage in config.stages)}"
        )
    overrides: dict[str, object] = {}
    for index, (stored_stage, stage) in enumerate(zip(stored_stages, config.stages)):
        limits = limits_of(stage)
        for name, old in limits_of(stored_stage).items():
            if name in limits and (name == "epochs" or not _is_raised(old, limits[name])):
                overrides[f"stages.{index}.{name}"] = old
    if folder.read(RunSummary) is None:
        if not stored.extensions:
            raise InputError(
                f"{folder.path} holds a run that has not finished; run its own command, without "
                "--more-epochs, to finish it"
            )
        return overrides
    state = newest_state(folder, stored_stages[-1], stored.fingerprint)
    if state is None:
        name = stored_stages[-1].name
        raise InputError(f"{folder.path}: stage {name} has no checkpoint to continue from")
    return {**overrides, f"stages.{len(stored_stages) - 1}.epochs": state.epoch + count}


def _is_raised(old: object, new: object) -> bool:
    """Whether the limit `new` is higher than `old`; None means no limit, the highest."""
    if old is None or new is None:
        return old is not None and new is None
    assert isinstance(old, (int, float))
    assert isinstance(new, (int, float))
    return new > old


def archive_results(folder: RunFolder, before: RunRecord | None, run_hash: str) -> None:
    """Move the summary and rank tables of an extended run to the folder that keeps them.

    `before` is the record in config.json, `run_hash` the run hash that it will get; if the hash
    stays the same, nothing is moved. After a crash in the middle, the earlier run is there without
    its summary: its own command ranks again, and the next call moves what has not been moved.
    """
    if before is None or before.hash == run_hash:
        return
    if not is_file_name(before.hash):
        raise InputError(
            f"{folder.path / RunRecord.FILE}: hash is {before.hash!r:.80}; expected a hash"
        )
    archive = file_inside(folder.path, f"{EARLIER_FOLDER}/{before.hash}")
    for name in (RunSummary.FILE, "ranks"):
        source = file_inside(folder.path, name)
        # Rank tables that are there already were moved before a crash, of the same run and whole;
        # those that a later ranking has left, perhaps unfinished, are overwritten by this run's.
        if source.exists() and not (archive / name).is_dir():
            archive.mkdir(parents=True, exist_ok=True)
            os.replace(source, archive / name)


def note_of(extension: ExtensionRecord, config: RunConfig) -> str:
    """A sentence about an extension, for the notes of a run."""
    limits = ", ".join(
        f"{name} was {old} and became {new}" for name, (old, new) in extension.limits.items()
    )
    epochs = f"{extension.epoch} epochs ({extension.step:,} steps)"
    if extension.ended:
        note = f"stage {extension.stage} had ended after {epochs} and went on: {limits}"
    else:
        note = f"stage {extension.stage} stood at {epochs} when {limits}"
    shapes = {stage.name: stage.optimizer.schedule.shape for stage in config.stages}
    counted = {name.rpartition(".")[2] for name in extension.limits} & {"epochs", "steps", "tokens"}
    if shapes.get(extension.stage) in ("linear", "cosine") and counted:
        note += "; until then the learning rate fell towards the earlier limit"
    return f"{note}; the test had been ranked before" if extension.tested else note
