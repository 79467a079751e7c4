"""The corpus on disk: memory-mapped CSR arrays, names and a manifest with a fingerprint.

`prepare` writes it once; windows, loader, model and evaluation read it. To open a corpus costs the
same for a thousand interactions as for a billion. A corpus is untrusted input: nothing in it is
unpickled or executed, and no path is taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from research.config import record_from_json, record_to_json
from research.data.corpus_files import (
    Arrays,
    canonical_json,
    check_ascending,
    check_ends,
    check_finite,
    check_names,
    check_offsets,
    check_range,
    digest_of,
    map_array,
    write_files,
)
from research.data.corpus_text import html_of, text_of
from research.data.names import Names
from research.errors import InputError
from research.storage.atomic import whole_folder
from research.storage.json_files import read_json
from research.storage.untrusted import file_inside

FORMAT_VERSION = 1

_DTYPES = {
    "items": "<i4",
    "offsets": "<i8",
    "timestamps": "<i8",
    "attribute_offsets": "<i8",
    "attribute_ids": "<i4",
}
_NAMES = ("user_names", "item_names", "attribute_names", "item_titles")
_ARRAYS_BY_COUNT = {
    "users": ("offsets", "user_names_offsets"),
    "items": ("attribute_offsets", "item_names_offsets", "item_titles_offsets"),
    "attributes": ("attribute_names_offsets",),
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of manifest.json, which describes a corpus beside its arrays."""

    format: int
    """Version of the file format."""
    name: str
    """Name of the data set."""
    fingerprint: str
    """SHA-256 (hex) over every array and over `options`."""
    counts: Mapping[str, int]
    """Numbers of users, items, attributes and interactions, by these names."""
    has_timestamps: bool
    """Whether the corpus has timestamps."""
    has_titles: bool
    """Whether the corpus has item titles."""
    options: Mapping[str, object]
    """The preparation options that enter the fingerprint."""
    report: Mapping[str, object]
    """What preparation read, and what it removed: files and checksums, counts, shares of ties."""
    has_vectors: bool = False
    """Whether the corpus has a vector of each item."""
    events: str | None = None
    """SHA-256 (hex) of users and their items, as `Corpus.events_digest`; None: the corpus was
    prepared by a version that did not write it."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Users' histories and items' attributes; ids are dense from 0 and there is no padding id."""

    folder: Path
    """The folder that the arrays are in."""
    items: NDArray[np.int32]
    """[N]: the item of every interaction, user after user, oldest first."""
    offsets: NDArray[np.int64]
    """[U + 1]: the history of user u is `items[offsets[u]:offsets[u + 1]]`."""
    timestamps: NDArray[np.int64] | None
    """[N]: the time of every interaction, in whole seconds since 1970 if this version prepared the
    corpus; None: the source has no times, and interactions are in the order of the file."""
    attribute_offsets: NDArray[np.int64]
    """[V + 1]: item v has `attribute_ids[attribute_offsets[v]:attribute_offsets[v + 1]]`."""
    attribute_ids: NDArray[np.int32]
    """[M]: attribute ids, sorted and unique within each item."""
    user_names: Names
    """Raw user id of each user."""
    item_names: Names
    """Raw item id of each item."""
    attribute_names: Names
    """Name of each attribute."""
    item_titles: Names | None
    """Title of each item, empty for an item without one; None: the source has no titles."""
    manifest: Manifest
    """Name, counts, fingerprint, options and report."""
    item_vectors: NDArray[np.float32] | None = None
    """[V, E]: a vector of each item's content, such as an embedding of its title; None: the corpus
    was prepared without. An item may have a vector and no interaction."""

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """V, the number of items."""
        return len(self.attribute_offsets) - 1

    @property
    def num_attributes(self) -> int:
        """A, the number of attributes."""
        return len(self.attribute_names)

    @property
    def num_interactions(self) -> int:
        """N, the number of interactions of all users."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over every array and over the preparation options in the manifest."""
        return self.manifest.fingerprint

    @cached_property
    def events_digest(self) -> str:
        """SHA-256 (hex) over users' raw ids, offsets and items.

        Corpora that differ in vectors, titles, attributes or items without events have the same.
        The manifest has it, unless an earlier version wrote it: then all events are read.
        """
        return self.manifest.events or _events_digest(self.user_names, self.offsets, self.items)

    @property
    def vector_encoder(self) -> str | None:
        """Name of the encoder that made `item_vectors`; None: preparation was told none."""
        name = self.manifest.options.get("vector_encoder")
        return None if name is None else str(name)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.manifest.name

    @classmethod
    def open(cls, folder: Path | str) -> Corpus:
        """The corpus in `folder`, whose arrays are mapped and not read.

        Raises `InputError`, which names the file, if one is missing, damaged or of a wrong size or
        type.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        return _assemble(folder, _map_arrays(folder, manifest), manifest)

    def verify(self) -> None:
        """Read all data once and check its order, id ranges, names and fingerprint.

        Raises `InputError`, which names the file, if one is wrong, or the folder if the fingerprint
        is.
        """
        folder = self.folder
        check_offsets(folder / "offsets.npy", self.offsets)
        check_offsets(folder / "attribute_offsets.npy", self.attribute_offsets)
        check_range(folder / "items.npy", self.items, self.num_items)
        path = folder / "attribute_ids.npy"
        check_range(path, self.attribute_ids, self.num_attributes)
        check_ascending(path, self.attribute_ids, self.attribute_offsets, strictly=True)
        if self.timestamps is not None:
            path = folder / "timestamps.npy"
            check_ascending(path, self.timestamps, self.offsets, strictly=False)
        all_names = (self.user_names, self.item_names, self.attribute_names, self.item_titles)
        for name, names in zip(_NAMES, all_names, strict=True):
            if names is not None:
                check_offsets(folder / f"{name}_offsets.npy", names.offsets)
                unique = name != "item_titles"
                check_names(folder / f"{name}_blob.npy", names, unique=unique)
        if self.item_vectors is not None:
            check_finite(folder / "item_vectors.npy", self.item_vectors)
        fingerprint = fingerprint_of(_map_arrays(folder, self.manifest), self.manifest.options)
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{folder}: the arrays and options give the fingerprint {fingerprint[:12]}, but "
                f"manifest.json says {self.fingerprint[:12]}; the corpus was changed. Prepare it "
                "again."
            )

    def __repr__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        return html_of(self)

    def __reduce__(self) -> tuple[object, ...]:
        # Another process that is sent a corpus maps the files again and receives no copy of them.
        return (Corpus.open, (self.folder,))


def fingerprint_of(arrays: Arrays, options: Mapping[str, object]) -> str:
    """SHA-256 (hex) over the format version, the options and each array.

    Options, and the name, type and shape of each array, enter as canonical JSON; then come the
    bytes of the arrays.
    """
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    head = {"format": FORMAT_VERSION, "options": options, "arrays": shapes}
    return digest_of(canonical_json(head), [arrays[name] for name in sorted(arrays)])


def _events_digest(user_names: Names, offsets: NDArray[np.int64], items: NDArray[np.int32]) -> str:
    arrays: list[NDArray[np.generic]] = [user_names.blob, user_names.offsets, offsets, items]
    return digest_of(canonical_json([len(array) for array in arrays]), arrays)


def write_corpus(
    folder: Path | str,
    *,
    name: str,
    items: NDArray[np.int32],
    offsets: NDArray[np.int64],
    timestamps: NDArray[np.int64] | None,
    attribute_offsets: NDArray[np.int64],
    attribute_ids: NDArray[np.int32],
    user_names: Names,
    item_names: Names,
    attribute_names: Names,
    item_titles: Names | None,
    options: Mapping[str, object],
    report: Mapping[str, object],
    item_vectors: NDArray[np.float32] | None = None,
) -> Corpus:
    """Write a corpus into `folder`, which appears whole or not at all, and open it.

    A corpus that is already there is kept if its fingerprint is the same, as another process may
    have written it meanwhile. Raises `InputError` if its fingerprint differs or it cannot be
    opened.
    """
    folder = Path(folder)
    arrays: Arrays = {
        "items": items,
        "offsets": offsets,
        "attribute_offsets": attribute_offsets,
        "attribute_ids": attribute_ids,
    }
    if timestamps is not None:
        arrays["timestamps"] = timestamps
    if item_vectors is not None:
        arrays["item_vectors"] = item_vectors
    for kind, names in zip(
        _NAMES, (user_names, item_names, attribute_names, item_titles), strict=True
    ):
        if names is not None:
            arrays |= {f"{kind}_blob": names.blob, f"{kind}_offsets": names.offsets}
    manifest = Manifest(
        format=FORMAT_VERSION,
        name=name,
        fingerprint=fingerprint_of(arrays, options),
        counts=_counts(arrays),
        has_timestamps=timestamps is not None,
        has_titles=item_titles is not None,
        options=options,
        report=report,
        has_vectors=item_vectors is not None,
        events=_events_digest(user_names, offsets, items),
    )
    _assemble(folder, arrays, manifest)
    layout = _layout(manifest)
    assert {kind: array.dtype.str for kind, array in arrays.items()} == layout, layout
    with whole_folder(folder) as partial:
        write_files(partial, arrays, record_to_json(manifest))
    corpus = Corpus.open(folder)
    if corpus.fingerprint != manifest.fingerprint:
        raise InputError(
            f"{folder}: holds another corpus ({corpus.name}, fingerprint "
            f"{corpus.fingerprint[:12]}). Nothing is overwritten: remove it or use another one."
        )
    return corpus


def _counts(arrays: Arrays) -> dict[str, int]:
    rows = {kind: len(arrays[names[0]]) - 1 for kind, names in _ARRAYS_BY_COUNT.items()}
    return rows | {"interactions": len(arrays["items"])}


def _read_manifest(folder: Path) -> Manifest:
    path = file_inside(folder, "manifest.json")
    if not path.is_file():
        raise InputError(f"{folder} is not a corpus: there is no {path}. `prepare` makes one.")
    remedy = "prepare the corpus again"
    stored = read_json(path, remedy)
    try:
        manifest = record_from_json(stored, Manifest, more=True)
    except InputError as error:
        raise InputError(f"{path}: {error}; {remedy}") from error
    if manifest.format != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {manifest.format}; this program reads {FORMAT_VERSION}. "
            "Prepare the corpus again."
        )
    return manifest


def _layout(manifest: Manifest) -> dict[str, str]:
    layout = dict(_DTYPES)
    if not manifest.has_timestamps:
        del layout["timestamps"]
    if manifest.has_vectors:
        layout["item_vectors"] = "<f4"
    for name in _NAMES[: 4 if manifest.has_titles else 3]:
        layout |= {f"{name}_blob": "|u1", f"{name}_offsets": "<i8"}
    return layout


def _map_arrays(folder: Path, manifest: Manifest) -> Arrays:
    layout = _layout(manifest)
    return {
        name: map_array(
            file_inside(folder, f"{name}.npy"), dtype, dimensions=1 + (name == "item_vectors")
        )
        for name, dtype in layout.items()
    }


def _assemble(folder: Path, arrays: Arrays, manifest: Manifest) -> Corpus:
    """The corpus of these arrays; `InputError` if their sizes do not fit together or the counts."""
    counts = manifest.counts
    pairs = [("items", "offsets"), ("attribute_ids", "attribute_offsets")]
    pairs += [(f"{name}_blob", f"{name}_offsets") for name in _NAMES]
    for values, offsets in pairs:
        if offsets in arrays:
            check_ends(folder / f"{offsets}.npy", arrays[offsets], len(arrays[values]))
    lengths = [(name, kind, 1) for kind, names in _ARRAYS_BY_COUNT.items() for name in names]
    lengths += [("items", "interactions", 0), ("timestamps", "interactions", 0)]
    lengths += [("item_vectors", "items", 0)]
    for name, kind, extra in lengths:
        if name in arrays and counts.get(kind) != len(arrays[name]) - extra:
            raise InputError(
                f"{folder / f'{name}.npy'}: {len(arrays[name]) - extra} {kind}, but manifest.json "
                f"says {counts.get(kind)!r}. Prepare the corpus again."
            )
    user_names, item_names, attribute_names = (_names_of(arrays, name) for name in _NAMES[:3])
    return Corpus(
        folder=folder,
        items=cast("NDArray[np.int32]", arrays["items"]),
        offsets=cast("NDArray[np.int64]", arrays["offsets"]),
        timestamps=cast("NDArray[np.int64] | None", arrays.get("timestamps")),
        attribute_offsets=cast("NDArray[np.int64]", arrays["attribute_offsets"]),
        attribute_ids=cast("NDArray[np.int32]", arrays["attribute_ids"]),
        user_names=user_names,
        item_names=item_names,
        attribute_names=attribute_names,
        item_titles=_names_of(arrays, "item_titles") if "item_titles_blob" in arrays else None,
        manifest=manifest,
        item_vectors=cast("NDArray[np.float32] | None", arrays.get("item_vectors")),
    )


def _names_of(arrays: Arrays, name: str) -> Names:
    blob, offsets = arrays[f"{name}_blob"], arrays[f"{name}_offsets"]
    return Names(cast("NDArray[np.uint8]", blob), cast("NDArray[np.int64]", offsets))
