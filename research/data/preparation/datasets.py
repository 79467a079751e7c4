"""The public data sets that `prepare` knows by name, and where their files are looked for.

A data set is a format with options: `prepare` puts these in place of the name, so that a corpus of
a known data set is that of the format, by its fingerprint too. MovieLens is downloaded; files of
the others are placed by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from research.config import non_default_fields
from research.data.preparation.amazon import amazon_datasets
from research.data.preparation.download import checksum
from research.data.preparation.events import Events, Source
from research.data.preparation.known_dataset import KnownDataset
from research.data.preparation.options import PrepareConfig
from research.data.preparation.public_datasets import public_datasets
from research.errors import InputError

DATASETS: Mapping[str, KnownDataset] = {
    dataset.name: dataset for dataset in (*public_datasets(), *amazon_datasets())
}
_DEFAULT_RATING_COLUMN = PrepareConfig(source="csv").rating_column


def folder_of(dataset: KnownDataset, data_root: Path) -> Path:
    """The folder in which the raw files of a data set are looked for."""
    return data_root / "raw" / dataset.name


def raw_file(dataset: KnownDataset, data_root: Path) -> Path | None:
    """The file of a data set that is read, as published or unpacked; None if it is not there.

    Of MovieLens it is the folder of the unpacked archive.
    """
    folder = folder_of(dataset, data_root)
    if dataset.is_downloaded:
        return folder if folder.is_dir() else None
    name = dataset.files[0]
    for candidate in (name, name.removesuffix(".gz")):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def how_to_place(dataset: KnownDataset, data_root: Path) -> str:
    """Sentences that tell a person where to get the file and where to put it."""
    place = folder_of(dataset, data_root) / dataset.files[0]
    address = dataset.archive or dataset.page
    terms = "" if dataset.license is None else f" ({dataset.license})"
    also = "" if address == dataset.page else f"; see {dataset.page}"
    return (
        f"Get {dataset.files[0]} from {address}{also}{terms}. Then place it at {place}, or name it "
        "with --raw FILE."
    )


def with_options_of(
    config: PrepareConfig, data_root: Path, given: Collection[str] = ()
) -> PrepareConfig:
    """The config with the format, the options and the file of the data set that it names.

    Options of `config` that are not at their defaults, and those that `given` names, take the place
    of the data set's. Raises `InputError` if no file is
    named and none is in the data set's folder.
    """
    dataset = DATASETS[config.source]
    fields = {**asdict(config), "source": dataset.options.source}
    changed = non_default_fields(type(config), fields)
    changed |= {name: fields[name] for name in given}
    merged = replace(dataset.options, **changed)
    if merged.min_rating is None and "rating_column" not in changed:
        merged = replace(merged, rating_column=_DEFAULT_RATING_COLUMN)
    if merged.raw is None:
        file = raw_file(dataset, data_root)
        if file is None:
            raise InputError(
                f"{dataset.name}: {dataset.files[0]} is not here, and it is not downloaded "
                f"automatically. {how_to_place(dataset, data_root)}"
            )
        merged = replace(merged, raw=str(file))
    return merged


def with_name_of(source: Source, dataset: KnownDataset) -> Source:
    """The source under the data set's name; it warns where a file is not the published one."""
    return replace(source, name=dataset.name, read=_checked(source, dataset.checksums))


def _checked(source: Source, checksums: Mapping[str, str]) -> Callable[[], Events]:
    def read() -> Events:
        events = source.read()
        warnings = tuple(
            warning
            for path in source.files
            if path.name in checksums and (warning := _warning_of(path, checksums[path.name]))
        )
        return replace(events, warnings=events.warnings + warnings)

    return read


def _warning_of(path: Path, expected: str) -> str:
    algorithm, _, digest = expected.partition(":")
    actual = checksum(path, algorithm)
    if actual == digest:
        return ""
    return (
        f"{path.name}: the {algorithm} is {actual}, but that of the published file is {digest}; "
        "this is another version of it, or it is damaged."
    )
