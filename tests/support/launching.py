"""Starts the ranks of a job as processes, which write to one file as they would to a terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT

TIMEOUT = 60.0


@dataclass
class Ranks:
    """Started processes, and the file that all of them write to."""

    output: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Standard output and standard error of all processes, in the order of writing."""
        return self.output.read_text()

    def wait_for(self, *marks: str) -> None:
        """Wait until every one of these texts has been written."""
        self.wait_until(lambda: all(mark in self.text for mark in marks), f"no {marks}")

    def wait_for_exit(
        self, only: Sequence[int] | None = None, timeout: float = TIMEOUT
    ) -> tuple[list[int], float]:
        """Wait until processes have ended; return their exit codes and the seconds waited.

        `only` are the ranks to wait for; None: all.
        """
        started = time.monotonic()
        awaited = [self.processes[place] for place in only or range(len(self.processes))]
        self.wait_until(lambda: None not in [each.poll() for each in awaited], "no end", timeout)
        return [each.returncode for each in awaited], time.monotonic() - started

    def wait_until(self, done: Callable[[], bool], why: str, timeout: float = TIMEOUT) -> None:
        """Wait until `done` is true; fails with `why` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"{why} within {timeout} s:\n{self.text}"
            time.sleep(0.05)


def free_port() -> int:
    """Return a port of this machine on which no process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def launched(
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    output: Path,
) -> Iterator[Ranks]:
    """Start a process for each command; they are killed, with their children, after the block."""
    ranks = Ranks(output)
    common = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    try:
        with output.open("ab") as written:
            for command, environment in zip(commands, environments, strict=True):
                process = subprocess.Popen(
                    command,
                    env=common | environment,
                    cwd=ROOT,
                    stdout=written,
                    stderr=written,
                    start_new_session=True,
                )
                ranks.processes.append(process)
        yield ranks
    finally:
        for process in ranks.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait()


def joined_ranks(
    command: Sequence[str], output: Path, world: int = 2
) -> AbstractContextManager[Ranks]:
    """Start `world` ranks of one job, with the environment that `srun` or a launcher gives them."""
    port = str(free_port())
    environments = [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        for rank in range(world)
    ]
    return launched([[sys.executable, *command]] * world, environments, output)
