"""`upload`: copy the integers that were prepared on the host to an accelerator, by one transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

import torch
from torch import Tensor

Value = TypeVar("Value")


def upload(value: Value, device: torch.device) -> Value:
    """A copy of nested frozen dataclasses, mappings and tuples, with int64 tensors on `device`.

    These tensors are copied together, in one buffer, and the host does not wait for the copy.
    Tensors of other types (float64 counts) stay where they are. If all int64 tensors are on
    `device` already, `value` itself is returned.
    """
    tensors: list[Tensor] = []

    def record_tensor(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _with_tensors(value, record_tensor)
    if all(tensor.device == device for tensor in tensors):
        return value
    size = sum(tensor.numel() for tensor in tensors)
    # The buffer may be freed below: torch does not reuse pinned memory until its copy is done.
    buffer = torch.empty(size, dtype=torch.int64, pin_memory=device.type != "cpu")
    torch.cat([tensor.flatten() for tensor in tensors], out=buffer)
    parts = buffer.to(device, non_blocking=True).split([tensor.numel() for tensor in tensors])
    moved = iter([part.view(tensor.shape) for part, tensor in zip(parts, tensors)])
    return _with_tensors(value, lambda tensor: next(moved))


def _with_tensors(value: Value, change: Callable[[Tensor], Tensor]) -> Value:
    """A copy of `value` in which each int64 tensor x is `change(x)`, called in a fixed order."""
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
