"""Keep the runs of a study without their weights, and bring them back where they are missing.

`python -m experiments.results.archive keep runs/objectives-beauty` writes what is new since the
last time into `experiments/results/archive/objectives-beauty/`, a numbered file each time: of every
run that has finished, and of a tuning's trials, the config, the figures, the curves, and the rank
of each user's held-out item. `python -m experiments.results.archive restore objectives-beauty`
brings back into `runs/` what is not there.

With restored runs a study or tuning goes on, on this machine or another: it passes over what has
finished, and begins anew what had not. They can be reported, and a reader can compare runs of their
own with them, paired by user. What needs weights (`evaluate`, `recommend`, a cell that starts from
a run) needs the run done again: remove its `summary.json`, and give the study's command once more.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from research.errors import InputError, path_in_errors
from research.evaluation.table_file import reading_table
from research.storage.atomic import replacing, whole_folder
from research.storage.records import RunRecord, RunSummary, StudyRecord
from research.storage.tuning_records import TRIALS, PrunedRecord, TuningRecord
from research.storage.untrusted import is_file_name
from research.studies.optuna_studies import JOURNAL

FOLDER = Path(__file__).parent / "archive"
# What is kept of a study and of its trials. The journal stands first, as a trial that ends while
# the others are read may be newer than the journal, but not older.
OF_STUDY = (JOURNAL, StudyRecord.FILE, TuningRecord.FILE)
# By one of these files a run has finished, or a trial was ended early.
ENDED = (RunSummary.FILE, PrunedRecord.FILE)


def kept_files(study: Path) -> Iterator[Path]:
    """What an archive has of a study's folder, its own files first, then run after run."""
    yield from (study / name for name in OF_STUDY if (study / name).is_file())
    for record in sorted(study.glob(f"*/*/*/{RunRecord.FILE}")):
        run = record.parent
        if any((run / name).is_file() for name in ENDED):
            names = (RunRecord.FILE, "metrics.jsonl", *ENDED)
            yield from (run / name for name in names if (run / name).is_file())
            yield from sorted(run.glob("ranks/*.npz"))


def content_of(path: Path) -> bytes:
    """The bytes of a file; of a table those of its arrays without a compression of their own.

    Users, items and counts are the same in all runs of a study, which only shows in plain arrays.
    """
    if path.suffix != ".npz":
        return path.read_bytes()
    plain = io.BytesIO()
    # The stubs take a name of an array for an option.
    save: Callable[..., None] = np.savez
    with reading_table(path, "rank table") as stored:
        save(plain, **{name: stored[name] for name in stored.files})
    return plain.getvalue()


def keep(study: Path, folder: Path = FOLDER) -> Path | None:
    """Write what a study's archive lacks into a new part of it; None: it lacks nothing.

    Raises `InputError` where no run has ended.
    """
    study = Path(os.path.abspath(study))
    files = [*kept_files(study.with_name(study.name + TRIALS)), *kept_files(study)]
    if not any(path.name in ENDED for path in files):
        raise InputError(
            f"{study} has no run that has finished; name the folder of a study, runs/STUDY"
        )
    parts = parts_of(study.name, folder)
    kept = contents_of(parts)
    new = {
        path: content
        for path, content in (
            (PurePosixPath(file.relative_to(study.parent)), content_of(file)) for file in files
        )
        if kept.get(path) != content
    }
    if not new:
        return None
    part = folder / study.name / f"{len(parts) + 1:02}.tar.xz"
    with replacing(part) as packed, tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for path, content in new.items():
            member = tarfile.TarInfo(str(path))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return part


def restore(name: str, runs: Path, folder: Path = FOLDER) -> tuple[list[Path], list[Path]]:
    """(restored, left): bring back the runs of an archive that the folder `runs` lacks.

    Both are folders of runs, sorted; one that is there and not empty is left as it is. The study's
    own files come back where there is none of the name. Raises `InputError` for an archive that is
    missing, damaged or has other files, and for trials that another journal would not know.
    """
    archive, parts = folder / name, parts_of(name, folder)
    if not parts:
        known = sorted({part.parent.name for part in folder.glob("*/*.tar.xz")})
        raise InputError(f"there is no archive {archive}; there are: {', '.join(known) or 'none'}")
    contents = contents_of(parts)
    of_runs = sorted({path.parent for path in contents if path.name == RunRecord.FILE})
    for path in contents:
        of_study = len(path.parts) == 2 and path.name in OF_STUDY
        if (
            not all(map(is_file_name, path.parts))
            or path.parts[0] not in (name, name + TRIALS)
            or not (of_study or any(path.is_relative_to(run) for run in of_runs))
        ):
            raise InputError(f"{archive} has a file {path}, which is of no run of {name}")
    left = [run for run in of_runs if (runs / run).exists() and any((runs / run).iterdir())]
    restored = [run for run in of_runs if run not in left]
    journal = PurePosixPath(name + TRIALS, JOURNAL)
    is_other = (runs / journal).is_file() and (runs / journal).read_bytes() != contents.get(journal)
    if is_other and any(run.parts[0] == name + TRIALS for run in restored):
        raise InputError(
            f"{runs / journal} is of another course of this tuning than {archive}; name another "
            "folder by --runs"
        )
    for path, content in contents.items():
        if path.parent not in of_runs and path.name in OF_STUDY and not (runs / path).exists():
            with replacing(runs / path) as file:
                file.write(content)
    for run in restored:
        with whole_folder(runs / run) as new:
            for path, content in contents.items():
                if path.is_relative_to(run):
                    (new / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
                    (new / path.relative_to(run)).write_bytes(content)
    return [runs / run for run in restored], [runs / run for run in left]


def parts_of(name: str, folder: Path = FOLDER) -> list[Path]:
    """The parts of a study's archive, in the order in which they were written; empty: none is."""
    return sorted((folder / name).glob("*.tar.xz"))


def contents_of(parts: Sequence[Path]) -> dict[PurePosixPath, bytes]:
    """The files of an archive by their paths, each as the last part has it that has it.

    `InputError` names a part that is damaged.
    """
    contents = {}
    for part in parts:
        try:
            with path_in_errors(part):
                # Checked to its end, which a reader of the members alone would not come to.
                unpacked = lzma.decompress(part.read_bytes())
            with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise InputError(f"{part} has {member.name!r}, which is not a file")
                    contents[PurePosixPath(member.name)] = file.read()
        except (tarfile.TarError, lzma.LZMAError) as error:
            raise InputError(
                f"{part} is damaged ({error}); take it from the repository again"
            ) from error
    return contents


def main(arguments: Sequence[str], folder: Path = FOLDER) -> None:
    """Keep or restore the studies that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results.archive")
    verbs = parser.add_subparsers(dest="verb", required=True)
    keeping = verbs.add_parser("keep", help="write what is new in a study's folder")
    keeping.add_argument("studies", nargs="+", type=Path, metavar="FOLDER", help="runs/STUDY")
    restoring = verbs.add_parser("restore", help="bring back the runs that are missing")
    restoring.add_argument("studies", nargs="+", metavar="STUDY", help="the name of an archive")
    restoring.add_argument("--runs", type=Path, default=Path("runs"), help="default: runs")
    chosen = parser.parse_args(arguments)
    try:
        for study in chosen.studies:
            if chosen.verb == "keep":
                part = keep(study, folder)
                wrote = "nothing new" if part is None else f"{part}, {part.stat().st_size:,} bytes"
                print(f"{study}: {wrote}")
            else:
                restored, left = restore(study, chosen.runs, folder)
                print(
                    f"{study}: runs restored into {chosen.runs}: {len(restored)}; there already, "
                    f"and left as they are: {len(left)}"
                )
    except InputError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
