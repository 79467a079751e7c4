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


def launcher_name() -> str | None:
    """The launcher that has started this process: `accelerate launch`, torchrun, or None."""
    # All launchers of Accelerate set this variable, and nothing else does; torchrun's agent, which
    # most of them use, sets the other one.
    if "ACCELERATE_DYNAMO_USE_FULLGRAPH" in os.environ:
        return "accelerate launch"
    return "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else None


def several_were_asked_for() -> bool:
    """Whether `accelerate launch` was asked for several processes and has started only this one.

    It does so with --cpu, and without --multi_gpu where it sees fewer than two GPUs: it prepares
    for several processes by an address to meet at, but then calls the command once, without a
    rank (its `simple_launcher`).
    """
    is_alone = "WORLD_SIZE" not in os.environ
    return launcher_name() == "accelerate launch" and is_alone and "MASTER_ADDR" in os.environ


def last_word(code: int) -> str | None:
    """A line for the end of a command with this exit code, where a launcher will say more of it.

    None: there is no launcher, or it says nothing, or another process of the job has the line.
    """
    launcher = launcher_name()
    if code == 0 or launcher is None or os.environ.get("RANK", "0") != "0":
        return None
    return (
        f"what `{launcher}` prints below is its own way to report exit code {code}, often by a "
        "long traceback; it means no other error"
    )
