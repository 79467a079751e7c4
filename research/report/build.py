"""Makes the `Report` of a study's folder: reads the runs, groups them by protocol, compares cells.

All statistics are computed here, once; the terminal, HTML, CSV, LaTeX and W&B forms only write them
down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from research.errors import InputError
from research.evaluation.metrics import metrics
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import Comparison, Estimate, compare, estimate, holm
from research.evaluation.ties import TiePolicy
from research.report.caveats import (
    Group,
    protocol_notes,
    run_notes,
    study_notes,
    table_notes,
    tie_notes,
    title_of,
)
from research.report.learning_curves import cosines, panels, read_lines
from research.report.records import StudyRun, changes_of, read_run, read_study
from research.report.schema import (
    LEVEL,
    CorpusPart,
    Cost,
    Figure,
    ProtocolTable,
    Report,
    Row,
    RunLine,
    Status,
)
from research.report.slices import slicings
from research.report.tuning import tuning_of
from research.storage.records import CostRecord, StudyRecord
from research.storage.untrusted import printable, without_home

# Resamples of the sign-flip test: for the compared metric, and for the other metrics.
COMPARED_RESAMPLES, OTHER_RESAMPLES = 10_000, 2_000


def report_of(folder: Path, *, figures: bool = True, ties: TiePolicy | None = None) -> Report:
    """The report of a study's folder.

    Without `figures` it lacks what a terminal does not show: slices, learning curves and gradient
    cosines. All figures are computed under the tie policy `ties`; None: that of the finished runs,
    or "expected" where theirs differ. Raises `InputError` when the folder is no study's or has no
    finished run.
    """
    study = read_study(folder)
    runs = {corpus: read_runs(folder, study, corpus) for corpus in study.corpora}
    all_runs = [run for corpus_runs in runs.values() for run in corpus_runs]
    if not any(run.status == "finished" for run in all_runs):
        failures = [run.error for run in all_runs if run.error]
        raise InputError(
            f"{folder} has no finished run among {len(all_runs)}"
            + (f" ({len(failures)} failed, the first with: {failures[0]})" if failures else "")
            + f"; the study's command continues it: {study.command or 'study STUDY'}"
        )
    if ties is None:
        policies = {run.ties for run in all_runs if run.status == "finished"}
        ties = policies.pop() if len(policies) == 1 else "expected"
    parts = [
        corpus_part(study, corpus, corpus_runs, ties=ties, figures=figures)
        for corpus, corpus_runs in runs.items()
    ]
    return Report(
        name=printable(study.name),
        question=printable(study.question),
        base=printable(study.base),
        cells=tuple(map(printable, study.cells)),
        changes=changes_of(study),
        seeds=study.seeds,
        metrics=study.metrics,
        compared=study.compared,
        ties=ties,
        budget=None if study.budget is None else printable(study.budget),
        command=printable(study.command),
        folder=printable(str(without_home(str(folder)))),
        corpora=tuple(parts),
        notes=tuple(study_notes(study)),
        tuning=tuning_of(folder, study.cells),
    )


def read_runs(folder: Path, study: StudyRecord, corpus: str) -> list[StudyRun]:
    """Every run of a corpus that study.json lists; of a counting ranker only one seed's."""
    runs = []
    for cell in study.cells:
        for seed, run_hash in study.seeds_of(corpus, cell).items():
            runs.append(read_run(folder, corpus, cell, seed, run_hash))
            if runs[-1].counts_only:
                break
    return runs


def corpus_part(
    study: StudyRecord, corpus: str, runs: Sequence[StudyRun], *, ties: TiePolicy, figures: bool
) -> CorpusPart:
    """The part of a report about one corpus."""
    finished = [run for run in runs if run.status == "finished"]
    counting = {run.cell for run in runs if run.counts_only}
    groups = group_by_protocol(finished, study.base)
    lines = read_lines(finished if figures else [])
    printable_lines = {(printable(cell), seed): log for (cell, seed), log in lines.items()}
    tables = [
        protocol_table(study, group, counting, corpus, ties=ties, figures=figures)
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
        notes=(*tie_notes(finished, ties), *protocol_notes(finished), *run_notes(runs)),
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
    counting: set[str],
    corpus: str,
    *,
    ties: TiePolicy,
    figures: bool,
) -> ProtocolTable:
    """The table of one protocol: means, comparisons to the base, and slices."""
    cells = [cell for cell in study.cells if cell in group]
    protocol = _first_table(group).protocol
    columns = {
        name: metric_column(study, group, counting, name, corpus, ties=ties)
        for name in study.metrics
    }
    full = protocol.get("candidates") == "full"
    tables = {printable(cell): list(group[cell].values()) for cell in cells}
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
                figures={name: columns[name][cell] for name in study.metrics},
            )
            for cell in cells
        ),
        has_base=study.base in group,
        slicings=slicings(tables, study.compared, ties) if full and figures else (),
        notes=tuple(table_notes(study, group, counting)),
    )


def metric_column(
    study: StudyRecord,
    group: Group,
    counting: set[str],
    metric: str,
    corpus: str,
    *,
    ties: TiePolicy,
) -> dict[str, Figure]:
    """One metric by cell: mean, and the comparison to the base with p corrected over the cells.

    Raises `InputError` when a cell's rank tables cannot be compared with each other or the base's.
    """
    base = group.get(study.base, {})
    cells = [cell for cell in study.cells if cell in group]
    pairs = {
        cell: paired_tables(group[cell], base, counts=bool({cell, study.base} & counting))
        for cell in cells
        if cell != study.base
    }
    pairs = {cell: pair for cell, pair in pairs.items() if all(pair)}
    comparisons: dict[str, Comparison] = {}
    estimates: dict[str, Estimate] = {}
    for cell in cells:
        try:
            estimates[cell] = estimate(list(group[cell].values()), metric, ties=ties)
            if cell in pairs:
                # The level of Holm's first, strictest step, so `smallest` holds for any cell.
                level = LEVEL / len(pairs)
                draws = COMPARED_RESAMPLES if metric == study.compared else OTHER_RESAMPLES
                comparisons[cell] = compare(
                    *pairs[cell], metric, ties=ties, resamples=draws, alpha=level
                )
        except InputError as error:
            raise InputError(f"{corpus}, {cell} and its base {study.base}: {error}") from error
    corrected = dict(zip(comparisons, holm([result.p for result in comparisons.values()])))
    means = [result.mean for result in estimates.values()]
    return {
        cell: Figure(
            result,
            comparisons.get(cell),
            corrected.get(cell),
            place=1 + sum(mean > result.mean for mean in means),
        )
        for cell, result in estimates.items()
    }


def paired_tables(
    tables: Mapping[int, RankTable], base: Mapping[int, RankTable], *, counts: bool
) -> tuple[list[RankTable], list[RankTable]]:
    """The rank tables of a cell and of the base for the seeds that both have; may be empty.

    `counts`: one of the two is a counting ranker, and its one table is compared with every seed of
    the other.
    """
    if counts:
        return list(tables.values()), list(base.values())
    seeds = [seed for seed in tables if seed in base]
    return [tables[seed] for seed in seeds], [base[seed] for seed in seeds]


def cost_of(cell: str, runs: Sequence[StudyRun]) -> Cost:
    """What a cell cost, as means over its finished runs, and which seeds are in which state."""
    finished = [run for run in runs if run.status == "finished"]

    def seeds(status: Status) -> tuple[int, ...]:
        return tuple(run.seed for run in runs if run.status == status)

    def mean(cost: Callable[[CostRecord], float | None]) -> float | None:
        """The mean over finished runs, where a run without a value counts as 0; None: no run."""
        costs = [cost(run.summary.cost) or 0.0 for run in finished if run.summary is not None]
        return sum(costs) / len(costs) if costs else None

    origins = [
        f"{stage} from {cell}" for run in finished for stage, cell in run.origin_cells().items()
    ]
    parameters = mean(lambda cost: cost.parameters)
    return Cost(
        cell=printable(cell),
        done=seeds("finished"),
        failed=seeds("failed"),
        unfinished=seeds("unfinished"),
        missing=seeds("missing"),
        seconds=mean(lambda cost: cost.seconds),
        shared_seconds=mean(lambda cost: cost.shared_seconds) or 0.0,
        items=mean(lambda cost: cost.items),
        parameters=None if parameters is None else int(parameters),
        shared=tuple(map(printable, dict.fromkeys(origins))),
    )


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
