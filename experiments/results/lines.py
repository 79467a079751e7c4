"""`ResultLine`: what is kept of a finished run, a line of `DATASET.jsonl` in this folder.

Run folders with their weights are large and stay where they were made; the lines are committed, and
all tables are made of them. `archive.py` keeps the ranks of studies that take days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from research.config import record_from_json, record_to_json
from research.errors import InputError
from research.evaluation.ties import TiePolicy
from research.storage.atomic import replacing
from research.storage.records import Machine
from research.storage.untrusted import parse_json, read_bytes

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric of one run."""

    mean: float
    """Mean over users."""
    standard_error: float
    """Standard error of the mean over users: their standard deviation over the root of their
    number."""
    reaction: float | None = None
    """The part of the squared standard error that is users' own reaction to a seed, estimated from
    the runs of the cell that were collected together; None: from one run it cannot be."""


@dataclass(frozen=True, kw_only=True)
class ResultLine:
    """A finished run: which, under what rules, what it reached and what it cost."""

    dataset: str
    """The corpus's name."""
    cell: str
    """What was run: a model and its recipe."""
    seed: int
    """The run's seed; 0 where nothing is drawn."""
    study: str
    """The study that the run belongs to."""
    protocol: Mapping[str, object]
    """The protocol of `metrics`, as its rank table has it, but for the ties."""
    ties: TiePolicy = "expected"
    """How candidates of equal scores count in `metrics`."""
    fingerprint: str
    """The corpus's fingerprint."""
    hash: str
    """The run hash."""
    metrics: Mapping[str, Value]
    """Metrics of the test part among all items, by name."""
    validation: Mapping[str, float]
    """The same metrics of the validation part, means over users; empty: there is none."""
    users: int
    """Number of users that the test part has."""
    seconds: float
    """Wall time of training and validation."""
    tokens: int | None
    """Tokens trained on; None: nothing is trained."""
    parameters: int
    """Number of parameters."""
    machine: Machine
    """The machine of the run's main process, when it was begun."""
    commit: str | None
    """The git commit of the code; None: not known."""
    clean: bool | None
    """Whether the checkout had no change; None: not known."""
    date: str
    """The day on which the run was begun, YYYY-MM-DD."""
    command: str
    """The command that began the run."""
    config: Mapping[str, object] | None = None
    """The run's config in its short form, without fields at their defaults, which `rerun.py`
    reads; None: it was not kept."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies a line among those of its data set: study, cell and seed."""
        return self.study, self.cell, self.seed


def file_of(dataset: str, folder: Path = FOLDER) -> Path:
    """The file of a data set's lines."""
    return folder / f"{dataset}.jsonl"


def read_lines(path: Path) -> list[ResultLine]:
    """The lines of a file, in its order; `InputError` names the file and the line that is wrong."""
    lines = []
    for number, text in enumerate(read_bytes(path).decode().splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            value = parse_json(text)
        except ValueError as error:
            raise InputError(f"{where} is not valid JSON ({error!s:.100})") from error
        lines.append(record_from_json(value, ResultLine, where))
    return lines


def all_lines(folder: Path = FOLDER) -> list[ResultLine]:
    """The lines of all data sets, files in the order of their names."""
    return [line for path in sorted(folder.glob("*.jsonl")) for line in read_lines(path)]


def write_lines(lines: Iterable[ResultLine], path: Path) -> None:
    """Write the lines sorted by study, cell and seed, so that a change is a change of its lines."""
    ordered = sorted(lines, key=lambda line: line.key)
    text = "".join(f"{json.dumps(record_to_json(line), allow_nan=False)}\n" for line in ordered)
    with replacing(path) as file:
        file.write(text.encode())
