"""Checkpoints on disk: safetensors and JSON, written to a temporary name and renamed. No pickle.

A stage's folder holds `step_N/{model.safetensors, optimizer.safetensors, state.json}`, from which
it continues, and `best_N/{model.safetensors, state.json}`, the weights of the best validation so
far. The state of a `step_N` names its `best_N`. Where weights are averaged, model.safetensors holds
the average, and `step_N/averaging.safetensors` the weights that train. All else that a run needs is
a pure function of (seed, step). See docs/pitfalls.md, "pickled config in the checkpoint".
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from research.checkpoint.tensors import fill_weights, moments_of, on_host, weights_of
from research.errors import InputError, path_in_errors
from research.storage.atomic import whole_folder
from research.storage.json_files import read_json
from research.storage.untrusted import file_inside

FORMAT_VERSION = 2
STEP, BEST = "step", "best"
# The files of tensors; a checkpoint of best weights has the first alone.
MODEL, OPTIMIZER, AVERAGING = TENSOR_FILES = (
    "model.safetensors",
    "optimizer.safetensors",
    "averaging.safetensors",
)


class DamagedCheckpoint(InputError):
    """A checkpoint whose files have changed or are missing; an earlier one may be undamaged."""


def save(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, object],
    *,
    averaging: Mapping[str, Tensor] = MappingProxyType({}),
    on_host: Callable[[Tensor], Tensor] = on_host,
) -> None:
    """Write a checkpoint; a crash at any moment leaves the previous one or the new one.

    `state` holds the corpus's `fingerprint`: item ids mean nothing without it. `averaging` are
    `AveragedWeights.tensors`; without any there is no file of them. `on_host` gathers tensors that
    are split over processes. `OSError` when the disk is full or fails.
    """
    with whole_folder(folder, replaces=True) as partial:
        _write_tensors(weights_of(module, on_host), partial / MODEL)
        if optimizer is not None:
            _write_tensors(moments_of(optimizer, on_host), partial / OPTIMIZER)
        if averaging:
            on_hosts = {name: on_host(tensor) for name, tensor in averaging.items()}
            _write_tensors(on_hosts, partial / AVERAGING)
        sums = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        text = state_text({"format": FORMAT_VERSION, "sha256": sums, **state})
        with path_in_errors(partial / "state.json"):
            (partial / "state.json").write_text(text + "\n", encoding="utf-8")


def state_text(state: Mapping[str, object]) -> str:
    """Return the text of a state.json, with a checksum of its content."""
    return json.dumps({**state, "checksum": _checksum_of(state)}, indent=1, allow_nan=False)


def _checksum_of(state: Mapping[str, object]) -> str:
    """Return the SHA-256 of a state.json's content without its checksum, in hex."""
    content = {name: value for name, value in state.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # safetensors reports an error of the disk as text alone.
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


def folder_of(stage: Path, kind: str, step: int) -> Path:
    """Return the folder of a stage's checkpoint after `step` steps; `kind` is STEP or BEST."""
    return stage / f"{kind}_{step:08d}"


def checkpoints_by_step(stage: Path, kind: str = STEP) -> dict[int, Path]:
    """Return a stage's checkpoints of a kind by step, newest first; none of them is checked.

    Where the process died while it replaced a checkpoint, the previous one counts if the new one is
    not there.
    """
    folders: dict[int, Path] = {}
    if not stage.is_dir():
        return folders
    for path in sorted(stage.iterdir()):
        match = re.fullmatch(rf"\.?{kind}_([0-9]{{8,18}})(\.previous)?", path.name)
        if match and path.name.startswith(".") is (match[2] is not None):
            folders[int(match[1])] = path
    return dict(sorted(folders.items(), reverse=True))


def prune(stage: Path, step: int, keep: int) -> None:
    """Keep the `keep` newest checkpoints up to `step` and the best ones they name; delete the rest.

    Checkpoints after `step` are deleted too: the run has gone back to an earlier one, and takes
    those steps again.
    """
    kept = [path for number, path in checkpoints_by_step(stage).items() if number <= step][:keep]
    for number, best in checkpoints_by_step(stage, BEST).items():
        if number in {_best_step(path) for path in kept}:
            kept.append(best)
    for path in stage.iterdir():
        match = re.fullmatch(rf"\.?({STEP}|{BEST})_[0-9]{{8,18}}([.-].*)?", path.name)
        if match and path not in kept:
            shutil.rmtree(path)


def has_finished(stage: Path) -> bool:
    """Whether a stage's newest readable state.json says that it has ended; no more is checked."""
    for path in checkpoints_by_step(stage).values():
        try:
            return _state_of(path).get("finished") is True
        except DamagedCheckpoint:
            continue
    return False


def _best_step(folder: Path) -> object:
    try:
        return _state_of(folder).get("best_step")
    except DamagedCheckpoint:
        return None


def newest_state(stage: Path, fingerprint: str) -> tuple[Path, dict[str, object]]:
    """Return the newest undamaged checkpoint whose best weights are undamaged too, and its state.

    Damaged checkpoints are passed over with a message on standard error. `InputError` when none is
    whole, and for one of another corpus or version.
    """
    damaged: list[str] = []
    for path in checkpoints_by_step(stage).values():
        try:
            state = read_state(path, fingerprint)
            if state.get("best_step") is not None:
                read_state(_best_of(stage, state), fingerprint)
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            print(
                f"{message}; using the earlier checkpoint {path.name}, which is undamaged",
                file=sys.stderr,
                flush=True,
            )
        return path, state
    if damaged:
        raise InputError(
            f"{stage}: no checkpoint is undamaged ({damaged[0]}); remove the folder {stage}, and "
            "the run's summary.json if it has one, and run its command again to train the stage "
            "from scratch"
        )
    if (stage / "last").is_dir():
        raise InputError(
            f"{stage} was written by an earlier version; remove the run's folder and do it again"
        )
    raise InputError(f"{stage} holds no checkpoint; was the run interrupted before its first?")


def result_folder(stage: Path, fingerprint: str) -> Path:
    """Return the folder of a stage's weights so far: the best if it validates, else the newest.

    Raises `InputError` as `newest_state` does.
    """
    return result_folder_of(stage, *newest_state(stage, fingerprint))


def result_folder_of(stage: Path, path: Path, state: Mapping[str, object]) -> Path:
    """Return the folder of the weights that go with the checkpoint `path`, whose state is `state`.

    `DamagedCheckpoint` when the best weights that the state names are missing.
    """
    return path if state.get("best_step") is None else _best_of(stage, state)


def _best_of(stage: Path, state: Mapping[str, object]) -> Path:
    step = state["best_step"]
    if not isinstance(step, int) or not 0 <= step < 10**18:
        raise DamagedCheckpoint(
            f"{stage}: best_step is {step!r:.100}; a number of steps is expected"
        )
    folder = checkpoints_by_step(stage, BEST).get(step)
    if folder is None:
        raise DamagedCheckpoint(f"{folder_of(stage, BEST, step)} is missing")
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex; `DamagedCheckpoint` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DamagedCheckpoint(f"{path} cannot be read ({error})") from error
    return digest.hexdigest()


def read_state(folder: Path, fingerprint: str) -> dict[str, object]:
    """Return the content of a checkpoint's state.json, after checking all of its files.

    `DamagedCheckpoint` (an `InputError`) when a file is missing, unexpected or not as it was
    written; `InputError` when the checkpoint is of another format version or another corpus.
    """
    path = folder / "state.json"
    state = _state_of(folder)
    if state.get("format") != FORMAT_VERSION:
        raise InputError(
            f"{path} is not a checkpoint of format {FORMAT_VERSION}; it was written by another "
            "program or version"
        )
    if state.get("fingerprint") != fingerprint:
        raise InputError(
            f"{path} belongs to a corpus with fingerprint {state.get('fingerprint')!s:.100}, not "
            f"{fingerprint}; its item ids would mean other items"
        )
    sums = state.get("sha256")
    if not isinstance(sums, dict) or MODEL not in sums:
        raise DamagedCheckpoint(f"{path} is damaged (sha256 is {sums!r:.100})")
    for name in TENSOR_FILES:
        file = folder / name
        if file.is_file() is not (name in sums):
            raise DamagedCheckpoint(
                f"{file} is {'missing' if name in sums else 'not part of this checkpoint'}"
            )
        if name in sums and sha256_of(file) != sums[name]:
            raise DamagedCheckpoint(f"{file} is damaged (its checksum differs)")
    return state


def _state_of(folder: Path) -> dict[str, object]:
    path = file_inside(folder.parent, f"{folder.name}/state.json")
    if not path.is_file():
        raise DamagedCheckpoint(f"{path} is missing: {folder} is not a complete checkpoint")
    try:
        state = read_json(path)
    except InputError as error:
        raise DamagedCheckpoint(f"{error}; {folder} is not a complete checkpoint") from error
    if state.get("format") == FORMAT_VERSION and state.get("checksum") != _checksum_of(state):
        raise DamagedCheckpoint(f"{path} is damaged (its checksum differs)")
    return state


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's module, by name; `DamagedCheckpoint` when they cannot
    be read."""
    return _read_tensors(folder / MODEL)


def read_optimizer(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's optimizer, named `NUMBER.FIELD`, such as `0.exp_avg`.

    NUMBER counts the optimizer's parameters from 0. `DamagedCheckpoint` when the file is missing or
    cannot be read; `InputError` when it is a link out of the checkpoints' folder.
    """
    return _read_tensors(folder / OPTIMIZER)


def read_averaging(folder: Path) -> dict[str, Tensor]:
    """Return what a checkpoint holds beside averaged weights, by name; errors as `read_optimizer`.

    It is empty where the checkpoint has no averaged weights.
    """
    return _read_tensors(folder / AVERAGING) if (folder / AVERAGING).exists() else {}


def load_weights(folder: Path, module: nn.Module) -> None:
    """Fill the module from a checkpoint; `InputError` lists names and shapes that do not fit."""
    fill_weights(read_weights(folder), module, str(folder / MODEL))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    path = file_inside(path.parent.parent, f"{path.parent.name}/{path.name}")
    if not path.is_file():
        raise DamagedCheckpoint(f"{path} is missing; the checkpoint is not complete")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is damaged ({error})") from error
