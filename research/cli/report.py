"""The verb `report`: prints a study's report, and writes it as HTML, CSV, LaTeX and figures.

It builds the report with `research/report/`, and saves it to W&B when asked to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from research.annotations import did_you_mean
from research.cli import verbs
from research.console import wide_console
from research.errors import InputError
from research.report.build import report_of
from research.report.files import (
    FIGURE_KINDS,
    TABLE_KINDS,
    kind_of,
    write,
    write_figure,
    write_table,
)
from research.report.runs_as_study import has_finished_runs
from research.report.schema import Report
from research.report.terminal import print_report as print_tables
from research.report.terminal import print_slices
from research.storage.folders import what_is_below
from research.storage.records import StudyRecord
from research.storage.tuning_records import TRIALS, TuningRecord
from research.tracking.options import needing_wandb


def report(arguments: verbs.ReportCommand) -> int:
    """Print and write a study's report; returns 1 when saving it to W&B failed, else 0."""
    tracking = arguments.wandb.tracking()
    folder = study_folder(arguments.study, arguments.runs)
    if arguments.figure is not None or arguments.table is not None:
        return write_alone(arguments, folder)
    study_report = report_for(arguments, folder)
    console = wide_console()
    print_tables(study_report, console)
    if arguments.slices:
        print_slices(study_report, console)
    for path in write(study_report, Path(arguments.out) if arguments.out else folder):
        print(path)
    if tracking is None:
        return 0
    with needing_wandb():
        from research.report.publish import publish

    published = publish(study_report, folder, tracking)
    print(published.file)
    if published.link is None and published.problem is None:
        print("not saved to W&B, as it is offline or has no key; with a key, call this again")
    if published.link is not None:
        print(f"anyone with this link can read the report: {published.link}")
        print(f"a view of the runs, for members of the project: {published.workspace}")
    if published.problem is not None:
        print(f"not saved to W&B: {published.problem}; call this again later", file=sys.stderr)
    return 0 if published.problem is None else 1


def report_for(arguments: verbs.ReportCommand, folder: Path) -> Report:
    """The report of a study's folder as the arguments ask for it."""
    return report_of(
        folder,
        ties=arguments.ties,
        part=arguments.part,
        margin=arguments.margin,
        base=arguments.base,
    )


def write_alone(arguments: verbs.ReportCommand, folder: Path) -> int:
    """Write one figure or one table to the file that --out names; returns 0.

    Raises `InputError` without a file, for both at once, and together with --wandb.
    """
    if arguments.figure is not None and arguments.table is not None:
        raise InputError("--figure and --table are both given; call the command once for each")
    if arguments.out is None or arguments.slices or arguments.wandb.wandb is not None:
        raise InputError(
            "--figure and --table write one file and nothing else; give --out FILE (pdf, svg or "
            "png for a figure, tex or md for a table), and leave --slices and --wandb out"
        )
    path = Path(arguments.out)
    # Before the figures are computed, which takes a while.
    kind_of(path, TABLE_KINDS if arguments.figure is None else FIGURE_KINDS)
    study_report = report_for(arguments, folder)
    if arguments.figure is not None:
        write_figure(study_report, arguments.figure, path)
    if arguments.table is not None:
        write_table(study_report, arguments.table, path)
    print(path)
    return 0


def print_report(folder: Path) -> None:
    """Print the tables of a study's folder."""
    print_tables(report_of(folder, figures=False), wide_console())


def study_folder(study: str, runs: str) -> Path:
    """The folder of a study: `study` itself if it is one, else the folder of that name in `runs`.

    Raises `InputError` when neither is a study's folder, and for trials of a tuning.
    """
    for folder in (Path(study), Path(runs) / study):
        winners = tuning_of_trials(folder)
        if winners is not None:
            raise InputError(
                f"{folder} belongs to the trials of the tuning {winners.name}, whose test part is "
                "never ranked (evaluation.test is off), so that no report compares them by it; "
                f"`report {winners}` tells of the trials, by validation, and of the winners' test, "
                "and `show` prints one trial"
            )
        if (folder / StudyRecord.FILE).is_file() or has_finished_runs(folder):
            return folder
    studies = sorted(path.parent.name for path in Path(runs).glob(f"*/{StudyRecord.FILE}"))
    allowed = ", ".join(studies) or "none"
    raise InputError(
        f"{study} is not a study: neither {study} nor {Path(runs) / study} has a "
        f"{StudyRecord.FILE}, which `study` writes, or a finished run in CORPUS/CELL/SEED"
        f"{_instead_of(Path(study), studies)}; "
        f"studies in {runs}: {allowed}"
    )


def tuning_of_trials(folder: Path) -> Path | None:
    """The folder of the winners' study, for a folder at or below that of a tuning's trials."""
    if not folder.exists():
        return None
    for place in (folder, *folder.parents):
        winners = place.with_name(place.name.removesuffix(TRIALS)) if place.name else place
        if winners != place and (winners / TuningRecord.FILE).is_file():
            return winners
    return None


def _instead_of(path: Path, studies: Sequence[str]) -> str:
    """What a user may have meant by a path that is no study, as a clause of a message."""
    if not path.exists():
        return did_you_mean(path.name, studies)
    around = [parent for parent in path.parents if (parent / StudyRecord.FILE).is_file()]
    if around:
        return f"; it lies inside of the study {around[0]}, name that"
    below = sorted(str(file.parent) for file in path.glob(f"*/{StudyRecord.FILE}"))
    if below:
        return f"; it holds the studies {', '.join(below)}, name one of them"
    inside = what_is_below(path)
    return f"; it holds {inside}: `show` prints one run" * bool(inside)
