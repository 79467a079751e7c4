"""Checkpoints: safetensors and JSON, written to a temporary name and renamed. No pickle.

A checkpoint is a folder {model.safetensors, optimiser.safetensors, state.json}. All else that a run
needs to continue is a pure function of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from research.errors import InputError

FORMAT_VERSION = 1


def save(
    folder: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    state: Mapping[str, object],
) -> None:
    """Write a checkpoint; a crash at any moment leaves the previous one or the new one.

    `state` holds the corpus's `fingerprint`: item ids mean nothing without it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}-*"):
        # A process was killed while it wrote this one.
        shutil.rmtree(stale)
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        weights = {name: part.detach().cpu().contiguous() for name, part in _weights(module)}
        save_file(weights, temporary / "model.safetensors")
        if optimiser is not None:
            save_file(_optimiser_tensors(optimiser), temporary / "optimiser.safetensors")
        sums = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        marks = {"format": FORMAT_VERSION, "sha256": sums}
        text = json.dumps({**marks, **state}, indent=1, allow_nan=False)
        (temporary / "state.json").write_text(text + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as written:
                os.fsync(written.fileno())
        _swap(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(temporary: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one: the old one steps aside under a name that
    # `find` knows, so that at every moment one complete checkpoint can be found.
    previous = folder.with_name(f".{folder.name}.previous")
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def find(folder: Path) -> Path | None:
    """The complete checkpoint at `folder`, or the one it was about to replace; None: neither."""
    for candidate in (folder, folder.with_name(f".{folder.name}.previous")):
        if (candidate / "state.json").is_file():
            return candidate
    return None


def existing(folder: Path) -> Path:
    """As `find`, but a missing checkpoint is an `InputError`."""
    found = find(folder)
    if found is None:
        raise InputError(f"{folder} holds no checkpoint; was the run interrupted before its first?")
    return found


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_state(folder: Path, fingerprint: str) -> dict[str, object]:
    """The JSON part of a checkpoint.

    `InputError` when it is missing, damaged, foreign, or of another corpus, and when a file beside
    it is not the one that was written.
    """
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: {folder} is not a checkpoint of Sixfold") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!s:.100}); use another checkpoint") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT_VERSION:
        raise InputError(
            f"{path} is not a checkpoint of format {FORMAT_VERSION}; it was written by another "
            "program or version"
        )
    if state.get("fingerprint") != fingerprint:
        raise InputError(
            f"{path} belongs to a corpus with fingerprint {state.get('fingerprint')}, not "
            f"{fingerprint}; its item ids would mean other items"
        )
    sums = state.get("sha256")
    if not isinstance(sums, dict):
        raise InputError(f"{path} is damaged (sha256 is {sums!r}); use another checkpoint")
    for name in ("model.safetensors", "optimiser.safetensors"):
        found = folder / name
        if found.is_file() and sha256_of(found) != sums.get(name):
            raise InputError(f"{found} is damaged (its checksum differs); use another checkpoint")
    return state


def load_weights(folder: Path, module: nn.Module) -> None:
    """Fill the module; every name and shape must match, else `InputError` lists what does not."""
    path = folder / "model.safetensors"
    stored = _read_tensors(path)
    wanted = dict(_weights(module))
    problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"unknown {name}" for name in sorted(stored.keys() - wanted.keys())]
    problems += [
        f"{name} has shape {tuple(stored[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(stored.keys() & wanted.keys())
        if stored[name].shape != wanted[name].shape
    ]
    if problems:
        raise InputError(f"{path} does not fit this configuration: {'; '.join(problems)}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(stored[name])


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint's module, by name."""
    return _read_tensors(folder / "model.safetensors")


def load_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Fill an optimiser built over the same parameters; `InputError` when they do not fit."""
    path = folder / "optimiser.safetensors"
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    momentum = isinstance(optimiser, torch.optim.SGD)
    kept = {"momentum_buffer"} if momentum else {"step", "exp_avg", "exp_avg_sq"}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _read_tensors(path).items():
        index, _, field = name.partition(".")
        known = field in kept and index.isdecimal() and int(index) < len(parameters)
        if not known or tensor.shape != (() if field == "step" else parameters[int(index)].shape):
            raise InputError(
                f"{path} does not fit this configuration: {name} has shape {tuple(tensor.shape)}"
            )
        state.setdefault(int(index), {})[field] = tensor
    lacking = [
        f"{index}.{field}" for index in state for field in sorted(kept - state[index].keys())
    ]
    if lacking:
        raise InputError(f"{path} does not fit this configuration: missing {', '.join(lacking)}")
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )


def _weights(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.named_parameters())


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{field}": value.detach().cpu().contiguous()
        for index, fields in optimiser.state_dict()["state"].items()
        for field, value in fields.items()
        if isinstance(value, Tensor)
    }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; the checkpoint is not complete") from error
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); use another checkpoint") from error
