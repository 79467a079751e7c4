"""The run folder, the record of a run: config.json, metrics.jsonl, summary.json, stages, ranks.

Files are written atomically, and metrics.jsonl grows a flushed line at a time. A mirror, such as
W&B, is told afterwards what has been written; the run never depends on it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from research.errors import InputError, path_in_errors
from research.storage.atomic import replacing
from research.storage.records import (
    Kind,
    Record,
    RunRecord,
    RunSummary,
    StudyRecord,
    read_record,
    write_record,
)
from research.storage.untrusted import file_inside, parse_json

Scalar = int | float | str
# How to continue an unfinished run, for messages.
CONTINUED_BY = "run the command that started it, or the last one that extended it, to finish it"


class FolderLocked(InputError):
    """Raised when another process has a run's folder locked; the run itself has not failed."""


def lock_folder(folder: Path, timeout: float = 5.0) -> int | None:
    """Lock a folder; returns a file descriptor, and the lock lasts until it is closed.

    It ends with the process, however that ends. `FolderLocked` when another process keeps its lock
    for `timeout` seconds. None: the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            # A process that was killed may need a moment to end and release the lock.
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise FolderLocked(
                    f"another process is doing the run in {folder}; wait for it or end it"
                ) from error
            time.sleep(0.1)
        except OSError:
            os.close(descriptor)
            return None


class Mirror(ABC):
    """Abstract: shows a run elsewhere. Its methods return soon and hide failures of that place.

    Only `begin` raises, an `InputError`, when the user asked for what cannot be had: a mirror
    online without a key.

    `begin` is called first, then `line` any number of times, `end` if the run finishes, and `close`
    in any case. Lines are numbered as in metrics.jsonl, from 0. `line` is not called for lines that
    are in metrics.jsonl already when the run begins or that are copied from another run, and it is
    called with the same number again after a rewind.
    """

    @abstractmethod
    def begin(self, record: RunRecord) -> None:
        """Called after config.json has been written."""

    @abstractmethod
    def line(self, number: int, line: Mapping[str, Scalar]) -> None:
        """Called after line `number` has been appended to metrics.jsonl."""

    @abstractmethod
    def end(self, summary: RunSummary) -> None:
        """Called after summary.json has been written."""

    @abstractmethod
    def close(self) -> None:
        """Called when this process leaves the run; one that has not finished may be continued."""


class RunFolder:
    """The folder of one run; only the main process has one that writes, or that has a mirror.

    As a context manager it locks the folder against other processes that would write there, and on
    leaving, after an error too, it closes the mirror and releases the lock.
    """

    def __init__(self, path: Path, *, writes: bool = True, mirror: Mirror | None = None) -> None:
        self.path = path
        self.writes = writes
        self.mirror = mirror
        # Number of lines in metrics.jsonl, which only a mirror needs; None: not counted yet.
        self._lines: int | None = None
        self._lock: int | None = None
        # Number of lines that each stage has in metrics.jsonl; known from its rewind on.
        self._logged: dict[str, int] = {}

    def __enter__(self) -> RunFolder:
        if self.writes:
            if (self.path / StudyRecord.FILE).is_file():
                raise InputError(
                    f"{self.path} is the folder of a study, which cannot be a run's too; choose "
                    "another folder"
                )
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise InputError(
                    f"{self.path} cannot be a run folder, as it or a folder above it is a file; "
                    "choose another folder"
                ) from error
            self._lock = lock_folder(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
        if self.mirror is not None:
            self.mirror.close()

    def stage(self, name: str) -> Path:
        """The folder of a stage's checkpoints; `InputError` if it leads out of the run's folder."""
        return file_inside(self.path, f"stages/{name}")

    def write(self, record: Record) -> None:
        """Write a record to its file and tell the mirror, if this process writes at all."""
        if not self.writes:
            return
        write_record(self.path, record)
        if self.mirror is not None and isinstance(record, RunRecord):
            self.mirror.begin(record)
        if self.mirror is not None and isinstance(record, RunSummary):
            self.mirror.end(record)

    def read(self, kind: type[Kind]) -> Kind | None:
        """Read the record of class `kind` from its file; None: there is no such file.

        `InputError` as for `read_record`.
        """
        return read_record(self.path, kind)

    def log(self, stage: str, step: int, epoch: int, values: Mapping[str, Scalar]) -> None:
        """Append a line to metrics.jsonl and flush it; a value that is not finite becomes text.

        For losses `epoch` is the current epoch (0-based), for validation the number of completed
        ones. `step` counts optimizer steps of the stage.
        """
        if not self.writes:
            return
        finite = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        line = {"stage": stage, "step": step, "epoch": epoch, **finite}
        self.path.mkdir(parents=True, exist_ok=True)
        self._append(json.dumps(line, allow_nan=False) + "\n")
        self._logged[stage] = self.logged(stage) + 1
        if self.mirror is not None:
            self._lines = len(self.metrics()) if self._lines is None else self._lines + 1
            self.mirror.line(self._lines - 1, line)

    def append(self, lines: Sequence[Mapping[str, Scalar]]) -> None:
        """Append lines from another run's metrics.jsonl, those of a stage that is copied."""
        if not self.writes or not lines:
            return
        self._append("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        self._lines = None

    def _append(self, text: str) -> None:
        path = self.path / "metrics.jsonl"
        with path_in_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(text)

    def metrics(self) -> list[dict[str, Scalar]]:
        """The lines of metrics.jsonl, without a last line that a crash has cut off.

        Empty when there is no such file; `InputError` names a damaged line.
        """
        path = file_inside(self.path, "metrics.jsonl")
        if not path.is_file():
            return []
        lines = []
        for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
            try:
                line = parse_json(text.decode())
                if not isinstance(line, dict) or not {"stage", "step"} <= line.keys():
                    raise ValueError(f"{line!r:.100} has no stage and step")
                if not isinstance(line["stage"], str) or type(line["step"]) is not int:
                    raise ValueError(f"its stage and step are {line['stage']!r}, {line['step']!r}")
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number} has been damaged ({error!s:.200}); remove that line to "
                    "go on with a gap in the curves"
                ) from error
            lines.append(line)
        return lines

    def rewind(self, stage: str, num_kept: int, step: int) -> list[dict[str, Scalar]]:
        """Remove a stage's lines, except the first `num_kept` up to `step`, and return those.

        It is called before the stage continues after `step`. If there are fewer than `num_kept`
        lines, the file has lost some, and a message on stderr says so.
        """
        self._logged[stage] = 0
        if not self.writes:
            return []
        lines = self.metrics()
        of_stage = [number for number, line in enumerate(lines) if line["stage"] == stage]
        numbers = [number for number in of_stage if int(lines[number]["step"]) <= step][:num_kept]
        dropped = set(of_stage) - set(numbers)
        if (self.path / "metrics.jsonl").is_file():
            remaining = [line for number, line in enumerate(lines) if number not in dropped]
            text = "".join(json.dumps(line) + "\n" for line in remaining)
            with replacing(self.path / "metrics.jsonl") as file:
                file.write(text.encode())
        if len(numbers) < num_kept:
            print(
                f"{self.path / 'metrics.jsonl'} has lost {num_kept - len(numbers)} of {num_kept} "
                f"lines of stage {stage}; the run goes on, its curves have a gap",
                file=sys.stderr,
                flush=True,
            )
        self._lines = None
        self._logged[stage] = len(numbers)
        return [lines[number] for number in numbers]

    def logged(self, stage: str) -> int:
        """The number of lines that a stage has in metrics.jsonl; 0 before its first rewind."""
        return self._logged.get(stage, 0)
