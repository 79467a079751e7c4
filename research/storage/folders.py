"""Finds runs and corpora below a folder, and says what lies where a run was expected.

The verb `list` and `sync` look for runs; error messages tell a user what to name instead of a
folder that does not exist or that holds runs but is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from research.annotations import near_names
from research.errors import InputError
from research.storage.json_files import read_json

FolderKind = Literal["run", "corpus", "hub"]

# A message names so many folders, and is not looked for longer than in so many.
_SHOWN, _SEARCHED = 8, 5_000
# A run lies four folders below the folder of all runs: study, corpus, cell, seed.
_DEPTH = 5


def kind_of(folder: Path) -> FolderKind | None:
    """What a folder is: a run (config.json), a corpus (manifest.json), or neither (None).

    A run in the form of the Hub has its weights beside config.json, and none of its stages. Other
    programs write files of the name config.json too; one that is damaged counts as a run's.
    """
    if (folder / "manifest.json").is_file():
        return "corpus"
    config = folder / "config.json"
    if not config.is_file():
        return None
    weights_alone = (folder / "model.safetensors").is_file() and not (folder / "stages").exists()
    kind: FolderKind = "hub" if weights_alone else "run"
    try:
        return kind if "hash" in read_json(config) else None
    except InputError:
        return "run"


def run_or_corpus_at(target: str, data_root: str) -> Path:
    """The folder of a run or a corpus: `target` itself, or a corpus's name below the data root.

    `InputError` where there is neither.
    """
    corpora = Path(data_root) / "corpora"
    for folder in (Path(target), corpora / target):
        if (folder / "config.json").is_file() or (folder / "manifest.json").is_file():
            return folder
    is_name = "/" not in target and not Path(target).exists() and corpora.is_dir()
    place = corpora / target if is_name else Path(target)
    raise InputError(
        f"{target} is neither a run folder (config.json) nor a corpus folder (manifest.json), nor "
        f"a corpus in {corpora}, where `prepare` makes one: {what_is_at(place)}"
    )


def folders_below(folder: Path, kind: FolderKind, *, depth: int = _DEPTH) -> Iterator[Path]:
    """The runs or corpora at or below a folder, sorted, down to `depth` folders below it.

    Hidden folders are left out, what lies inside of a run or a corpus, and what lies below a link.
    """
    return (path for path, found in _kinds_below(folder, depth) if found == kind)


def _kinds_below(folder: Path, depth: int) -> Iterator[tuple[Path, FolderKind | None]]:
    """Every folder that `folders_below` looks at, in its order, and its kind."""
    # The last one is looked at next, and what lies in it before what lies beside it.
    pending = [(folder, 0)]
    while pending:
        path, level = pending.pop()
        found = kind_of(path)
        yield path, found
        if found is None and level < depth and (level == 0 or not path.is_symlink()):
            inside = sorted(_folders_in(path), key=lambda entry: _numbers_by_value(entry.name))
            pending += [(entry, level + 1) for entry in reversed(inside)]


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder but for hidden ones; of one that may not be read, none."""
    try:
        return [
            entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()
        ]
    except OSError:
        return []


def _numbers_by_value(name: str) -> tuple[bool, int, str]:
    """The order of names of folders: names of seeds by their numbers."""
    return (True, int(name), name) if name.isdecimal() and len(name) < 20 else (False, 0, name)


def what_is_at(path: Path) -> str:
    """What is at a path that should be a run folder, and what to name instead, for a message."""
    if not path.exists():
        return f"it does not exist{_near_paths(path)}"
    inside_of = next((parent for parent in path.parents if kind_of(parent) == "run"), None)
    if inside_of is not None:
        return f"it lies inside of the run {inside_of}; name that"
    if not path.is_dir():
        return "it is a file; name a folder"
    if kind_of(path) == "run":
        return "it is a run"
    if kind_of(path) == "hub":
        return (
            "it is a run in the form of the Hub; "
            f"`sixfold import {path} --format hub --out RUN` makes a run of it"
        )
    if kind_of(path) == "corpus":
        return "it is a corpus; `run EXPERIMENT --corpus CORPUS` makes a run of it"
    inside = what_is_below(path)
    if not inside:
        return "neither a run nor a corpus lies at or below it"
    of_study = f"; `report {path}` reads the whole study" * (path / "study.json").is_file()
    return f"it holds {inside}; name one of them{of_study}"


def what_is_below(path: Path) -> str:
    """How many runs and corpora a folder holds, and the first of them; "" if it holds none."""
    looked_at = list(islice(_kinds_below(path, _DEPTH), _SEARCHED + 1))
    least = "at least " if len(looked_at) > _SEARCHED else ""
    runs = [str(path) for path, kind in looked_at if kind == "run"]
    corpora = [str(path) for path, kind in looked_at if kind == "corpus"]
    parts = [_counted(least, runs, "run", "runs")] if runs else []
    parts += [_counted(least, corpora, "corpus", "corpora")] if corpora else []
    return " and ".join(parts)


def _counted(least: str, names: list[str], one: str, many: str) -> str:
    return f"{least}{len(names)} {one if len(names) == 1 else many}: {_some_of(names)}"


def _some_of(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _near_paths(path: Path) -> str:
    """Like-named folders beside the first part of a path that does not exist, or all that are."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    beside = _folders_in(missing.parent)
    # What follows the misspelled part belongs to the path too, where it exists.
    rest = path.relative_to(missing)
    paths = {entry.name: entry / rest if (entry / rest).exists() else entry for entry in beside}
    similar = [str(paths[name]) for name in near_names(missing.name, paths)]
    if similar:
        return f"; did you mean {' or '.join(similar)}?"
    return f"; {missing.parent} holds {_some_of(sorted(paths, key=_numbers_by_value))}" * bool(
        paths
    )
