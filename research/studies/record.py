"""study.json, which lists the runs that a study needs, and the names of the folders of its runs.

`study.py` calls both; `research/report/` and the mirror on W&B read what they write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from research.config import hash_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.differences import difference_of
from research.storage.folders import kind_of
from research.storage.records import StudyRecord, read_record, write_record
from research.storage.untrusted import is_file_name
from research.studies.job import Job

if TYPE_CHECKING:
    from research.studies.study import Study

# In place of a value that differs by corpus.
TUNED = "tuned"


def run_folder(out: Path, study: str, corpus: Corpus, cell: str, seed: int) -> Path:
    """The path of a run's folder, OUT/STUDY/CORPUS/CELL/SEED.

    Raises `InputError` for a name that is no plain folder name, as it could lead out of `out`. A
    corpus's name is untrusted input: it stands in the corpus's own files.
    """
    for kind, name in (("study", study), ("corpus", corpus.name), ("cell", cell)):
        if not is_file_name(name):
            raise InputError(f"{kind} is named {name!r}, which cannot be the name of a folder")
    return out / study / corpus.name / cell / str(seed)


def record_study(study: Study, out: Path, jobs: Sequence[Job], command: str) -> None:
    """Write study.json, which tells a report the question and which runs answer it.

    Runs that earlier calls listed (other seeds, corpora, cells) stay listed while the config of
    their cell is unchanged. Those of a cell that has changed since, for example by another budget,
    are dropped from the list. `InputError` where the study's folder is a run's.
    """
    folder = out / study.name
    if kind_of(folder) == "run":
        raise InputError(
            f"{folder} is the folder of a run, which cannot be a study's too; give the study "
            "another name, or another folder of runs"
        )
    earlier = read_record(folder, StudyRecord)
    record = merged_record(study, jobs, command, earlier)
    if record != earlier:
        write_record(folder, record)


def merged_record(
    study: Study, jobs: Sequence[Job], command: str, earlier: StudyRecord | None
) -> StudyRecord:
    """The record of a study that runs these jobs now and has done those that `earlier` lists."""
    configs = {cell: study.run(cell, "", 0) for cell in study.cells}
    cell_hashes = {cell: hash_of(config) for cell, config in configs.items()}
    names = {job.config.corpus: job.corpus for job in jobs}
    on_corpus = {
        names[corpus]: {cell: replace(study.run(cell, corpus, 0), corpus="") for cell in own}
        for corpus, own in study.on_corpus.items()
        if corpus in names
    }
    own_hashes: dict[str, Mapping[str, str]] = {
        corpus: {cell: hash_of(config) for cell, config in own.items()}
        for corpus, own in on_corpus.items()
    }
    runs: dict[str, dict[str, dict[str, str]]] = {}
    changes = changes_of(study.base, configs, on_corpus)
    used = [*configs.values(), *(config for own in on_corpus.values() for config in own.values())]
    objectives = [key for config in used for stage in config.stages for key in stage.objectives]
    if earlier is not None:
        now = {corpus: own_hashes.get(corpus, {}) for corpus in names.values()}
        runs = runs_of_unchanged_cells(earlier, cell_hashes, now)
        others = {
            corpus: earlier.corpus_marks.get(corpus, {}) for corpus in runs if corpus not in now
        }
        own_hashes = {**others, **own_hashes}
        if any(others.values()):
            objectives += earlier.objectives
            for cell in changes:
                fields = earlier.changes.get(cell, {})
                changes[cell] |= {field: pair for field, pair in fields.items() if TUNED in pair}
    for job in jobs:
        runs.setdefault(job.corpus, {}).setdefault(job.cell, {})[str(job.seed)] = job.record.hash
    seeds = {int(seed) for cells in runs.values() for hashes in cells.values() for seed in hashes}
    return StudyRecord(
        name=study.name,
        question=study.question,
        base=study.base,
        metrics=study.metrics,
        compared=study.deciding_metric,
        budget=None if study.budget is None else str(study.budget),
        cells=tuple(study.cells),
        objectives=tuple(dict.fromkeys(objectives)),
        factors=study.grid.factors,
        levels=study.grid.levels,
        changes=changes,
        seeds=tuple(sorted(seeds)),
        corpora=tuple(runs),
        marks=cell_hashes,
        corpus_marks=own_hashes,
        runs=runs,
        command=command or ("" if earlier is None else earlier.command),
    )


def changes_of(
    base: str,
    configs: Mapping[str, RunConfig],
    on_corpus: Mapping[str, Mapping[str, RunConfig]],
) -> dict[str, dict[str, tuple[object, object]]]:
    """The base's value and the cell's by cell and dotted field, where they differ.

    `TUNED` stands for the value of a field that the cell's own config on any corpus changes.
    """
    untuned: dict[str, dict[str, object]] = {cell: {} for cell in configs}
    for own in on_corpus.values():
        for cell, config in own.items():
            for field, (before, _) in difference_of(configs[cell], config).items():
                untuned[cell][field] = before
    changes: dict[str, dict[str, tuple[object, object]]] = {}
    for cell, config in configs.items():
        # A tuned field that the untuned configs share has one value, that of both.
        shared = {**untuned[base], **untuned[cell]}
        pairs = {field: [value, value] for field, value in shared.items()}
        pairs |= difference_of(configs[base], config)
        shown = {
            field: (
                TUNED if field in untuned[base] else before,
                TUNED if field in untuned[cell] else after,
            )
            for field, (before, after) in pairs.items()
        }
        changes[cell] = {field: pair for field, pair in shown.items() if pair[0] != pair[1]}
    return changes


def runs_of_unchanged_cells(
    record: StudyRecord,
    cell_hashes: Mapping[str, str],
    own_hashes: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, dict[str, str]]]:
    """The record's run hashes by corpus, cell and seed, of cells that have these hashes still.

    `own_hashes` are those of the cells' own configs on each corpus that is run now.
    """
    runs: dict[str, dict[str, dict[str, str]]] = {}
    for corpus, cells in record.runs.items():
        unchanged = {
            cell: dict(hashes)
            for cell, hashes in cells.items()
            if cell_hashes.get(cell, "") == record.marks.get(cell)
            and (
                corpus not in own_hashes
                or own_hashes[corpus].get(cell) == record.corpus_marks.get(corpus, {}).get(cell)
            )
        }
        if unchanged:
            runs[corpus] = unchanged
    return runs
