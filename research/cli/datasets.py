"""The verb `datasets`: prints what is known of public data sets, and which of them are here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from research.annotations import did_you_mean
from research.cli import verbs
from research.config import non_default_fields
from research.console import plain_console, wide_console
from research.data.preparation.datasets import DATASETS, folder_of, how_to_place, raw_file
from research.data.preparation.known_dataset import KnownDataset
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import FORMATS
from research.errors import InputError

# So many data sets have names that begin alike that a list of all shows one line for them.
_GROUP = re.compile(r"amazon-[0-9]{4}")
_UNKNOWN = "not known"


def datasets(arguments: verbs.DatasetsCommand) -> int:
    """Print the data sets whose name is, or begins with, the given one; all where none is given.

    Raises `InputError` if there is none.
    """
    data_root = Path(arguments.data_root)
    name = arguments.name or ""
    chosen = [DATASETS[name]] if name in DATASETS else _beginning_with(name)
    if arguments.json:
        print(json.dumps([facts_of(dataset, data_root) for dataset in chosen], indent=2))
    elif len(chosen) == 1:
        _show_one(chosen[0], data_root)
    else:
        _show_list(chosen, data_root, is_grouped=not name)
    return 0


def _beginning_with(name: str) -> list[KnownDataset]:
    chosen = [dataset for dataset in DATASETS.values() if dataset.name.startswith(name)]
    if not chosen:
        raise InputError(
            f"no data set has a name that begins with {name!r}, of those that `sixfold datasets` "
            f"lists{did_you_mean(name, DATASETS)}"
        )
    return chosen


def facts_of(dataset: KnownDataset, data_root: Path) -> dict[str, object]:
    """All that is known of a data set, and where it is, as values for JSON."""
    file = raw_file(dataset, data_root)
    options = non_default_fields(PrepareConfig, asdict(dataset.options))
    return {
        "name": dataset.name,
        "about": dataset.about,
        "size": None if dataset.size is None else asdict(dataset.size),
        "attributes": dataset.attributes,
        "license": dataset.license,
        "page": dataset.page,
        "archive": dataset.archive,
        "files": list(dataset.files),
        "checksums": dict(dataset.checksums),
        "options": {"source": dataset.options.source, **options},
        "is_downloaded": dataset.is_downloaded,
        "raw": None if file is None else str(file),
        "corpora": [str(folder) for folder in corpora_of(dataset, data_root)],
        "place": str(folder_of(dataset, data_root) / dataset.files[0]),
    }


def corpora_of(dataset: KnownDataset, data_root: Path) -> list[Path]:
    """The folders of corpora under the data root that were prepared from a data set."""
    folders = (data_root / "corpora").glob(f"{dataset.name}-*/manifest.json")
    form = re.compile(rf"{re.escape(dataset.name)}-[0-9a-f]{{12}}")
    return sorted(path.parent for path in folders if form.fullmatch(path.parent.name))


def _here(dataset: KnownDataset, data_root: Path) -> str:
    places = ["raw file"] * (raw_file(dataset, data_root) is not None)
    places += ["corpus"] * bool(corpora_of(dataset, data_root))
    return ", ".join(places)


def _counts(dataset: KnownDataset) -> list[str]:
    if dataset.size is None:
        return ["", "", ""]
    about = "~" if dataset.size.is_rounded else ""
    counts = (dataset.size.users, dataset.size.items, dataset.size.events)
    return ["" if count is None else f"{about}{count:,}" for count in counts]


def _show_list(chosen: Iterable[KnownDataset], data_root: Path, *, is_grouped: bool) -> None:
    table = Table()
    for name, justify in (("name", None), ("users", 1), ("items", 1), ("events", 1)):
        table.add_column(name, justify="right" if justify else "left", overflow="fold")
    for name in ("here", "what it is"):
        table.add_column(name, overflow="fold")
    groups: dict[str, list[KnownDataset]] = {}
    for dataset in chosen:
        begin = _GROUP.match(dataset.name)
        groups.setdefault(begin[0] if begin and is_grouped else dataset.name, []).append(dataset)
    for name, members in groups.items():
        if len(members) == 1:
            dataset = members[0]
            table.add_row(name, *_counts(dataset), _here(dataset, data_root), dataset.about)
            continue
        here = sum(bool(_here(dataset, data_root)) for dataset in members)
        about = f"{len(members)} data sets; list them with `sixfold datasets {name}`"
        table.add_row(f"{name}-...", "", "", "", f"{here} of them" if here else "", about)
    console = wide_console()
    console.print(table)
    console.print("`sixfold datasets NAME` tells licence, address, checksum and where to place it")


def _show_one(dataset: KnownDataset, data_root: Path) -> None:
    facts = facts_of(dataset, data_root)
    table = Table(title=dataset.name, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    counts = _counts(dataset)
    rows: dict[str, object] = {"what it is": dataset.about}
    rows |= dict(zip(("users", "items", "events"), (count or _UNKNOWN for count in counts)))
    if dataset.size is not None:
        rows["counted by"] = dataset.size.source
    rows["attributes of items"] = dataset.attributes or "none that is read"
    rows["licence"] = dataset.license or f"{_UNKNOWN}; see the page"
    rows["page"] = dataset.page
    rows["file or archive"] = dataset.archive or _UNKNOWN
    rows["files"] = ", ".join(dataset.files)
    rows["checksums"] = "\n".join(f"{k} {v}" for k, v in dataset.checksums.items()) or _UNKNOWN
    rows["raw file here"] = facts["raw"] or "no"
    rows["corpora here"] = "\n".join(map(str, corpora_of(dataset, data_root))) or "none"
    for name, value in rows.items():
        table.add_row(name, str(value))
    console = plain_console()
    console.print(table)
    if dataset.is_downloaded:
        console.print(f"`sixfold prepare {dataset.name}` downloads it.")
        return
    console.print(how_to_place(dataset, data_root))
    console.print(f"Then: sixfold prepare {dataset.name}")
    if dataset.options.source in FORMATS:
        console.print(f"The same as: sixfold prepare {_as_words(dataset)} --raw FILE")


def _as_words(dataset: KnownDataset) -> str:
    """The options of a data set as words of a command line."""
    words = [dataset.options.source]
    for name, value in non_default_fields(PrepareConfig, asdict(dataset.options)).items():
        # Ratings are read, and so named, only for --min-rating.
        if name not in ("source", "rating_column"):
            shown = "$'\\t'" if value == "\t" else str(value)
            words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)
