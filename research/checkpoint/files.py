"""Checkpoints on disk: safetensors and JSON, written to a temporary name and renamed. No pickle.

A stage's folder holds `step_N/{model.safetensors, optimizer.safetensors, state.json}`, from which
it continues, and `best_N/{model.safetensors, state.json}`, the weights of the best validation so
far. The state of a `step_N` names its `best_N`. All else that a run needs is a pure function of
(seed, step).
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


class Damaged(InputError):
    """A checkpoint that is not as it was written; an earlier one may still be whole."""


def save(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, object],
    *,
    on_host: Callable[[Tensor], Tensor] = on_host,
) -> None:
    """Write a checkpoint; a crash at any moment leaves the previous one or the new one.

    `state` holds the corpus's `fingerprint`: item ids mean nothing without it. `on_host` gathers
    tensors that are split over processes. `OSError` when the disk is full or fails.
    """
    with whole_folder(folder, replaces=True) as partial:
        _write_tensors(weights_of(module, on_host), partial / "model.safetensors")
        if optimizer is not None:
            moments = moments_of(optimizer, on_host)
            _write_tensors(moments, partial / "optimizer.safetensors")
        sums = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        text = sealed({"format": FORMAT_VERSION, "sha256": sums, **state})
        with path_in_errors(partial / "state.json"):
            (partial / "state.json").write_text(text + "\n", encoding="utf-8")


def sealed(state: Mapping[str, object]) -> str:
    """Return the text of a state.json, with a checksum of its content."""
    return json.dumps({**state, "checksum": _sum_of(state)}, indent=1, allow_nan=False)


def _sum_of(state: Mapping[str, object]) -> str:
    """Return the SHA-256 of a state.json's content without its checksum, in hex."""
    rest = {name: value for name, value in state.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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


def numbered(stage: Path, kind: str = STEP) -> dict[int, Path]:
    """Return a stage's checkpoints of a kind by step, newest first; none of them is checked.

    Where the process died while it replaced a checkpoint, the previous one counts if the new one is
    not there.
    """
    found: dict[int, Path] = {}
    if not stage.is_dir():
        return found
    for path in sorted(stage.iterdir()):
        match = re.fullmatch(rf"\.?{kind}_([0-9]{{8,18}})(\.previous)?", path.name)
        if match and path.name.startswith(".") is (match[2] is not None):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def prune(stage: Path, step: int, keep: int) -> None:
    """Keep the `keep` newest checkpoints up to `step` and the best ones they name; delete the rest.

    Checkpoints after `step` are deleted too: the run has gone back to an earlier one, and takes
    those steps again.
    """
    kept = [path for number, path in numbered(stage).items() if number <= step][:keep]
    for number, best in numbered(stage, BEST).items():
        if number in {_best_step(path) for path in kept}:
            kept.append(best)
    for path in stage.iterdir():
        ours = re.fullmatch(rf"\.?({STEP}|{BEST})_[0-9]{{8,18}}([.-].*)?", path.name)
        if ours and path not in kept:
            shutil.rmtree(path)


def has_finished(stage: Path) -> bool:
    """Whether a stage's newest readable state.json says that it has ended; no more is checked."""
    for path in numbered(stage).values():
        try:
            return _state_of(path).get("finished") is True
        except Damaged:
            continue
    return False


def _best_step(folder: Path) -> object:
    try:
        return _state_of(folder).get("best_step")
    except Damaged:
        return None


def newest_state(stage: Path, fingerprint: str) -> tuple[Path, dict[str, object]]:
    """Return the newest checkpoint that is whole, with a whole best one, and its state.

    Damaged checkpoints are passed over with a message on standard error. `InputError` when none is
    whole, and for one of another corpus or version.
    """
    passed: list[str] = []
    for path in numbered(stage).values():
        try:
            state = read_state(path, fingerprint)
            if state.get("best_step") is not None:
                read_state(_best_of(stage, state), fingerprint)
        except Damaged as error:
            passed.append(str(error))
            continue
        for each in passed:
            print(f"{each}; {path.name} before it is whole and serves", file=sys.stderr, flush=True)
        return path, state
    if passed:
        raise InputError(
            f"{stage}: no checkpoint is whole ({passed[0]}); remove the folder {stage}, and the "
            "run's summary.json if it has one, and its command trains the stage anew"
        )
    if (stage / "last").is_dir():
        raise InputError(
            f"{stage} was written by an earlier version; remove the run's folder and do it again"
        )
    raise InputError(f"{stage} holds no checkpoint; was the run interrupted before its first?")


def result(stage: Path, fingerprint: str) -> Path:
    """Return the folder of a stage's weights so far: the best if it validates, else the newest.

    Raises `InputError` as `newest_state` does.
    """
    return result_of(stage, *newest_state(stage, fingerprint))


def result_of(stage: Path, path: Path, state: Mapping[str, object]) -> Path:
    """Return the folder of the weights that go with the checkpoint `path`, whose state is `state`.

    `Damaged` when the best weights that the state names are missing.
    """
    return path if state.get("best_step") is None else _best_of(stage, state)


def _best_of(stage: Path, state: Mapping[str, object]) -> Path:
    step = state["best_step"]
    if not isinstance(step, int) or not 0 <= step < 10**18:
        raise Damaged(f"{stage}: best_step is {step!r:.100}; a number of steps is wanted")
    found = numbered(stage, BEST).get(step)
    if found is None:
        raise Damaged(f"{folder_of(stage, BEST, step)} is missing")
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex; `Damaged` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    return digest.hexdigest()


def read_state(folder: Path, fingerprint: str) -> dict[str, object]:
    """Return the content of a checkpoint's state.json, after checking all of its files.

    `Damaged` (an `InputError`) when a file is missing, unexpected or not as it was written;
    `InputError` when the checkpoint is of another format version or another corpus.
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
    if not isinstance(sums, dict) or "model.safetensors" not in sums:
        raise Damaged(f"{path} is damaged (sha256 is {sums!r:.100})")
    for name in ("model.safetensors", "optimizer.safetensors"):
        found = folder / name
        if found.is_file() is not (name in sums):
            raise Damaged(f"{found} is {'missing' if name in sums else 'not of this checkpoint'}")
        if name in sums and sha256_of(found) != sums[name]:
            raise Damaged(f"{found} is damaged (its checksum differs)")
    return state


def _state_of(folder: Path) -> dict[str, object]:
    path = file_inside(folder.parent, f"{folder.name}/state.json")
    if not path.is_file():
        raise Damaged(f"{path} is missing: {folder} is not a whole checkpoint")
    try:
        state = read_json(path)
    except InputError as error:
        raise Damaged(f"{error}; {folder} is not a whole checkpoint") from error
    if state.get("format") == FORMAT_VERSION and state.get("checksum") != _sum_of(state):
        raise Damaged(f"{path} is damaged (its checksum differs)")
    return state


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's module, by name; `Damaged` when they cannot be read."""
    return _read_tensors(folder / "model.safetensors")


def read_optimizer(folder: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint's optimizer, named `NUMBER.FIELD`.

    NUMBER counts the optimizer's parameters from 0. `Damaged` when the tensors cannot be read.
    """
    return _read_tensors(folder / "optimizer.safetensors")


def load_weights(folder: Path, module: nn.Module) -> None:
    """Fill the module from a checkpoint; `InputError` lists names and shapes that do not fit."""
    fill_weights(read_weights(folder), module, str(folder / "model.safetensors"))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    path = file_inside(path.parent.parent, f"{path.parent.name}/{path.name}")
    if not path.is_file():
        raise Damaged(f"{path} is missing; the checkpoint is not complete")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"{path} is damaged ({error})") from error
