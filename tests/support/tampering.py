"""Changes files of runs and checkpoints as an attacker could, checksums included."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from research.checkpoint import files as checkpoint

Json = dict[str, Any]


def edit_json(path: Path, change: Callable[[Json], object]) -> None:
    """Change the content of a JSON file; a checkpoint's state.json gets the matching checksum."""
    value = json.loads(path.read_text())
    change(value)
    if path.name == "state.json":
        path.write_text(checkpoint.state_text(value))
    else:
        path.write_text(json.dumps(value))


def replace_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the tensors of a checkpoint's file, and its checksum, so that they are accepted."""
    save_file(dict(tensors), path)
    signed = {path.name: checkpoint.sha256_of(path)}
    edit_json(path.with_name("state.json"), lambda stored: stored["sha256"].update(signed))
