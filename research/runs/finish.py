"""The records that a run writes at its beginning (config.json) and its end (summary.json)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator

from research.distributed.activity import ACTIVITY
from research.evaluation.candidates import AllItems, CandidateSet, seen_notes
from research.evaluation.list_table import ListTable, lists_file
from research.evaluation.metrics import metrics, missed_share, of_lists, of_ranks
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.runs.extension import archive_results, note_of
from research.runs.parts import RunParts
from research.runs.popularity_floor import popularity_floors
from research.runs.provenance import merge_provenance, provenance_of, versions
from research.runs.stages import TrainingResult
from research.storage.evaluation_records import QuestionsRecord
from research.storage.records import Provenance, RunRecord, RunSummary, UsersRecord
from research.storage.run_folder import RunFolder
from research.training.peak_memory import PeakMemory


def write_config(record: RunRecord, folder: RunFolder, accelerator: Accelerator) -> None:
    """Write config.json: what the run is, and the code, machine and command that now do it.

    Only the main process writes. The results of a run that is extended are archived first.
    """
    if not folder.writes:
        return
    stored = folder.read(RunRecord)
    # A run begun by a version that kept no provenance gets an entry that says nothing.
    before = () if stored is None else stored.provenance or (Provenance(),)
    latest = provenance_of(accelerator.device, accelerator.num_processes)
    archive_results(folder, stored, record.hash)
    folder.write(replace(record, provenance=merge_provenance(before, latest)))


def rank(
    run_parts: RunParts, ranker: Ranker, candidate_sets: Sequence[CandidateSet], folder: RunFolder
) -> tuple[dict[str, RankTable], dict[str, RankTable], ListTable | None]:
    """The rank tables of the validation part (full ranking; none if it is empty) and of the test.

    There are none of the test where there are no candidate sets. The third is the list table of the
    test; None: the config has no metric of lists, or the run leaves its test alone. All are written
    too, by the main process.
    """
    validation_tables: dict[str, RankTable] = {}
    if len(run_parts.split.validation):
        validation_tables = run_parts.tables(ranker, "validation", [AllItems()])
    tables = run_parts.tables(ranker, "test", candidate_sets) if candidate_sets else {}
    lists = run_parts.list_table(ranker, "test") if candidate_sets else None
    if folder.writes:
        for part, part_tables in (("validation", validation_tables), ("test", tables)):
            for name, table in part_tables.items():
                table.save(folder.path / "ranks" / f"{part}-{name}.npz")
        if lists is not None:
            lists.save(folder.path / lists_file("test", run_parts.config.evaluation.seen))
    return validation_tables, tables, lists


def questions_of(
    run_parts: RunParts,
    tables: Mapping[str, RankTable],
    validation_tables: Mapping[str, RankTable],
) -> dict[str, QuestionsRecord]:
    """How many held-out items are asked for in doubt, by part that has rank tables."""
    parts = {"test": tables, "validation": validation_tables}
    return {part: run_parts.questions(part) for part, ranked in parts.items() if ranked}


def evaluate_run(
    run_parts: RunParts,
    result: TrainingResult,
    candidate_sets: Sequence[CandidateSet],
    record: RunRecord,
    folder: RunFolder,
    device: torch.device,
) -> RunSummary:
    """Rank the validation part (full ranking) and the test part (under each of `candidate_sets`).

    Without candidate sets the test part is not ranked, and the summary has no figures of it.

    Every process ranks its share and returns the summary; the main process writes the rank tables
    and summary.json. `device` is the one that ranks.
    """
    ACTIVITY.begin("ranking")
    started = time.monotonic()
    peak = PeakMemory(device)
    validation_tables, tables, lists = rank(run_parts, result.ranker, candidate_sets, folder)
    floor, recent_floor, floor_notes = popularity_floors(run_parts, tables, candidate_sets)
    cost = replace(
        result.cost,
        evaluation_seconds=time.monotonic() - started,
        evaluation_peak_bytes=peak.bytes(),
    )
    first = next(iter((tables or validation_tables).values()))
    evaluation = run_parts.config.evaluation
    names, ties = of_ranks(evaluation.metrics), evaluation.ties
    summary = RunSummary(
        hash=record.hash,
        fingerprint=run_parts.corpus.fingerprint,
        protocol=dict(first.protocol),
        users=UsersRecord(
            evaluated=run_parts.num_test_users,
            not_evaluated=run_parts.split.not_evaluated,
        ),
        ties=ties,
        val=metrics(validation_tables["full"], names, ties) if validation_tables else {},
        test={name: metrics(table, names, ties) for name, table in tables.items()},
        lists={} if lists is None else metrics(lists, of_lists(evaluation.metrics)),
        missed_share=missed_share(first),
        questions=questions_of(run_parts, tables, validation_tables),
        popularity=floor,
        recent_popularity=recent_floor,
        attributes=result.attributes,
        best=result.best,
        carried=result.carried,
        shared=result.shared,
        cost=cost,
        notes=(
            *result.notes,
            *seen_notes(tables),
            *floor_notes,
            *(note_of(each, run_parts.config) for each in record.extensions),
        ),
        imported=result.imported,
        versions=versions(),
    )
    folder.write(summary)
    return summary
