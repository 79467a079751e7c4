"""Reads a study's folder: study.json, and of every run what is there.

Nothing is guessed: the runs are those of study.json, each known by its hash. A run is finished,
failed (`failed.json`), unfinished (begun) or missing, as it also is when its folder holds one of
another configuration. A damaged file is an `InputError` that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from research.errors import InputError
from research.evaluation.metrics import parse
from research.evaluation.rank import RankTable
from research.evaluation.ties import TiePolicy
from research.foreign import own_file
from research.foreign import plain as plain
from research.json_files import read_json
from research.report.model import Change, Status
from research.tracking import FAILED, STUDY, RunFolder

Nested = Mapping[str, object]
Made = TypeVar("Made")
# Characters of a value that are shown.
SHOWN = 160
# Bytes of the name of a folder.
LONGEST = 255


@dataclass(frozen=True)
class StudyRecord:
    """study.json; names as on disk."""

    name: str
    question: str
    base: str
    metrics: tuple[str, ...]
    compared: str
    budget: str | None
    cells: tuple[str, ...]
    changes: Mapping[str, tuple[Change, ...]]
    seeds: tuple[int, ...]
    corpora: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Mapping[int, str]]]
    """By corpus, cell and seed, the hash of the run that is wanted."""
    command: str


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run of a study as its folder tells it."""

    cell: str
    seed: int
    path: Path
    status: Status
    hash: str
    counts_only: bool
    """It has no stages: nothing is drawn, and one seed says all."""
    ties: TiePolicy
    """What its own figures are where candidates tie."""
    summary: Nested
    """Empty unless finished."""
    tables: Mapping[str, RankTable]
    """Of the test part by candidate set, `full` first; empty unless finished."""
    error: str | None

    def cost(self, name: str) -> float:
        """Seconds, items or parameters; 0 for what a run does not have."""

        def made() -> float:
            return float(cast(float, _mapping(self.summary["cost"]).get(name, 0.0)))

        return read(self.path, made)

    def notes(self) -> list[str]:
        """What the run says of itself, such as that its selection metric never moved."""
        return read(self.path, lambda: list(_texts(self.summary.get("notes", []))))

    def shared(self) -> dict[str, str]:
        """By stage, the cell of the run whose stage was taken over."""

        def made() -> dict[str, str]:
            origins = _mapping(self.summary.get("shared", {})).items()
            # Folders stand relative to the run's own: ../../CELL/SEED.
            return {
                stage: Path(os.path.normpath(self.path / _text(folder))).parent.name
                for stage, folder in origins
            }

        return read(self.path, made)


def read_study(folder: Path) -> StudyRecord:
    """What study.json says; `InputError` for a folder without one, or another's."""
    path = own_file(folder, STUDY)
    if not path.is_file():
        raise InputError(
            f"{folder} has no {STUDY}: it is not a study's folder; `study` writes one, and "
            "finished runs are not repeated when it is called again"
        )
    stored = read_json(path)
    try:
        record = _study_of(stored)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path} is damaged or of another program ({error!r:.200})") from error
    for name in (record.name, *record.corpora, *record.cells):
        long = len(name.encode(errors="replace")) > LONGEST
        if name in ("", ".", "..") or set(name) & set("/\\\0") or long:
            raise InputError(f"{path} names {name!r:.80}, which cannot be the name of a folder")
    if record.base not in record.cells or record.compared not in record.metrics:
        raise InputError(
            f"{path} is damaged: its base is {record.base!r:.80} and it compares "
            f"{record.compared!r:.80}, which are not among its cells and metrics"
        )
    wanted = [seed for cells in record.runs.values() for own in cells.values() for seed in own]
    if any(not 0 <= seed < 1 << 64 for seed in (*record.seeds, *wanted)):
        raise InputError(f"{path} is damaged: a seed is a whole number from 0 on, of 64 bits")
    if not (record.corpora and record.seeds):
        raise InputError(f"{path} is damaged: it needs a corpus and a seed at least")
    for name in record.metrics:
        parse(name)
    return record


def read_run(folder: Path, corpus: str, cell: str, seed: int, mark: str) -> RunRecord:
    """The state of the run with that hash; rank tables are read for finished runs alone."""
    path = own_file(folder, f"{corpus}/{cell}/{seed}")
    reader = RunFolder(path, writes=False)
    config, failed = reader.read("config.json"), reader.read(FAILED)
    # What has another hash is of another configuration, and no run of this study.
    config = config if config is not None and config.get("hash") == mark else None
    failed = failed if failed is not None and failed.get("hash") == mark else None
    summary = None if config is None else reader.summary()
    finished = summary is not None
    stages, ties = config_of(path, config or {})
    status: Status = "missing" if config is None else "unfinished"
    status = "failed" if failed is not None else status
    return RunRecord(
        cell=cell,
        seed=seed,
        path=path,
        status="finished" if finished else status,
        hash=mark if config is not None else "",
        counts_only=config is not None and not stages,
        ties=ties,
        summary=summary or {},
        tables=read_tables(path) if finished else {},
        error=None if finished or failed is None else first_line(str(failed.get("error", ""))),
    )


def config_of(path: Path, stored: Nested) -> tuple[list[object], TiePolicy]:
    """Of a run's config.json, its stages (none: it only counts) and its policy for ties."""
    try:
        config = _mapping(stored.get("config", {}))
        ties = _mapping(config.get("evaluation", {})).get("ties")
        return _list(config.get("stages", [])), "mean" if ties == "mean" else "expected"
    except TypeError as error:
        raise InputError(f"{path / 'config.json'} is no run's config ({error!s:.200})") from error


def read_tables(run: Path) -> dict[str, RankTable]:
    """The test's rank tables by candidate set; full ranking must be there and comes first."""
    names = sorted(path.stem.removeprefix("test-") for path in run.glob("ranks/test-*.npz"))
    ordered = dict.fromkeys(["full", *names])
    return {name: RankTable.load(own_file(run, f"ranks/test-{name}.npz")) for name in ordered}


def read(path: Path, make: Callable[[], Made]) -> Made:
    """What `make` takes out of a run's summary; `InputError` when it is not there."""
    try:
        return make()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path / 'summary.json'} is damaged or of another program ({error!r:.200})"
        ) from error


def first_line(text: str) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return plain(lines[0])[:300] if lines else "no message"


def short(value: object) -> str:
    """A value of a config as a person reads it: classes by their last name, cut when long."""
    text = plain(_spelled(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _spelled(value: object) -> str:
    if isinstance(value, Mapping):
        kind = str(value.get("class", "")).rpartition(":")[2]
        rest = ", ".join(
            f"{name}={_spelled(each)}" for name, each in value.items() if name != "class"
        )
        return f"{kind}({rest})" if kind else f"{{{rest}}}" if rest else "none"
    if isinstance(value, list):
        return f"[{', '.join(_spelled(each) for each in value)}]"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _study_of(stored: Nested) -> StudyRecord:
    budget = stored["budget"]
    return StudyRecord(
        name=_text(stored["name"]),
        question=_text(stored["question"]),
        base=_text(stored["base"]),
        metrics=_texts(stored["metrics"]),
        compared=_text(stored["compared"]),
        budget=None if budget is None else _text(budget),
        cells=_texts(stored["cells"]),
        changes={
            cell: tuple(
                Change(plain(field), short(_list(pair)[0]), short(_list(pair)[1]))
                for field, pair in _mapping(fields).items()
            )
            for cell, fields in _mapping(stored["changes"]).items()
        },
        seeds=tuple(int(cast(int, seed)) for seed in _list(stored["seeds"])),
        corpora=_texts(stored["corpora"]),
        runs={
            corpus: {
                cell: {int(seed): _text(mark) for seed, mark in _mapping(seeds).items()}
                for cell, seeds in _mapping(cells).items()
            }
            for corpus, cells in _mapping(stored["runs"]).items()
        },
        command=_text(stored["command"]),
    )


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is not an object")
    return cast(dict[str, object], value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(each) for each in _list(value))
