"""Keep the runs of a study without their weights, and bring them back where they are missing.

`python -m experiments.results.archive keep runs/objectives-beauty` writes
`experiments/results/archive/objectives-beauty.tar.xz`, with the trials where the study is of a
tuning. `python -m experiments.results.archive restore objectives-beauty` brings the runs back into
`runs/`; a folder that is there stays as it is.

What comes back is enough to go on with a study on another machine (`study` and `tune` pass over its
finished runs), for `report`, and to compare a run of one's own with the kept ones, paired by user:
configs, figures, curves, and the rank of each user's held-out item. Whatever needs weights
(`evaluate`, `recommend`, further stages) needs the run done again. A run that has not ended is left
out, and begins anew.
"""

from __future__ import annotations

import argparse
import io
import lzma
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from research.errors import InputError, path_in_errors
from research.storage.atomic import replacing, whole_folder
from research.storage.records import FailureRecord, RunRecord, RunSummary
from research.storage.tuning_records import TRIALS, PrunedRecord
from research.storage.untrusted import is_file_name, read_bytes

FOLDER = Path(__file__).parent / "archive"
# By one of these files a run has ended.
ENDED = (RunSummary.FILE, PrunedRecord.FILE, FailureRecord.FILE)
# Columns that all runs of a study share are found again within the dictionary.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 27}]


def kept_files(folder: Path) -> Iterator[Path]:
    """The files of a study's folder that an archive has, sorted: all but those of runs that have
    not ended, and checkpoints."""
    runs = {path.parent for path in folder.rglob(RunRecord.FILE)}
    begun = {run for run in runs if not any((run / name).is_file() for name in ENDED)}
    for path in sorted(folder.rglob("*")):
        above = path.relative_to(folder).parents
        if (
            path.is_file()
            and not any(part.name == "stages" or part.name.startswith(".") for part in above)
            and not path.name.startswith(".")
            and begun.isdisjoint(path.parents)
        ):
            yield path


def content_of(path: Path) -> bytes:
    """The bytes of a file; a table as arrays without a compression of their own.

    Users, items and counts are the same in all runs of a study, which only shows in plain arrays.
    """
    if path.suffix != ".npz":
        return read_bytes(path)
    plain = io.BytesIO()
    with np.load(path, allow_pickle=False) as stored:
        np.savez(plain, **{name: stored[name] for name in stored.files})
    return plain.getvalue()


def keep(study: Path, folder: Path = FOLDER) -> Path:
    """Write the archive of a study's folder; the same runs give the same bytes.

    Raises `InputError` where no run has ended.
    """
    folders = [study, study.with_name(study.name + TRIALS)]
    files = [path for each in folders if each.is_dir() for path in kept_files(each)]
    if not any(path.name in ENDED for path in files):
        raise InputError(f"{study} has no run that has ended; name the folder of a study")
    archive = folder / f"{study.resolve().name}.tar.xz"
    with (
        replacing(archive) as file,
        lzma.LZMAFile(file, "w", format=lzma.FORMAT_XZ, filters=FILTERS) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            content = content_of(path)
            member = tarfile.TarInfo(path.relative_to(study.parent).as_posix())
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def restore(name: str, runs: Path, folder: Path = FOLDER) -> list[Path]:
    """Bring back the runs of an archive that `runs` lacks; returns their folders, sorted.

    Files of the study itself come back where there is none of the name. Raises `InputError` for an
    archive that is missing or damaged, or has files of anything else.
    """
    archive = folder / f"{name}.tar.xz"
    if not archive.is_file():
        known = sorted(path.name.removesuffix(".tar.xz") for path in folder.glob("*.tar.xz"))
        raise InputError(f"there is no archive {archive}; there are: {', '.join(known) or 'none'}")
    contents = contents_of(archive)
    for place in contents:
        if place.parts[0] not in (name, name + TRIALS) or not all(map(is_file_name, place.parts)):
            raise InputError(f"{archive} has a file {place}, which is of no run of {name}")
    of_runs = {place.parent for place in contents if place.name == RunRecord.FILE}
    missing = sorted(run for run in of_runs if not (runs / run).exists())
    for run in missing:
        with whole_folder(runs / run) as new:
            for place, content in contents.items():
                if place.is_relative_to(run):
                    path = new / place.relative_to(run)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
    for place, content in contents.items():
        if of_runs.isdisjoint(place.parents) and not (runs / place).exists():
            with replacing(runs / place) as file:
                file.write(content)
    return [runs / run for run in missing]


def contents_of(archive: Path) -> dict[PurePosixPath, bytes]:
    """The files of an archive by their places; `InputError` where it is damaged."""
    contents = {}
    try:
        with path_in_errors(archive), tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None:
                    raise InputError(f"{archive} has {member.name}, which is no file")
                contents[PurePosixPath(member.name)] = file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"{archive} is damaged ({error}); take it from the repository again"
        ) from error
    return contents


def main(arguments: Sequence[str], folder: Path = FOLDER) -> None:
    """Keep or restore the studies that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results.archive")
    verbs = parser.add_subparsers(dest="verb", required=True)
    keeping = verbs.add_parser("keep", help="write the archive of a study's folder")
    keeping.add_argument("studies", nargs="+", type=Path, metavar="FOLDER", help="runs/STUDY")
    bringing = verbs.add_parser("restore", help="bring back the runs that are missing")
    bringing.add_argument("studies", nargs="+", metavar="STUDY", help="the name of an archive")
    bringing.add_argument("--runs", type=Path, default=Path("runs"), help="default: runs")
    chosen = parser.parse_args(arguments)
    try:
        for study in chosen.studies:
            if chosen.verb == "keep":
                archive = keep(study, folder)
                print(f"{archive}: {archive.stat().st_size:,} bytes")
            else:
                restored = restore(study, chosen.runs, folder)
                number = f"{len(restored)} run{'s' * (len(restored) != 1)}"
                print(f"{study}: {number} restored into {chosen.runs}")
    except InputError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])
