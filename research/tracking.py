"""The run folder, which is the record of a run: config.json, metrics.jsonl, summary.json.

Everything is written to a temporary name and renamed, or appended a flushed line at a time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from research.errors import InputError

Scalar = int | float | str


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to fill that becomes `path` when the block ends; until then the old one stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; `InputError` names the file and what is wrong."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; is {path.parent} a run folder?") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error!s:.100})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not an object")
    return cast(dict[str, object], value)


class RunFolder:
    """One run's folder; only the main process makes one that writes."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes

    def stage(self, name: str) -> Path:
        """Where a stage's checkpoints lie."""
        return self.path / "stages" / name

    def write(self, name: str, value: object) -> None:
        """Write config.json or summary.json."""
        if self.writes:
            write_json(self.path / name, value)

    def read(self, name: str) -> dict[str, object] | None:
        """Read config.json or summary.json; None when it is not there."""
        if not (self.path / name).is_file():
            return None
        return read_json(self.path / name)

    def log(self, stage: str, step: int, epoch: int, values: Mapping[str, Scalar]) -> None:
        """Append a line to metrics.jsonl and flush it; a value that is not finite becomes text.

        `epoch` is the running one (0-based) for losses, the number completed for validation.
        """
        if not self.writes:
            return
        finite = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        line = {"stage": stage, "step": step, "epoch": epoch, **finite}
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Scalar]]:
        """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
            raise InputError(f"{path} has a damaged line ({error})") from error

    def rewind(self, stage: str, step: int) -> None:
        """Drop what a stage logged after `step`, before it continues from there."""
        if not self.writes or not (self.path / "metrics.jsonl").is_file():
            return
        kept = [
            line for line in self.metrics() if line["stage"] != stage or int(line["step"]) <= step
        ]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        with replacing(self.path / "metrics.jsonl") as file:
            file.write(text.encode())
