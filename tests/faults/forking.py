"""A process that has imported what a run needs, and forks one for each run it is asked for.

`python -m tests.faults.forking` reads a request a line and answers each with a line, both JSON:
{"arguments", "environment", "said"} with the process's id, {"process"} with its exit code as
`subprocess` tells it, or null while it goes on. A start so costs 20 ms instead of 2 s.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from research.__main__ import main

# All that a run imports, also where it is first used.
IMPORTED = ("research.cli.commands", "tests.faults.small", "torch._dynamo")


def requests() -> Iterator[dict[str, Any]]:
    """What is asked for on file 0, which no child may read from."""
    pending = b""
    while received := os.read(0, 1 << 16):
        *whole, pending = (pending + received).split(b"\n")
        for line in whole:
            yield json.loads(line)


def answer(value: int | None) -> None:
    """Say it on file 1."""
    os.write(1, json.dumps(value).encode() + b"\n")


def ended(process: int) -> int | None:
    """A child's exit code; None: it goes on."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def become(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """Make this child a process as a shell would begin it."""
    os.setsid()
    os.environ.update(environment)
    target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(target, number)
    sys.argv[1:] = arguments


def serve() -> bool:
    """Answer until nobody asks; True: this is a child, which has its arguments."""
    codes: dict[int, int] = {}
    for asked in requests():
        if "process" in asked:
            process = asked["process"]
            if process not in codes and (code := ended(process)) is not None:
                codes[process] = code
            answer(codes.get(process))
            continue
        process = os.fork()
        if process == 0:
            become(**asked)
            return True
        answer(process)
    return False


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    if serve():
        sys.exit(main())
