"""The study that runs are which were begun one by one, and a study with another base.

`run --study NAME --cell CELL` puts runs into NAME/CORPUS/CELL/SEED, as a study does, but no
study.json says what they answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from research.annotations import suggest
from research.errors import InputError
from research.evaluation.metrics import of_ranks
from research.storage.folders import folders_below
from research.storage.records import RunRecord, RunSummary, StudyRecord, read_record

# Metrics of the tables, where every run has them.
METRICS = ("hr@10", "ndcg@10", "mrr")
COMPARED = "ndcg@10"
# Fields of a run's config that its place in the folder says.
PLACED = ("seed", "corpus")


def has_finished_runs(folder: Path) -> bool:
    """Whether a run in FOLDER/CORPUS/CELL/SEED has finished; nothing is read."""
    return any(folder.glob(f"*/*/[0-9]*/{RunSummary.FILE}"))


def study_of_runs(folder: Path) -> StudyRecord | None:
    """The study of the runs in FOLDER/CORPUS/CELL/SEED; None: there is none that has finished.

    Its cells are compared with the first one by name, by metrics that all finished runs have.
    Raises `InputError` when a run's file is damaged.
    """
    if not has_finished_runs(folder):
        return None
    records: dict[str, dict[str, dict[str, RunRecord]]] = {}
    metrics: list[tuple[str, ...]] = []
    for path in folders_below(folder, "run", depth=3):
        places = path.relative_to(folder).parts
        record, summary = read_record(path, RunRecord), read_record(path, RunSummary)
        if len(places) != 3 or record is None or not places[2].isdecimal():
            continue
        corpus, cell, seed = places
        records.setdefault(corpus, {}).setdefault(cell, {})[seed] = record
        if summary is not None and summary.test:
            metrics.append(of_ranks(next(iter(summary.test.values()))))
    if not metrics:
        return None
    common = [name for name in metrics[0] if all(name in names for names in metrics)]
    shown = tuple(name for name in METRICS if name in common) or tuple(common[:3])
    cells = sorted({cell for of_corpus in records.values() for cell in of_corpus})
    configs = {
        cell: dict(flattened(next(iter(of_corpus[cell].values())).config))
        for of_corpus in records.values()
        for cell in of_corpus
    }
    seeds = {int(seed) for cells in records.values() for runs in cells.values() for seed in runs}
    return StudyRecord(
        name=folder.resolve().name,
        question=f"How do {', '.join(cells)} compare?",
        base=cells[0],
        metrics=shown,
        compared=COMPARED if COMPARED in shown else shown[0],
        budget=None,
        cells=tuple(cells),
        changes={cell: differences(configs[cells[0]], config) for cell, config in configs.items()},
        seeds=tuple(sorted(seeds)),
        corpora=tuple(records),
        runs={
            corpus: {
                cell: {seed: record.hash for seed, record in runs.items()}
                for cell, runs in of_corpus.items()
            }
            for corpus, of_corpus in records.items()
        },
        command="",
    )


def flattened(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The plain values of a config as JSON, by dotted field, but for what its place says."""
    parts = value if isinstance(value, Mapping) else None
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        parts = {str(index): part for index, part in enumerate(value)}
    if parts is None:
        yield path, value
        return
    for name, part in parts.items():
        if path or name not in PLACED:
            yield from flattened(part, f"{path}.{name}" if path else str(name))


def differences(
    base: Mapping[str, object], config: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """The base's value and the config's by field, where they differ; a field not there is None."""
    return {
        field: (base.get(field), config.get(field))
        for field in {**base, **config}
        if base.get(field) != config.get(field)
    }


def with_base(study: StudyRecord, base: str) -> StudyRecord:
    """The study with another base cell; `InputError` for a cell that it does not have."""
    if base not in study.cells:
        raise InputError(f"the study has no cell {base!r}{suggest(base, study.cells)}")
    values = {
        field: pair[0] for changes in study.changes.values() for field, pair in changes.items()
    }
    configs = {
        cell: values | {field: pair[1] for field, pair in study.changes.get(cell, {}).items()}
        for cell in study.cells
    }
    return replace(
        study,
        base=base,
        changes={cell: differences(configs[base], config) for cell, config in configs.items()},
    )
