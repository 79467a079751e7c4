"""Stage reuse: a stage that several runs of a study have in common is trained only once.

Stages are recognized by their hash, of all that decides their weights (corpus, split, encoder,
seed, the stage and those before it). A run that reuses a stage of another run gets a copy of its
checkpoints and log lines, so that every run folder is complete; shared.json in the stage's folder
names the run that trained it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from research.checkpoint import files as checkpoint
from research.errors import InputError
from research.runs.warm_start import final_checkpoint
from research.storage.atomic import whole_folder
from research.storage.records import OriginRecord, RunRecord, write_record
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import stage_origin


def reuse_stage(folder: RunFolder, name: str, stage_hash: str, reuse_from: Sequence[Path]) -> None:
    """Copy stage `name` from the first run of `reuse_from` that has finished the same stage.

    `stage_hash` is the hash of the stage. Nothing happens when the stage has begun already, or when
    no run has it undamaged.
    """
    stage = folder.stage(name)
    if not folder.writes or checkpoint.checkpoints_by_step(stage):
        return
    for path in reuse_from:
        source = RunFolder(path, writes=False)
        if path == folder.path or not has_finished_stage(source, name, stage_hash, verified=True):
            continue
        origin = path / (stage_origin(source, name) or "")
        # The log lines are copied first: if a crash comes before the folder is there, the stage
        # starts from scratch, which drops them.
        folder.rewind(name, 0, 0)
        folder.append([line for line in source.metrics() if line["stage"] == name])
        for leftover in stage.parent.glob(f".{name}-*"):
            shutil.rmtree(leftover)
        ignored = shutil.ignore_patterns(".*", OriginRecord.FILE)
        with whole_folder(stage, replaces=True) as partial:
            shutil.copytree(
                source.stage(name),
                partial,
                ignore=ignored,
                copy_function=_link_or_copy,
                dirs_exist_ok=True,
            )
            write_record(partial, OriginRecord(run=os.path.relpath(origin, folder.path)))
        return


def has_finished_stage(
    folder: RunFolder, name: str, stage_hash: str, *, verified: bool = False
) -> bool:
    """Whether a run has finished the stage of this name and hash.

    With `verified`, also whether its checkpoint is undamaged, for which its weights are read.
    """
    record = folder.read(RunRecord)
    if record is None or record.stages.get(name) != stage_hash:
        return False
    if not checkpoint.has_finished(folder.stage(name)):
        return False
    if verified:
        try:
            final_checkpoint(folder, name, record.fingerprint, str(folder.path))
        except InputError:
            return False
    return True


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link a file, or copy it where that fails.

    A link is safe because the files of checkpoints are replaced, never changed.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
