"""From a source to a corpus: filters, time order, dense ids, and a report of what was removed.

The verb `prepare` calls `prepare`; a reader outside the project gives its `Source` to
`prepare_source`. Nothing is filtered unless the config asks for it. Every step works on whole
arrays; the tests have a slow twin that does the same with lists.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from research.annotations import did_you_mean
from research.config import non_default_fields
from research.data.corpus import FORMAT_VERSION, Corpus, write_corpus
from research.data.corpus_files import canonical_json
from research.data.lookalikes import lookalike_ids, words_on_lookalikes
from research.data.names import Names
from research.data.preparation.atomic import atomic_source
from research.data.preparation.csv_files import csv_source
from research.data.preparation.datasets import DATASETS, with_name_of, with_options_of
from research.data.preparation.diginetica import diginetica_source
from research.data.preparation.download import ARCHIVES, check_pinned, checksum, fetch
from research.data.preparation.events import Events, Source
from research.data.preparation.filters import filter_rows, renumber, time_warnings
from research.data.preparation.integer_text import (
    pairs_source,
    s3rec_source,
    with_json_attributes,
)
from research.data.preparation.items import ItemDescriptions
from research.data.preparation.items_file import check_items_options, with_items_file
from research.data.preparation.json_lines import json_lines_source
from research.data.preparation.movielens import movielens_source
from research.data.preparation.options import Duplicates, Missing, PrepareConfig
from research.data.preparation.parquet_files import parquet_source
from research.data.preparation.raw_tables import ColumnNames
from research.data.preparation.tables import columns_about_items
from research.data.preparation.times import TimeUnit
from research.data.preparation.vector_files import (
    check_vector_options,
    files_of_vectors,
    vectors_of_items,
)
from research.errors import InputError

FORMATS = ("movielens", "s3rec", "pairs", "atomic", "csv", "parquet", "jsonl")
# Options of mere syntax: they decide what is read, so they enter the key of a corpus, but not its
# fingerprint, which is that of the same events from any file.
SYNTAX = ("delimiter", "header", "quotes", "quoted_newlines")
# The column of ids in an items file is such an option too: it names nothing of an event.
_KEY_ALONE = (*SYNTAX, "items_column")
# Options that do not enter the fingerprint: the content of the files changes a corpus, but not
# where they are.
_NOT_FINGERPRINTED = ("raw", "attributes", "items_file", "item_vectors", *_KEY_ALONE)
# Options that always enter the fingerprint, even at their defaults, so that corpora keep the
# fingerprints they have from before there were other options.
_ALWAYS_FINGERPRINTED = (
    *("source", "min_rating", "user_core", "item_core", "duplicates"),
    *("user_column", "item_column", "timestamp_column", "rating_column"),
)
_COLUMNS = ("user_column", "item_column", "timestamp_column", "rating_column")
_CELLS = ("time_unit", "time_format", "missing", "missing_words")
_ABOUT_ITEMS = ("attribute_columns", "title_column", "list_separator", "numeric_bins")
_ITEMS_FILE = ("items_file", "items_column", *_ABOUT_ITEMS)
# The options that are only for some formats, beside those that filter events.
_USED = {
    "s3rec": ("attributes", *_ITEMS_FILE),
    "pairs": ("attributes", *_ITEMS_FILE),
    "atomic": ("attributes", *_COLUMNS, *_CELLS, *_ABOUT_ITEMS),
    "csv": ("attributes", *_COLUMNS, *_CELLS, *SYNTAX, *_ITEMS_FILE),
    "parquet": ("attributes", *_COLUMNS, *_CELLS, *_ITEMS_FILE),
    "jsonl": ("attributes", *_COLUMNS, *_CELLS, *_ITEMS_FILE),
}
_COLUMN_READERS = {"csv": csv_source, "parquet": parquet_source, "jsonl": json_lines_source}
# An items file is read with these, whatever the format of the events is.
_FOR_ITEMS_FILE = ("missing", "missing_words", *SYNTAX)
_FOR_SOME = {option for options in _USED.values() for option in options}


def prepare(
    config: PrepareConfig,
    out: Path | str | None = None,
    *,
    data_root: Path | str = "data",
    given: Collection[str] = (),
) -> Corpus:
    """The corpus of `config`, prepared unless it is already there.

    Its folder is `out`, which then names the corpus too, or one under `data_root/corpora`, whose
    name is that of the source with the key. The key is a hash of the options and of the name and
    content of every raw file; a corpus in that folder with the same key is returned at once. Raises
    `InputError` for wrong options or raw files, and if the folder holds another corpus.

    Where `config.source` is a data set, its options hold in place of those of `config` that are at
    their defaults, except for the fields named in `given`. The command line names all that were
    typed there; in Python, an option that is set to its default looks like one that was left out.
    """
    data_root = Path(data_root)
    known = dict.fromkeys((*ARCHIVES, *FORMATS, *DATASETS))
    if config.source not in known:
        more = f"{len(known) - len(ARCHIVES) - len(FORMATS)} more that `sixfold datasets` lists"
        names = f"known: {', '.join((*ARCHIVES, *FORMATS))}, and {more}"
        is_path = Path(config.source).exists()
        meant = f"; it is a path: name its format, as in `prepare csv --raw {config.source}`"
        raise InputError(
            f"unknown source {config.source!r}; {names}"
            f"{meant if is_path else did_you_mean(config.source, known)}"
        )
    # MovieLens is downloaded, and has a reader of its own.
    dataset = None if config.source in ARCHIVES else DATASETS.get(config.source)
    if dataset is not None:
        config = with_options_of(config, data_root, given)
    if config.raw is None and config.source in FORMATS:
        raise InputError(f"{config.source} is a format: name the file with --raw.")
    check_options(config)
    source = source_of(config, data_root)
    if dataset is not None:
        source = with_name_of(source, dataset)
    return prepare_source(source, config, out, data_root=data_root)


def prepare_source(
    source: Source,
    config: PrepareConfig,
    out: Path | str | None = None,
    *,
    data_root: Path | str = "data",
) -> Corpus:
    """The corpus of a source, prepared unless it is already there; see `prepare`.

    `config` says what is filtered. Its `source` names the format in the corpus's fingerprint and
    may be any name; its fields on raw files and columns are for the readers, and are not read here.
    A corpus is found again by `config` and the files, not by what the reader does with them: after
    a change of your reader, give another `config.source` or another folder.
    """
    _check(config)
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "md5": checksum(path, "md5")}
        for path in (*source.files, *files_of_vectors(config))
    ]
    options = options_of(config)
    key_content = {"format": FORMAT_VERSION, "options": options, "files": files}
    if source.digest is not None:
        key_content["digest"] = source.digest
    syntax = non_default_fields(type(config), {name: getattr(config, name) for name in _KEY_ALONE})
    if syntax:
        key_content["syntax"] = syntax
    key = hashlib.sha256(canonical_json(key_content).encode()).hexdigest()
    # A folder that was named says what its user calls the corpus.
    called = source.name if out is None else Path(out).resolve().name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", called).strip(".-") or "corpus"
    folder = Path(out) if out is not None else Path(data_root) / "corpora" / f"{name}-{key[:12]}"
    if folder.is_file() or (
        folder.is_dir() and not (folder / "manifest.json").is_file() and any(folder.iterdir())
    ):
        raise InputError(
            f"{folder} exists and is no corpus; choose another folder by --out, or remove it"
        )
    if (folder / "manifest.json").is_file():
        existing = Corpus.open(folder)
        if existing.manifest.report.get("key") == key:
            return existing
    events = source.read()
    events = replace(events, warnings=source.warnings + events.warnings)
    report: dict[str, object] = {"key": key, "files": files, **events.notes}
    return _write(folder, name, events, config, options, report)


def options_of(config: PrepareConfig) -> dict[str, object]:
    """The options that enter the fingerprint of a corpus, by name.

    They are those of `_ALWAYS_FINGERPRINTED`, and those others, except `_NOT_FINGERPRINTED`, that
    are not at their defaults. So a new option changes the fingerprint of no corpus that does not
    use it.
    """
    options = asdict(config)
    further_options = {
        name: value
        for name, value in options.items()
        if name not in (*_NOT_FINGERPRINTED, *_ALWAYS_FINGERPRINTED)
    }
    return {name: options[name] for name in _ALWAYS_FINGERPRINTED} | non_default_fields(
        type(config), further_options
    )


def check_options(config: PrepareConfig) -> None:
    """Raise `InputError` for a wrong option, and for one that the source does not use."""
    _check_used(config)
    _check(config)


def _check_used(config: PrepareConfig) -> None:
    """Raise `InputError` for an option that the source does not use."""
    given = non_default_fields(type(config), asdict(config))
    for option in given:
        if option not in _FOR_SOME or option in _USED.get(config.source, ()):
            continue
        if option in _FOR_ITEMS_FILE and config.items_file is not None:
            continue
        name = option.replace("_", "-")
        formats = ", ".join(format for format, used in _USED.items() if option in used)
        if option == "attributes":
            raise InputError(f"{config.source}: has its own attributes; leave out --attributes.")
        raise InputError(
            f"--{name} is for {formats}; {config.source} does not use it. Leave it out."
        )
    for option in ("time_unit", "time_format"):
        if option in given and config.timestamp_column is None:
            name = option.replace("_", "-")
            raise InputError(f"--{name}: no times are read with --timestamp-column None.")
    if "rating_column" in given and config.min_rating is None:
        raise InputError(
            "--rating-column is read for --min-rating alone; give that, or leave it out."
        )
    check_items_options(config)


def _check(config: PrepareConfig) -> None:
    if min(config.user_core, config.item_core) < 0:
        raise InputError(f"user_core {config.user_core}, item_core {config.item_core}: 0 or more.")
    for option, value, allowed in (
        ("duplicates", config.duplicates, get_args(Duplicates)),
        ("missing", config.missing, get_args(Missing)),
        ("time_unit", config.time_unit, get_args(TimeUnit)),
    ):
        if value not in allowed:
            raise InputError(f"{option} {value!r}; allowed: {', '.join(allowed)}.")
    check_vector_options(config)
    if config.min_rating is not None and not math.isfinite(config.min_rating):
        raise InputError(f"min_rating {config.min_rating}: must be finite.")
    if config.tie_seed is not None and not 0 <= config.tie_seed < 1 << 32:
        raise InputError(f"tie_seed {config.tie_seed}: 0 or more, and below 2^32.")


def source_of(config: PrepareConfig, data_root: Path) -> Source:
    """The raw files of a config, downloaded if `raw` is None; nothing is parsed yet.

    Raises `InputError` if files are missing, cannot be downloaded or have a wrong checksum.
    """
    return with_items_file(_event_source(config, data_root), config)


def _event_source(config: PrepareConfig, data_root: Path) -> Source:
    """The raw files of a config, without its items file."""
    attributes = Path(config.attributes) if config.attributes is not None else None
    if config.source in ARCHIVES or config.source == "movielens":
        if config.raw is None:
            return movielens_source(fetch(config.source, data_root), config.source)
        archive = Path(config.raw)
        if archive.suffix == ".zip" and archive.is_file():
            pinned = ARCHIVES[config.source].md5 if config.source in ARCHIVES else None
            check_pinned(config.source, archive, pinned)
        return movielens_source(archive, config.source)
    assert config.raw is not None
    raw = Path(config.raw)
    if config.source == "s3rec":
        return s3rec_source(raw, attributes)
    if config.source == "pairs":
        return pairs_source(raw, attributes)
    if config.source == "diginetica":
        return diginetica_source(raw)
    if config.source == "atomic":
        return atomic_source(raw, config, attributes)
    read = _COLUMN_READERS[config.source]
    return with_json_attributes(read(raw, config, columns_of(config)), attributes)


def columns_of(config: PrepareConfig) -> ColumnNames:
    """The columns that are read of a table."""
    return ColumnNames(
        user=config.user_column,
        item=config.item_column,
        timestamp=config.timestamp_column,
        rating=config.rating_column if config.min_rating is not None else None,
        about_items=columns_about_items(config) if config.items_file is None else (),
    )


def _write(
    folder: Path,
    name: str,
    events: Events,
    config: PrepareConfig,
    options: Mapping[str, object],
    report: dict[str, object],
) -> Corpus:
    rows = filter_rows(events, config, report)
    users, user_codes = renumber(events.users[rows], len(events.user_names))
    items, item_codes = renumber(events.items[rows], len(events.item_names))
    offsets = np.zeros(len(user_codes) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_codes)), out=offsets[1:])
    timestamps = None if events.timestamps is None else events.timestamps[rows]
    user_names = [events.user_names[code] for code in user_codes.tolist()]
    item_names = [events.item_names[code] for code in item_codes.tolist()]
    vectors = None
    if config.item_vectors is not None:
        vectors = vectors_of_items(item_names, config)
        item_names += vectors.further_items
        report["vectors"] = vectors.notes
    descriptions = ItemDescriptions() if events.describe is None else events.describe(item_names)
    report |= descriptions.notes
    warnings = [*events.warnings, *descriptions.warnings]
    if timestamps is not None:
        exact = None if events.exact_times is None else events.exact_times[rows]
        warnings += time_warnings(items, timestamps, exact, offsets, report)
    warnings += _lookalikes("users", user_names) + _lookalikes("items", item_names)
    if warnings:
        report["warnings"] = warnings
    if descriptions.attributes is not None:
        events = replace(events, attributes=descriptions.attributes)
    attribute_offsets, attribute_ids, attribute_names = _attributes(events, item_names, report)
    titles_by_item = events.titles if descriptions.titles is None else descriptions.titles
    titles = (
        None if titles_by_item is None else [titles_by_item.get(item, "") for item in item_names]
    )
    return write_corpus(
        folder,
        name=name,
        items=items,
        offsets=offsets,
        timestamps=timestamps,
        attribute_offsets=attribute_offsets,
        attribute_ids=attribute_ids,
        user_names=Names.from_strings(user_names),
        item_names=Names.from_strings(item_names),
        attribute_names=Names.from_strings(attribute_names),
        item_titles=None if titles is None else Names.from_strings(titles),
        options=options,
        report=report,
        item_vectors=None if vectors is None else vectors.vectors_VE,
    )


def _lookalikes(kind: str, names: Sequence[str]) -> list[str]:
    groups = lookalike_ids(names)
    if not groups:
        return []
    words = words_on_lookalikes(kind, names, groups, examples=1)
    return [f"{words}; each counts by itself."]


def _attributes(
    events: Events, item_names: Sequence[str], report: dict[str, object]
) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
    """The attributes of the items as CSR (int64 [V + 1] offsets, int32 [M] ids), and their names.

    Only attributes that at least one of `item_names` has get an id. Counts go into `report`. Raises
    `InputError` if the attribute file describes none of the source's items.
    """
    if events.attribute_file is not None:
        # Those of the interactions, filtered out or not, and those that vectors bring alone.
        known = {*events.item_names, *item_names}
        unknown = len(events.attributes.keys() - known)
        if unknown == len(events.attributes):
            raise InputError(
                f"{events.attribute_file}: none of its {unknown:,} items is among the "
                f"{len(known):,} items of the interactions; is it of another data set?"
            )
        report["attribute_file_items"] = len(events.attributes)
        report["attribute_file_unknown_items"] = unknown
    attributes_by_item = [set(events.attributes.get(item, ())) for item in item_names]
    used = set[str]().union(*attributes_by_item)
    # Names that are all numbers are sorted as numbers. A longer run of digits counts as text, as
    # the time to read it as a number grows with the square of its length.
    integers = all(name.isdecimal() and len(name) <= 18 for name in used)
    names = sorted(used, key=(lambda name: (int(name), name)) if integers else None)
    position = {name: number for number, name in enumerate(names)}
    offsets = np.zeros(len(attributes_by_item) + 1, dtype=np.int64)
    np.cumsum([len(attributes) for attributes in attributes_by_item], out=offsets[1:])
    ids = [
        number
        for item_attributes in attributes_by_item
        for number in sorted(position[name] for name in item_attributes)
    ]
    report["items_without_attributes"] = sum(not attributes for attributes in attributes_by_item)
    return offsets, np.array(ids, dtype=np.int32), names
