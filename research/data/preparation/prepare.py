"""From a source to a corpus: filters, time order, dense ids, and the report of what happened.

Nothing is filtered unless asked. Every step works on whole arrays; the slow twin that does the
same with lists stands in the tests.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from research.config import differing, meant
from research.data.corpus import FORMAT_VERSION, Corpus, write_corpus
from research.data.names import Names, canonical_json
from research.data.preparation.download import ARCHIVES, check_pinned, checksum, fetch
from research.data.preparation.events import Events, Source
from research.data.preparation.movielens import atomic_source, movielens_source
from research.data.preparation.readers import (
    ColumnNames,
    csv_source,
    pairs_source,
    parquet_source,
    s3rec_source,
)
from research.errors import InputError

Duplicates = Literal["keep", "first", "last"]
FORMATS = ("movielens", "s3rec", "pairs", "atomic", "csv", "parquet")
# Where the files lie changes neither a corpus nor its fingerprint; what is in them does. An option
# of mere syntax (how columns are separated, whether there is a header) belongs here as well, and
# into the key of a corpus, as it decides what is read.
_APART = ("raw", "attributes")
# Options that enter the fingerprint of every corpus, at their defaults too, as corpora have them
# that were prepared before there were others.
_ALWAYS = (
    *("source", "min_rating", "user_core", "item_core", "duplicates"),
    *("user_column", "item_column", "timestamp_column", "rating_column"),
)


@final
@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which data to prepare, and how."""

    source: str
    """A data set (ml-100k, ml-1m, ...: see `download.ARCHIVES`) or a format (see `FORMATS`)."""
    raw: str | None = None
    """File, archive or folder of raw files; None: fetch it (data sets only)."""
    attributes: str | None = None
    """Attribute file (atomic: .item, else JSON: item -> attributes); None: one beside `raw`."""
    min_rating: float | None = None
    """Interactions rated lower are removed; None: none are."""
    user_core: int = 0
    """Least interactions of a user, at the fixed point of both cores; 0: any."""
    item_core: int = 0
    """Least interactions of an item, at the fixed point of both cores; 0: any."""
    duplicates: Duplicates = "keep"
    """Which interactions of one user with one item stay: all, the oldest or the newest."""
    user_column: str = "user"
    """Column of raw user ids (csv, parquet)."""
    item_column: str = "item"
    """Column of raw item ids (csv, parquet)."""
    timestamp_column: str | None = "timestamp"
    """Column of times (csv, parquet); None: the order of the file is the order."""
    rating_column: str = "rating"
    """Column of ratings (csv, parquet); read for `min_rating` only."""


def prepare(
    config: PrepareConfig, out: Path | str | None = None, *, data_root: Path | str = "data"
) -> Corpus:
    """The corpus of `config` in `out`, or under `data_root/corpora` with a key in its name.

    The key covers every option and the content of every raw file; a corpus with the same key that
    is already there is returned at once.
    """
    _check(config)
    source = source_of(config, Path(data_root))
    files = [
        {"name": path.name, "bytes": path.stat().st_size, "md5": checksum(path, "md5")}
        for path in source.files
    ]
    options = options_of(config)
    keyed = {"format": FORMAT_VERSION, "options": options, "files": files}
    key = hashlib.sha256(canonical_json(keyed).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip(".-") or "corpus"
    folder = Path(out) if out is not None else Path(data_root) / "corpora" / f"{name}-{key[:12]}"
    if (folder / "manifest.json").is_file():
        present = Corpus.open(folder)
        if present.manifest.report.get("key") == key:
            return present
    events = source.read()
    report = {"key": key, "files": files, **events.notes}
    return _write(folder, name, events, config, options, report)


def options_of(config: PrepareConfig) -> dict[str, object]:
    """The options that enter a corpus's fingerprint.

    Those of `_ALWAYS`, and of the others but `_APART` what is not at its default, so that an option
    which is added changes the fingerprint of no corpus that does without it.
    """
    given = asdict(config)
    added = {name: value for name, value in given.items() if name not in (*_APART, *_ALWAYS)}
    return {name: given[name] for name in _ALWAYS} | differing(type(config), added)


def _check(config: PrepareConfig) -> None:
    known = (*ARCHIVES, *FORMATS)
    if config.source not in known:
        names = f"known: {', '.join(known)}{meant(config.source, known)}"
        raise InputError(f"unknown source {config.source!r}; {names}")
    if config.raw is None and config.source in FORMATS:
        raise InputError(f"{config.source} is a format: name the file with --raw.")
    if min(config.user_core, config.item_core) < 0:
        raise InputError(f"user_core {config.user_core}, item_core {config.item_core}: 0 or more.")
    if config.duplicates not in get_args(Duplicates):
        allowed = ", ".join(get_args(Duplicates))
        raise InputError(f"duplicates {config.duplicates!r}; allowed: {allowed}.")
    if config.min_rating is not None and not math.isfinite(config.min_rating):
        raise InputError(f"min_rating {config.min_rating}: must be finite.")


def source_of(config: PrepareConfig, data_root: Path) -> Source:
    """The raw files of a config, found or fetched; nothing is parsed yet."""
    attributes = Path(config.attributes) if config.attributes is not None else None
    if config.source in ARCHIVES or config.source == "movielens":
        if attributes is not None:
            raise InputError(f"{config.source}: brings its attributes; leave --attributes away.")
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
    if config.source == "atomic":
        return atomic_source(raw, attributes)
    columns = ColumnNames(
        user=config.user_column,
        item=config.item_column,
        timestamp=config.timestamp_column,
        rating=config.rating_column if config.min_rating is not None else None,
    )
    if config.source == "csv":
        return csv_source(raw, columns, attributes)
    return parquet_source(raw, columns, attributes)


def _write(
    folder: Path,
    name: str,
    events: Events,
    config: PrepareConfig,
    options: Mapping[str, object],
    report: dict[str, object],
) -> Corpus:
    rows = _kept(events, config, report)
    users, user_codes = _dense(events.users[rows], len(events.user_names))
    items, item_codes = _dense(events.items[rows], len(events.item_names))
    offsets = np.zeros(len(user_codes) + 1, dtype=np.int64)
    np.cumsum(np.bincount(users, minlength=len(user_codes)), out=offsets[1:])
    timestamps = None if events.timestamps is None else events.timestamps[rows]
    if timestamps is not None:
        report |= _ties(timestamps, offsets)
    item_names = [events.item_names[code] for code in item_codes.tolist()]
    attribute_offsets, attribute_ids, attribute_names = _attributes(events, item_names, report)
    titles = None if events.titles is None else [events.titles.get(item, "") for item in item_names]
    return write_corpus(
        folder,
        name=name,
        items=items,
        offsets=offsets,
        timestamps=timestamps,
        attribute_offsets=attribute_offsets,
        attribute_ids=attribute_ids,
        user_names=Names.from_strings([events.user_names[code] for code in user_codes.tolist()]),
        item_names=Names.from_strings(item_names),
        attribute_names=Names.from_strings(attribute_names),
        item_titles=None if titles is None else Names.from_strings(titles),
        options=options,
        report=report,
    )


def _kept(events: Events, config: PrepareConfig, report: dict[str, object]) -> NDArray[np.int64]:
    """The rows that stay: user after user, oldest first, ties in the order of the file."""
    rows = np.arange(len(events.users), dtype=np.int64)
    report["interactions_read"] = len(rows)
    if config.min_rating is not None:
        if events.ratings is None:
            raise InputError(f"min_rating {config.min_rating}: the {config.source} has no ratings.")
        rows = rows[events.ratings >= config.min_rating]
        report["removed_by_min_rating"] = len(events.ratings) - len(rows)
        if not len(rows):
            raise InputError(
                f"min_rating {config.min_rating} removes everything: there were "
                f"{len(events.ratings):,} interactions, rated {events.ratings.min()} to "
                f"{events.ratings.max()}."
            )
    users = events.users[rows]
    keys = (users,) if events.timestamps is None else (events.timestamps[rows], users)
    order: NDArray[np.int64] = np.lexsort(keys)
    rows = rows[order]
    rows = _without_duplicates(events, rows, config.duplicates, report)
    return _core(events, rows, config, report)


def _without_duplicates(
    events: Events, rows: NDArray[np.int64], duplicates: Duplicates, report: dict[str, object]
) -> NDArray[np.int64]:
    pairs = events.users[rows].astype(np.int64) * len(events.item_names) + events.items[rows]
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    differs = ordered[1:] != ordered[:-1]
    repeats = len(rows) - 1 - int(differs.sum())
    report["duplicates"] = {
        "policy": duplicates,
        "repeats_found": repeats,
        "removed": 0 if duplicates == "keep" else repeats,
    }
    if duplicates == "keep" or not repeats:
        return rows
    edge = np.ones(1, dtype=np.bool_)
    last = duplicates == "last"
    staying: NDArray[np.bool_] = np.concatenate((differs, edge) if last else (edge, differs))
    return rows[np.sort(order[staying])]


def _core(
    events: Events, rows: NDArray[np.int64], config: PrepareConfig, report: dict[str, object]
) -> NDArray[np.int64]:
    """The rows of the largest set in which every user and every item has enough of them."""
    if config.user_core <= 1 and config.item_core <= 1:
        return rows
    before = rows
    users, items = events.users[rows], events.items[rows]
    rounds = 0
    while True:
        rounds += 1
        stays = np.bincount(users)[users] >= config.user_core
        stays &= np.bincount(items)[items] >= config.item_core
        if stays.all():
            break
        rows, users, items = rows[stays], users[stays], items[stays]
        if not len(rows):
            raise InputError(
                f"user_core {config.user_core} and item_core {config.item_core} remove "
                f"everything: there were {len(before):,} interactions of "
                f"{len(np.unique(events.users[before])):,} users with "
                f"{len(np.unique(events.items[before])):,} items. Lower them."
            )
    report["removed_by_core"] = {"interactions": len(before) - len(rows), "rounds": rounds}
    return rows


def _dense(codes: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Codes renumbered without gaps in their own order, and the old code of each new one."""
    present = np.zeros(count, dtype=np.bool_)
    present[codes] = True
    renumbered = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return renumbered[codes], np.flatnonzero(present)


def _ties(timestamps: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, object]:
    """How often time does not decide the order; every share is of all, none left out."""
    same = np.zeros(len(timestamps) + 1, dtype=np.bool_)
    same[1:-1] = timestamps[1:] == timestamps[:-1]
    same[offsets] = False
    tied = same[1:] | same[:-1]
    ends = offsets[1:][np.diff(offsets) > 1] - 1
    return {
        # Interactions with the timestamp of another interaction of the same user.
        "tied_interactions": int(tied.sum()) / len(timestamps),
        # Users whose last two interactions have one timestamp.
        "users_with_tied_last_two": int(same[ends].sum()) / (len(offsets) - 1),
    }


def _attributes(
    events: Events, item_names: Sequence[str], report: dict[str, object]
) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
    """Item -> attribute CSR over the attributes that at least one kept item has."""
    if events.attribute_file is not None:
        unknown = len(events.attributes.keys() - set(events.item_names))
        if unknown == len(events.attributes):
            raise InputError(
                f"{events.attribute_file}: none of its {unknown:,} items stands among the "
                f"{len(events.item_names):,} items of the interactions; is it of another data set?"
            )
        report["attribute_file_items"] = len(events.attributes)
        report["attribute_file_unknown_items"] = unknown
    held = [set(events.attributes.get(item, ())) for item in item_names]
    found = set[str]().union(*held)
    # More digits than that are a name: reading them as a number takes quadratic time.
    integers = all(name.isdecimal() and len(name) <= 18 for name in found)
    names = sorted(found, key=(lambda name: (int(name), name)) if integers else None)
    position = {name: number for number, name in enumerate(names)}
    offsets = np.zeros(len(held) + 1, dtype=np.int64)
    np.cumsum([len(attributes) for attributes in held], out=offsets[1:])
    ids = [number for having in held for number in sorted(position[name] for name in having)]
    report["items_without_attributes"] = sum(not attributes for attributes in held)
    return offsets, np.array(ids, dtype=np.int32), names
