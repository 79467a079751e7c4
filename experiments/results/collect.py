"""Keep what finished runs have shown: `python -m experiments.results.collect runs/leaderboard ...`

Each folder is a run's, or holds runs as STUDY/DATASET/CELL/SEED anywhere below it. A run that has
been collected before is written anew; one with another run hash under the same names replaces it,
which is said. Runs that have not finished, and trials whose test part is never ranked, are named
and left out. Of a whole study, a folder with its study.json, it is also kept how the cells compare
with the base and with each cell of `--against CELL --against CELL`, now or in an earlier call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.results.comparisons import comparisons_of, keep, kept_comparisons
from experiments.results.lines import FOLDER, ResultLine, Value, file_of, read_lines, write_lines
from research.annotations import suggest
from research.cli.report import tuning_of_trials
from research.config import from_json, to_json
from research.errors import InputError
from research.evaluation.metrics import of_ranks, per_user
from research.evaluation.rank_table import RankTable
from research.evaluation.variance_components import spread_of
from research.report.records import read_study, read_tables
from research.runs.config import RunConfig
from research.runs.load import records_of
from research.storage.records import Provenance, RunRecord, RunSummary, StudyRecord


def line_of(run: Path) -> tuple[ResultLine, RankTable] | None:
    """The line of a finished run's folder, and its ranks; None: its test part is never ranked.

    Raises `InputError` where the run has not finished, where its folder is not named
    STUDY/DATASET/CELL/SEED, where it does not say when and by which command it was begun, and for
    a config of classes outside this project.
    """
    record, summary = records_of(run)
    if not summary.test:
        return None
    study, dataset, cell, seed = run.resolve().parts[-4:]
    if not seed.isdigit():
        raise InputError(
            f"{run} is not named STUDY/DATASET/CELL/SEED, of which the line's names are taken; "
            "give folders as `study` and `run --study NAME --cell CELL` name them"
        )
    begun = next(iter(record.provenance), Provenance())
    if begun.begun is None or begun.command is None or begun.machine is None:
        raise InputError(f"{run}/config.json does not say when and how the run was begun")
    try:
        config = from_json(record.config, RunConfig)
    except InputError as refused:
        raise InputError(f"{run}/config.json cannot be kept: {refused}") from refused
    table = read_tables(run)["full"]
    metrics = {}
    for name in of_ranks(tuple(summary.test["full"])):
        values = per_user(table, name, record.ties)[1]
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        metrics[name] = Value(mean=float(values.mean()), standard_error=error)
    line = ResultLine(
        dataset=dataset,
        cell=cell,
        seed=int(seed),
        study=study,
        protocol=table.protocol,
        ties=record.ties,
        fingerprint=record.fingerprint,
        hash=record.hash,
        metrics=metrics,
        validation=dict(summary.val),
        users=summary.users.evaluated,
        seconds=summary.cost.seconds,
        tokens=summary.cost.items,
        parameters=summary.cost.parameters,
        machine=begun.machine,
        commit=begun.commit,
        clean=begun.clean,
        date=begun.begun[:10],
        command=begun.command,
        config=to_json(config, short=True),
    )
    return line, table


def with_reactions(lines: Sequence[ResultLine], tables: Sequence[RankTable]) -> list[ResultLine]:
    """The lines of one cell, one a seed, with what is users' own reaction to a seed.

    They have none where there is one line, or where seeds ask after different users.
    """
    if len(lines) == 1:
        return list(lines)
    reactions = {}
    for name in lines[0].metrics:
        users, values = zip(*(per_user(table, name, lines[0].ties) for table in tables))
        if any(not np.array_equal(users[0], other) for other in users):
            return list(lines)
        reactions[name] = spread_of(np.stack(values)).within * len(lines)
    return [
        replace(
            line,
            metrics={
                name: replace(value, reaction=reactions[name])
                for name, value in line.metrics.items()
            },
        )
        for line in lines
    ]


def runs_below(folder: Path) -> list[Path]:
    """The run folders at or below `folder`, sorted; `InputError` if there is none."""
    runs = sorted(path.parent for path in folder.rglob(RunRecord.FILE))
    if not runs:
        raise InputError(f"{folder} has no run: no {RunRecord.FILE} at it or below it")
    return runs


def collect(runs: Iterable[Path], folder: Path = FOLDER) -> list[str]:
    """Write the lines of finished runs into `folder`; return what to say of them, a line each."""
    messages, cells = [], dict[tuple[str, str, str], list[tuple[ResultLine, RankTable]]]()
    for run in runs:
        if not (run / RunSummary.FILE).is_file():
            messages.append(f"left out, as it has not finished: {run}")
            continue
        found = line_of(run)
        if found is None:
            messages.append(f"left out, as its test part is never ranked: {run}")
            continue
        line = found[0]
        cells.setdefault((line.dataset, line.study, line.cell), []).append(found)
    new = dict[str, list[ResultLine]]()
    for (dataset, _, _), of_cell in cells.items():
        new.setdefault(dataset, []).extend(with_reactions(*zip(*of_cell)))
    for dataset, lines in new.items():
        path = file_of(dataset, folder)
        kept = {line.key: line for line in (read_lines(path) if path.is_file() else [])}
        for line in lines:
            before = kept.get(line.key)
            if before is not None and before.hash != line.hash:
                names = f"{dataset}, {line.cell}, seed {line.seed}"
                messages.append(f"replaced a line of another run hash: {names}")
            kept[line.key] = line
        write_lines(kept.values(), path)
        messages.append(f"{path}: {len(lines)} of its {len(kept)} lines written")
    return messages


def collect_comparisons(
    study: Path, against: Sequence[str] = (), folder: Path = FOLDER
) -> list[str]:
    """Write into `folder` how the cells of a study's folder compare; return what to say of it.

    They are compared with the study's base, with the cells of `against`, and with those that
    `folder` has comparisons with. Raises `InputError` for a cell of `against` that the study lacks.
    """
    record = read_study(study)
    for cell in against:
        if cell not in record.cells:
            raise InputError(
                f"--against {cell}: {study} has no such cell{suggest(cell, record.cells)}"
            )
    kept = [
        base
        for comparisons in kept_comparisons(folder).values()
        if comparisons.study == study.resolve().name
        for base in comparisons.against
        if base in record.cells
    ]
    try:
        made = comparisons_of(study, list(dict.fromkeys([*kept, *against])))
    except InputError as refused:
        return [f"{study}: nothing is compared: {refused}"]
    keep(made, folder)
    messages = []
    for comparisons in made:
        name = f"{comparisons.dataset}, {comparisons.study}"
        messages += [
            f"{name}: {len(cells)} of {len(record.cells) - 1} other cells compared with {base}"
            for base, cells in comparisons.against.items()
        ]
        if record.factors:
            messages.append(f"{name}: {len(comparisons.effects)} effects of its factors")
    return messages


def main(arguments: Sequence[str], folder: Path = FOLDER) -> None:
    """Collect into `folder` the runs of the folders that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.results.collect", description="Keep what finished runs show."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of runs")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="CELL",
        help="compare the other cells with this one too; may be given again",
    )
    parsed = parser.parse_args(arguments)
    try:
        runs = [run for below in parsed.folders for run in runs_below(below)]
        print("\n".join(collect(runs, folder)))
        for study in studies_below(parsed.folders):
            print("\n".join(collect_comparisons(study, parsed.against, folder)))
    except InputError as error:
        raise SystemExit(str(error)) from error


def studies_below(folders: Iterable[Path]) -> list[Path]:
    """The folders of studies at or below `folders`, sorted, but for those of a tuning's trials."""
    studies = {path.parent for folder in folders for path in folder.rglob(StudyRecord.FILE)}
    return sorted(study for study in studies if tuning_of_trials(study) is None)


if __name__ == "__main__":
    main(sys.argv[1:])
