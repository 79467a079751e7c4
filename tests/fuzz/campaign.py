"""Does cases of a target within limits, and tells what came of them.

A case is known by (target, seed, number). A failure is any exception that is not documented, a
warning, a case that takes too long, or one that asks for too much memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.targets import Case, Target

SECONDS = 10
"""What a case may take."""
MEMORY = 2 << 30
"""Bytes of addresses that cases may take beyond what the process has when it begins."""
LEAST = 10_000
"""Cases that every target has at least, where there are enough."""


class TooSlow(BaseException):
    """A case has not ended in time; nothing that reads may catch it."""


@dataclass
class Tally:
    """What came of cases of one target."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By kind of failure: number of its first case, and what it said."""

    def fail(self, number: int, kind: str, said: str) -> None:
        self.failed += 1
        self.failures.setdefault(kind, (number, said))

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.accepted += other.accepted
        self.refused += other.refused
        self.failed += other.failed
        self.seconds += other.seconds
        for kind, found in other.failures.items():
            self.failures.setdefault(kind, found)


def generator_of(target: str, seed: int, number: int) -> Random:
    """The one source of chance of a case."""
    return Random(f"{target}/{seed}/{number}")


def spread(cases: int, targets: Mapping[str, Target]) -> dict[str, int]:
    """Cases of each target: at least `LEAST` or its share, the rest by how cheap a case is."""
    least = min(LEAST, cases // len(targets))
    left = cases - least * len(targets)
    weights = {name: each.milliseconds**-0.7 for name, each in targets.items()}
    total = sum(weights.values())
    return {name: least + int(left * weight / total) for name, weight in weights.items()}


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a file system."""
    memory = Path("/dev/shm")
    root = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=root) as folder:
        yield Path(folder)


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Bounds on memory and time, warnings as errors, nothing printed; all of it undone after."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    had = signal.signal(signal.SIGALRM, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    said = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, had)


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def do_cases(
    target: Target,
    case: Case,
    seed: int,
    first: int,
    last: int,
    begun: Callable[[int, Tally], None] = lambda number, tally: None,
) -> Tally:
    """Cases `first` ... `last - 1`; `begun` is told of each before it is done."""
    tally = Tally()
    started = time.monotonic()
    for number in range(first, last):
        begun(number, tally)
        said = sys.stdout
        if isinstance(said, io.StringIO) and said.tell() > 1 << 16:
            said.seek(0)
            said.truncate()
        random = generator_of(target.name, seed, number)
        tally.cases += 1
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            case(random)
            tally.accepted += 1
        except target.allowed:
            tally.refused += 1
        except TooSlow:
            tally.fail(number, f"more than {SECONDS} s at {_where()}", "")
        except Exception as error:
            kind = f"{type(error).__name__} at {_where()}"
            tally.fail(number, kind, f"{error!s:.200}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        tally.seconds = time.monotonic() - started
    return tally


def _where() -> str:
    """The innermost place in the traceback that is in our own code."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    root = str(Path(__file__).parents[2])
    own = [
        each for each in frames if each.filename.startswith(root) and "/.venv/" not in each.filename
    ]
    reading = [each for each in own if "/tests/" not in each.filename] or own
    place = reading[-1] if reading else frames[-1]
    return f"{place.filename.removeprefix(root + '/')}:{place.lineno}"
