"""What a launcher has left in the environment."""

from __future__ import annotations

import os

from research.errors import InputError


def of_environment(name: str) -> str:
    """What a launcher has told; `InputError` without."""
    value = os.environ.get(name)
    if value is None:
        raise InputError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {name} is not set; begin several "
            "processes with `accelerate launch` or torchrun, or set RANK, LOCAL_RANK, WORLD_SIZE, "
            "MASTER_ADDR and MASTER_PORT for each"
        )
    return value


def number_of(name: str) -> int:
    """As `of_environment`, a whole number."""
    value = of_environment(name)
    if not value.isdecimal():
        raise InputError(f"{name} is {value!r}; it must be a whole number")
    return int(value)
