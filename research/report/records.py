"""Reads a study's folder for its report: study.json, and the files of every run that it lists.

A run is identified by the hash that study.json gives. It is finished, failed (it has a
failed.json), unfinished (begun) or missing; a run whose folder holds another config counts as
missing. A damaged file raises an `InputError` that names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from research.errors import InputError
from research.evaluation.list_table import ListTable, lists_file
from research.evaluation.metrics import of_ranks
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import TiePolicy
from research.report.runs_as_study import study_of_runs
from research.report.schema import Change, Part, Status
from research.storage.records import FailureRecord, RunRecord, RunSummary, StudyRecord, read_record
from research.storage.run_folder import RunFolder
from research.storage.untrusted import file_inside, printable, short_text


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study, as read from its folder."""

    cell: str
    seed: int
    path: Path
    status: Status
    hash: str
    counts_only: bool
    """Whether it is a counting ranker of all users, which gives the same for every seed."""
    ties: TiePolicy
    """How tied candidates count in the run's own figures."""
    record: RunRecord | None
    """config.json; None: the run is missing."""
    summary: RunSummary | None
    """None: the run has not finished."""
    tables: Mapping[str, RankTable]
    """The rank tables of the report's part by candidate set, `full` first; empty: the run has not
    finished, or has no such part."""
    validation: RankTable | None
    """The rank table of the validation part under full ranking; None: the run has not finished, its
    split has no validation, or the file is missing."""
    lists: Mapping[str, ListTable]
    """The part's list tables by seen policy; empty: the run has stored no lists."""
    error: str | None
    """The first line of a failed run's error; None: it has not failed."""

    def origin_cells(self) -> dict[str, str]:
        """By stage that was taken over from another run, that run's cell."""
        # The summary names folders relative to the run's own: ../../CELL/SEED.
        return {
            stage: Path(os.path.normpath(self.path / folder)).parent.name
            for stage, folder in ({} if self.summary is None else self.summary.shared).items()
        }


def read_study(folder: Path) -> StudyRecord:
    """The study.json of a folder, or else the study that its runs are; see `study_of_runs`.

    Raises `InputError` when there is none, and when it names no run or an unknown metric, or
    compares cells by a metric of recommended lists.
    """
    record = read_record(folder, StudyRecord) or study_of_runs(folder)
    if record is None:
        raise InputError(
            f"{folder} is no study's folder: it has no {StudyRecord.FILE}, which `study` writes, "
            "and no finished run in CORPUS/CELL/SEED, where `run --study NAME --cell CELL` puts one"
        )
    if not (record.corpora and record.seeds):
        raise InputError(f"{folder / StudyRecord.FILE} lists no run; call the study's command")
    if record.compared not in of_ranks(record.metrics):
        raise InputError(
            f"{folder / StudyRecord.FILE} compares cells by {record.compared}, a metric of "
            "recommended lists; allowed: one of ranks, such as ndcg@10"
        )
    return record


def changes_of(study: StudyRecord) -> dict[str, tuple[Change, ...]]:
    """By cell, its differences from the base, with values as short text."""
    return {
        printable(cell): tuple(
            Change(printable(field), short_text(before), short_text(after))
            for field, (before, after) in fields.items()
        )
        for cell, fields in study.changes.items()
    }


def read_run(
    folder: Path, corpus: str, cell: str, seed: int, run_hash: str, part: Part = "test"
) -> StudyRun:
    """A run as its folder has it: missing unless its hash is `run_hash`.

    Rank tables are read only when the run has finished, and those of the test only when `part` is
    the test.
    """
    path = file_inside(folder, f"{corpus}/{cell}/{seed}")
    reader = RunFolder(path, writes=False)
    record, failure = reader.read(RunRecord), reader.read(FailureRecord)
    # A record with another hash is of another config, so it is no run of this study.
    record = record if record is not None and record.hash == run_hash else None
    failure = failure if failure is not None and failure.hash == run_hash else None
    summary = None if record is None else reader.read(RunSummary)
    status: Status = "missing" if record is None else "unfinished"
    status = "failed" if failure is not None else status
    status = "finished" if summary is not None else status
    validation = None if summary is None else read_validation(path, summary)
    tables: dict[str, RankTable] = {} if validation is None else {"full": validation}
    if part == "test":
        tables = {} if summary is None else read_tables(path)
    return StudyRun(
        cell=cell,
        seed=seed,
        path=path,
        status=status,
        hash="" if record is None else record.hash,
        counts_only=record is not None and not record.outline.is_seeded,
        ties="expected" if record is None else record.ties,
        record=record,
        summary=summary,
        tables=tables,
        validation=validation,
        lists={} if summary is None else read_lists(path, part),
        error=None if failure is None or summary is not None else first_line(failure.error),
    )


def read_tables(run: Path) -> dict[str, RankTable]:
    """The test part's rank tables by candidate set, full ranking first.

    Raises `InputError` when the table of full ranking is missing or a table is damaged.
    """
    names = sorted(path.stem.removeprefix("test-") for path in run.glob("ranks/test-*.npz"))
    ordered = dict.fromkeys(["full", *names])
    return {name: RankTable.load(file_inside(run, f"ranks/test-{name}.npz")) for name in ordered}


def read_validation(run: Path, summary: RunSummary) -> RankTable | None:
    """The rank table of a finished run's validation part; `InputError` when it is damaged.

    None: the split has no validation, or the file is missing, of which `caveats.run_notes` tells.
    """
    path = file_inside(run, "ranks/validation-full.npz")
    return RankTable.load(path) if summary.val and path.is_file() else None


def read_lists(run: Path, part: str) -> dict[str, ListTable]:
    """The list tables of a part by seen policy; `InputError` when one is damaged."""
    paths = [file_inside(run, lists_file(part, seen)) for seen in ("excluded", "kept")]
    tables = [ListTable.load(path) for path in paths if path.is_file()]
    return {str(table.protocol.get("seen")): table for table in tables}


def first_line(text: str) -> str:
    """The first line that is not blank, at most 300 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[0])[:300] if lines else "no message"
