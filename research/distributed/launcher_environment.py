"""Reads the environment variables by which a launcher (torchrun, Accelerate) describes a job."""

from __future__ import annotations

import os

from research.errors import InputError


def launcher_variable(name: str) -> str:
    """Return an environment variable that a launcher sets; `InputError` if it is not set."""
    value = os.environ.get(name)
    if value is None:
        raise InputError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {name} is not set; begin several "
            "processes with `accelerate launch` or torchrun, or set RANK, LOCAL_RANK, WORLD_SIZE, "
            "MASTER_ADDR and MASTER_PORT for each"
        )
    return value


def launcher_number(name: str) -> int:
    """Return such a variable as a whole number; `InputError` if it is not set or not one."""
    value = launcher_variable(name)
    if not value.isdecimal():
        raise InputError(f"{name} is {value!r}; it must be a whole number")
    return int(value)
