"""Integers that were prepared on the host, brought to an accelerator by one copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

Value = TypeVar("Value")


def upload(value: Value, device: torch.device) -> Value:
    """A copy of nested frozen dataclasses, mappings and tuples, its int64 tensors on `device`.

    They travel end to end in one buffer by one copy that nobody waits for. Tensors of other types
    (float64 counts) stay where they are.
    """
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _with_tensors(value, note)
    if all(tensor.device == device for tensor in tensors):
        return value
    size = sum(tensor.numel() for tensor in tensors)
    # Torch does not give a pinned buffer to anybody else before its copy is done.
    buffer = torch.empty(size, dtype=torch.int64, pin_memory=device.type != "cpu")
    torch.cat([tensor.flatten() for tensor in tensors], out=buffer)
    parts = buffer.to(device, non_blocking=True).split([tensor.numel() for tensor in tensors])
    moved = iter([part.view(tensor.shape) for part, tensor in zip(parts, tensors)])
    return _with_tensors(value, lambda tensor: next(moved))


def _with_tensors(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """A copy of `value` in which every int64 tensor is what `change` gives for it, in order."""
    changed: object = value
    if isinstance(value, Tensor):
        changed = change(value) if value.dtype == torch.int64 else value
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: vars(value)[part.name] for part in fields(value)}
        changed = replace(
            value, **{name: _with_tensors(part, change) for name, part in parts.items()}
        )
    elif isinstance(value, Mapping):
        changed = {name: _with_tensors(part, change) for name, part in value.items()}
    elif isinstance(value, tuple):
        changed = tuple(_with_tensors(part, change) for part in value)
    return cast(Value, changed)
