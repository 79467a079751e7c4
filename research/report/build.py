"""Makes the `Report` of a study's folder: reads the runs, groups them by protocol, compares cells.

All statistics are computed here, once; the terminal, HTML, CSV, LaTeX and W&B forms only write them
down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from research.errors import InputError
from research.evaluation.equivalence import check_margin
from research.evaluation.metrics import metrics, of_ranks
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import TiePolicy
from research.report.caveats import (
    Group,
    budget_notes,
    floor_notes,
    missed_notes,
    protocol_notes,
    question_notes,
    run_notes,
    study_notes,
    table_notes,
    tie_notes,
    title_of,
)
from research.report.columns import metric_column
from research.report.costs import cost_of
from research.report.effects import factorial_of
from research.report.learning_curves import cosines, panels, read_lines
from research.report.lists import absent_lists_notes, list_tables
from research.report.provenance import facts_of
from research.report.records import StudyRun, changes_of, read_run, read_study
from research.report.runs_as_study import with_base
from research.report.schema import (
    CorpusPart,
    Part,
    ProtocolTable,
    Report,
    Row,
    RunLine,
)
from research.report.slices import slicings
from research.report.tuning import tuning_of
from research.report.validation import (
    gaps_of,
    validation_notes,
    validation_of,
)
from research.storage.records import StudyRecord
from research.storage.untrusted import printable, without_home


def report_of(
    folder: Path,
    *,
    figures: bool = True,
    ties: TiePolicy | None = None,
    part: Part = "test",
    margin: float | None = None,
    base: str | None = None,
) -> Report:
    """The report of a study's folder, on its test or on its validation part.

    Without `figures` it lacks what a terminal does not show: slices, learning curves and gradient
    cosines. All figures are computed under the tie policy `ties`; None: that of the finished runs,
    or "expected" where theirs differ. A report on validation reads no rank table of the test. With
    a `margin` it is also tested whether a cell is no worse than the base by more than that, in the
    compared metric. `base` is the cell that others are compared with; None: the study's. Raises
    `InputError` when the folder is no study's or has no finished run with that part, for a margin
    that is not above 0, and for a base that the study does not have.
    """
    if margin is not None:
        check_margin(margin)
    study = read_study(folder)
    if base is not None:
        study = with_base(study, base)
    runs = {corpus: read_runs(folder, study, corpus, part) for corpus in study.corpora}
    all_runs = [run for corpus_runs in runs.values() for run in corpus_runs]
    if not any(run.status == "finished" for run in all_runs):
        failures = [run.error for run in all_runs if run.error]
        raise InputError(
            f"{folder} has no finished run among {len(all_runs)}"
            + (f" ({len(failures)} failed, the first with: {failures[0]})" if failures else "")
            + f"; the study's command continues it: {study.command or 'study STUDY'}"
        )
    if not any(run.tables for run in all_runs):
        raise InputError(
            f"{folder} has no run with a validation part: the split of its cells leaves none; "
            "leave --part out for the test"
        )
    if ties is None:
        policies = {run.ties for run in all_runs if run.status == "finished"}
        ties = policies.pop() if len(policies) == 1 else "expected"
    parts = [
        corpus_part(
            study, corpus, corpus_runs, ties=ties, figures=figures, part=part, margin=margin
        )
        for corpus, corpus_runs in runs.items()
    ]
    return Report(
        name=printable(study.name),
        question=printable(study.question),
        base=printable(study.base),
        cells=tuple(map(printable, study.cells)),
        changes=changes_of(study),
        seeds=study.seeds,
        metrics=of_ranks(study.metrics),
        compared=study.compared,
        ties=ties,
        budget=None if study.budget is None else printable(study.budget),
        command=printable(study.command),
        folder=printable(str(without_home(str(folder)))),
        corpora=tuple(parts),
        notes=tuple(study_notes(study)),
        part=part,
        margin=margin,
        factors=tuple(map(printable, study.factors)),
        tuning=tuning_of(folder, study.cells),
    )


def read_runs(folder: Path, study: StudyRecord, corpus: str, part: Part) -> list[StudyRun]:
    """Every run of a corpus that study.json lists; of a counting ranker only one seed's."""
    runs = []
    for cell in study.cells:
        for seed, run_hash in study.seeds_of(corpus, cell).items():
            runs.append(read_run(folder, corpus, cell, seed, run_hash, part))
            if runs[-1].counts_only:
                break
    return runs


def corpus_part(
    study: StudyRecord,
    corpus: str,
    runs: Sequence[StudyRun],
    *,
    ties: TiePolicy,
    figures: bool,
    part: Part,
    margin: float | None,
) -> CorpusPart:
    """The part of a report about one corpus."""
    finished = [run for run in runs if run.status == "finished"]
    groups = group_by_protocol(finished, study.base)
    lines = read_lines(finished if figures else [])
    printable_lines = {(printable(cell), seed): log for (cell, seed), log in lines.items()}
    tables = [
        protocol_table(
            study, group, runs, corpus, ties=ties, figures=figures, part=part, margin=margin
        )
        for group in groups
    ]
    by_cell = {cell: [run for run in runs if run.cell == cell] for cell in study.cells}
    return CorpusPart(
        name=printable(corpus),
        tables=tuple(tables),
        panels=panels(printable_lines, study.compared),
        cosines=cosines(printable_lines),
        costs=tuple(cost_of(cell, cell_runs) for cell, cell_runs in by_cell.items()),
        runs=tuple(run_line(study, corpus, run, ties) for run in runs),
        notes=(
            *tie_notes(finished, ties),
            *protocol_notes(finished),
            *(missed_notes(finished) if part == "test" else ()),
            *question_notes(finished, part),
            *(floor_notes(finished) if part == "test" else ()),
            *budget_notes(finished),
            *absent_lists_notes(study, finished, part),
            *run_notes(runs),
        ),
        facts=facts_of(finished) if figures else (),
        lists=list_tables(study, finished, corpus),
    )


def group_by_protocol(runs: Sequence[StudyRun], base: str) -> list[Group]:
    """Rank tables grouped by protocol: full ranking first, and in each kind the base's first."""
    groups: dict[tuple[bool, str], dict[str, dict[int, RankTable]]] = {}
    for run in runs:
        for name, table in run.tables.items():
            key = (name != "full", json.dumps(dict(table.protocol), sort_keys=True))
            groups.setdefault(key, {}).setdefault(run.cell, {})[run.seed] = table
    ordered = sorted(groups, key=lambda key: (key[0], base not in groups[key]))
    return [groups[key] for key in ordered]


def protocol_table(
    study: StudyRecord,
    group: Group,
    runs: Sequence[StudyRun],
    corpus: str,
    *,
    ties: TiePolicy,
    figures: bool,
    part: Part,
    margin: float | None,
) -> ProtocolTable:
    """The table of one protocol: means, comparisons, places by validation, effects, and slices.

    `runs` are all runs of the corpus.
    """
    counting = {run.cell for run in runs if run.counts_only}
    validation = validation_of(runs, group)
    cells = [cell for cell in study.cells if cell in group]
    protocol = _first_table(group).protocol
    columns = {
        name: metric_column(
            study, group, validation, counting, name, corpus, ties=ties, margin=margin
        )
        for name in of_ranks(study.metrics)
    }
    full = protocol.get("candidates") == "full"
    tables = {printable(cell): list(group[cell].values()) for cell in cells}
    on_test = {cell: columns[study.compared][cell].estimate for cell in cells}
    compares_parts = full and figures and part == "test"
    return ProtocolTable(
        candidates=str(protocol.get("candidates")),
        title=title_of(protocol, ties),
        # A rank table has mean ranks and numbers of ties; its figures treat ties as `ties` says.
        protocol={**protocol, "ties": ties},
        users=columns[study.compared][cells[0]].estimate.users,
        rows=tuple(
            Row(
                cell=printable(cell),
                seeds=tuple(group[cell]),
                figures={name: column[cell] for name, column in columns.items()},
                levels=levels_of(study, cell),
            )
            for cell in cells
        ),
        has_base=study.base in group,
        slicings=slicings(tables, study.compared, ties) if full and figures else (),
        notes=(
            *table_notes(study, group, counting),
            *validation_notes(runs, group, validation, part),
        ),
        gaps=gaps_of(validation, on_test, study.compared, ties) if compares_parts else (),
        factorial=factorial_of(study, group, runs, ties=ties, figures=figures),
    )


def levels_of(study: StudyRecord, cell: str) -> dict[str, str]:
    """A cell's level of every factor, by factor; empty where it has none."""
    levels = study.levels.get(cell, {})
    return {printable(factor): printable(level) for factor, level in levels.items()}


def run_line(study: StudyRecord, corpus: str, run: StudyRun, ties: TiePolicy) -> RunLine:
    """A run's entry in the list of all runs."""
    table, name = run.tables.get("full"), study.compared
    return RunLine(
        cell=printable(run.cell),
        seed=run.seed,
        status=run.status,
        folder=printable("/".join((study.name, corpus, run.cell, str(run.seed)))),
        hash=printable(run.hash),
        value=None if table is None else metrics(table, [name], ties)[name],
        error=run.error,
    )


def _first_table(group: Group) -> RankTable:
    return next(iter(next(iter(group.values())).values()))
