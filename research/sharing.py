"""A stage that several runs of a study have in common is trained once and taken over by the others.

What decides a stage's weights (corpus, split, encoder, seed, the stage and those before it) is its
mark. A run that takes a stage over has a copy of its checkpoints and log lines, so that every run
folder is complete, and says in shared.json whose they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import cast

from research.atomic import whole_folder
from research.errors import InputError
from research.foreign import own_file
from research.json_files import read_json, write_json
from research.tracking import RunFolder
from research.training import checkpoint

SHARED = "shared.json"


def take_stage(folder: RunFolder, name: str, mark: str, donors: Sequence[Path]) -> None:
    """Fill a stage that is not begun from the first of `donors` that has finished the same one."""
    stage = folder.stage(name)
    if not folder.writes or checkpoint.numbered(stage):
        return
    for donor in donors:
        if donor == folder.path or not has_finished(donor, name, mark) or is_damaged(donor, name):
            continue
        given = RunFolder(donor, writes=False)
        origin = donor / (taken_from(given, name) or "")
        # The lines come first: a stage without its folder is begun anew, which drops them.
        folder.rewind(name, 0, 0)
        folder.append([line for line in given.metrics() if line["stage"] == name])
        for stale in stage.parent.glob(f".{name}-*"):
            shutil.rmtree(stale)
        hidden = shutil.ignore_patterns(".*", SHARED)
        with whole_folder(stage, replaces=True) as partial:
            shutil.copytree(
                donor / "stages" / name,
                partial,
                ignore=hidden,
                copy_function=_link_or_copy,
                dirs_exist_ok=True,
            )
            write_json(partial / SHARED, {"run": os.path.relpath(origin, folder.path)})
        return


def taken_from(folder: RunFolder, name: str) -> str | None:
    """The run, relative to this one's folder, whose stage this is; None: this run's own."""
    path = own_file(folder.path, f"stages/{name}/{SHARED}")
    if not os.path.isfile(path):
        return None
    stored = read_json(path).get("run")
    run = stored if isinstance(stored, str) else ""
    parts = run.split("/")
    ups = len(list(takewhile(lambda part: part == "..", parts)))
    rest = parts[ups:]
    odd = [part for part in rest if part in ("", ".", "..") or not is_name(part)]
    if not (1 <= ups <= 3 and 1 <= len(rest) <= ups) or odd:
        raise InputError(
            f"{path} names {stored!r:.100}; allowed: another run of the study, as ../../CELL/SEED"
        )
    return run


def is_name(part: str) -> bool:
    """Whether a folder can be called that."""
    try:
        return len(part.encode()) <= 255 and "\0" not in part
    except UnicodeEncodeError:
        return False


def has_finished(run: Path, name: str, mark: str) -> bool:
    """Whether a run's stage of that name and mark has ended."""
    stored = RunFolder(run, writes=False).read("config.json")
    if stored is None or cast(dict[str, str], stored.get("stages", {})).get(name) != mark:
        return False
    return checkpoint.has_finished(run / "stages" / name)


def is_damaged(run: Path, name: str) -> bool:
    """Whether what a run's stage ended with is no longer as it was written."""
    reader = RunFolder(run, writes=False)
    fingerprint = str((reader.read("config.json") or {}).get("fingerprint"))
    try:
        _, state = checkpoint.newest_state(reader.stage(name), fingerprint)
        return state.get("finished") is not True
    except InputError:
        return True


def _link_or_copy(source: str, target: str) -> None:
    """Checkpoints are replaced and never changed, so two names for one file are safe."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
