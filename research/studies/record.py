"""study.json, which lists the runs that a study needs, and the names of the folders of its runs.

`study.py` calls both; `research/report/` and the mirror on W&B read what they write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research.config import hash_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.runs.differences import difference_of
from research.storage.folders import kind_of
from research.storage.records import StudyRecord, read_record, write_record
from research.storage.untrusted import is_file_name
from research.studies.job import Job

if TYPE_CHECKING:
    from research.studies.study import Study


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
    configs = {cell: study.run(cell, "", 0) for cell in study.cells}
    cell_hashes = {cell: hash_of(config) for cell, config in configs.items()}
    runs = {} if earlier is None else runs_of_unchanged_cells(earlier, cell_hashes)
    for job in jobs:
        runs.setdefault(job.corpus, {}).setdefault(job.cell, {})[str(job.seed)] = job.record.hash
    seeds = {int(seed) for cells in runs.values() for hashes in cells.values() for seed in hashes}
    base = configs[study.base]
    stages = [stage for config in configs.values() for stage in config.stages]
    record = StudyRecord(
        name=study.name,
        question=study.question,
        base=study.base,
        metrics=study.metrics,
        compared=study.deciding_metric,
        budget=None if study.budget is None else str(study.budget),
        cells=tuple(study.cells),
        objectives=tuple(dict.fromkeys(key for stage in stages for key in stage.objectives)),
        factors=study.grid.factors,
        levels=study.grid.levels,
        changes={
            cell: {
                field: (base_value, cell_value)
                for field, (base_value, cell_value) in difference_of(base, config).items()
            }
            for cell, config in configs.items()
        },
        seeds=tuple(sorted(seeds)),
        corpora=tuple(runs),
        marks=cell_hashes,
        runs=runs,
        command=command or ("" if earlier is None else earlier.command),
    )
    if record != earlier:
        write_record(folder, record)


def runs_of_unchanged_cells(
    record: StudyRecord, cell_hashes: Mapping[str, str]
) -> dict[str, dict[str, dict[str, str]]]:
    """The record's run hashes by corpus, cell and seed, of cells that have these hashes still."""
    runs: dict[str, dict[str, dict[str, str]]] = {}
    for corpus, cells in record.runs.items():
        unchanged = {
            cell: dict(hashes)
            for cell, hashes in cells.items()
            if cell_hashes.get(cell, "") == record.marks.get(cell)
        }
        if unchanged:
            runs[corpus] = unchanged
    return runs
