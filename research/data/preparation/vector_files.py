"""Vectors of items, such as embeddings of texts or images, from a file into the order of a corpus.

A file is `.npz` (arrays `ids` and `vectors`, as `export` of embeddings writes them), Parquet (a
column of ids and a column of lists of numbers), or `X.npy` with the raw ids in `X.ids.txt` beside
it, one a line. Files are untrusted: nothing in them is unpickled.
"""

from __future__ import annotations

import lzma
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from research.config import non_default_fields
from research.data.corpus_files import READ_ERRORS, ROWS_AT_ONCE
from research.data.preparation.options import MissingVectors, PrepareConfig
from research.data.preparation.raw_files import require_file
from research.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".npy", ".npz", ".parquet")
# What reading a damaged zip archive may raise: a RuntimeError where it is encrypted or packed in
# an unknown way.
_NPZ_ERRORS: tuple[type[Exception], ...] = (
    *(*READ_ERRORS, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_ID_COLUMNS = ("item", "item_id", "id")
# The options on vectors beside their file.
VECTOR_OPTIONS = ("missing_vectors", "vector_only_items", "vector_encoder")
_SHOWN = 3


def check_vector_options(config: PrepareConfig) -> None:
    """Raise `InputError` for a wrong option on vectors of items, and for one that is not used."""
    if config.missing_vectors not in get_args(MissingVectors):
        allowed = ", ".join(get_args(MissingVectors))
        raise InputError(f"missing_vectors {config.missing_vectors!r}; allowed: {allowed}.")
    given = non_default_fields(type(config), asdict(config))
    for option in VECTOR_OPTIONS:
        if option in given and config.item_vectors is None:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is for --item-vectors; give that, or leave it out.")


@dataclass(frozen=True, eq=False)
class VectorFile:
    """Vectors as a file has them, checked: finite numbers, one row an id, no id twice."""

    path: Path
    """The file."""
    ids: Sequence[str]
    """[N]: raw ids of items; a whole number is its digits."""
    vectors_NE: NDArray[np.generic]
    """[N, E]: their vectors, of a type of numbers; a `.npy` file is mapped into memory."""


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The vectors of a corpus's items, and the items that only the file of vectors knows."""

    further_items: Sequence[str]
    """Raw ids of the file's items without events, which follow the corpus's items."""
    vectors_VE: NDArray[np.float32]
    """[V, E]: the vector of each item, those of `further_items` last."""
    notes: dict[str, object]
    """What was counted, for the report of the corpus."""


def files_of_vectors(config: PrepareConfig) -> tuple[Path, ...]:
    """The files that `config.item_vectors` means: none, one, or a `.npy` and its ids."""
    if config.item_vectors is None:
        return ()
    path = require_file(Path(config.item_vectors))
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path}: vectors of items are read from {', '.join(SUFFIXES)}; give the file one of "
            "these endings"
        )
    return (path,) if path.suffix != ".npy" else (path, require_file(ids_beside(path)))


def ids_beside(path: Path) -> Path:
    """The file of raw ids that belongs to a `.npy` file."""
    return path.with_name(f"{path.stem}.ids.txt")


def vectors_of_items(item_names: Sequence[str], config: PrepareConfig) -> ItemVectors:
    """The vectors of `config.item_vectors` for these items, as float32.

    An item that the file lacks is an error, or has the mean of the file's vectors or zeros, as
    `config.missing_vectors` says. Items of the file that are not among `item_names` are counted, or
    become items as `config.vector_only_items` says. Raises `InputError` for a wrong file, and for
    one that knows none of the items.
    """
    file = read_vectors(files_of_vectors(config)[0])
    row_of = {name: row for row, name in enumerate(file.ids)}
    rows_V = np.array([row_of.get(name, -1) for name in item_names], dtype=np.int64)
    absent_V = rows_V < 0
    if absent_V.all():
        raise InputError(
            f"{file.path}: none of its {len(file.ids):,} ids ({_some(file.ids)}) is an item of the "
            f"interactions ({_some(item_names)}); is it of another data set, or are its ids "
            "numbers of rows? Give the raw ids."
        )
    absent = [item_names[item] for item in np.flatnonzero(absent_V)[:_SHOWN]]
    if absent and config.missing_vectors == "error":
        raise InputError(
            f"{file.path}: {int(absent_V.sum()):,} of {len(item_names):,} items have no vector "
            f"there ({_some(absent)}); add them, or choose --missing-vectors mean or zero"
        )
    known = set(item_names)
    others = [name for name in file.ids if name not in known]
    further = others if config.vector_only_items else []
    rows_V = np.r_[rows_V, np.array([row_of[name] for name in further], dtype=np.int64)]
    vectors_VE = np.zeros((len(rows_V), file.vectors_NE.shape[1]), dtype=np.float32)
    for first in range(0, len(rows_V), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        vectors_VE[part] = file.vectors_NE[rows_V[part]]
    filling: float | NDArray[np.float64] = 0.0
    if config.missing_vectors == "mean" and absent:
        filling = file.vectors_NE.mean(axis=0, dtype=np.float64)
    vectors_VE[: len(absent_V)][absent_V] = filling
    notes: dict[str, object] = {
        "numbers_each": vectors_VE.shape[1],
        "items_without": int(absent_V.sum()),
        "of_no_item": len(others) - len(further),
        "items_without_events": len(further),
    }
    return ItemVectors(further, vectors_VE, notes)


def read_vectors(path: Path) -> VectorFile:
    """Read and check a file of vectors; `InputError` names the file and the first wrong id."""
    require_file(path)
    if path.suffix == ".parquet":
        ids, vectors = _from_parquet(path)
    else:
        ids, vectors = _from_npz(path) if path.suffix == ".npz" else _from_npy(path)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: vectors are an array of shape {vectors.shape} and type {vectors.dtype}; "
            "expected numbers in two dimensions, a row an item"
        )
    if len(ids) != len(vectors):
        beside = ids_beside(path) if path.suffix == ".npy" else path
        raise InputError(f"{path}: {len(vectors):,} vectors, but {len(ids):,} ids in {beside}")
    if vectors.size == 0:
        raise InputError(f"{path}: holds no vector (its shape is {vectors.shape})")
    place_of: dict[str, int] = {}
    for row, name in enumerate(ids):
        if place_of.setdefault(name, row) != row:
            raise InputError(
                f"{path}: id {name!r:.60} is in rows {place_of[name] + 1} and {row + 1}; each item "
                "has one vector"
            )
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        # Numbers that float32 cannot hold become infinite.
        with np.errstate(over="ignore"):
            part = np.asarray(vectors[first : first + ROWS_AT_ONCE], dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if len(bad):
            row = first + int(bad[0])
            raise InputError(
                f"{path}: the vector of id {ids[row]!r:.60} (row {row + 1}) has a number that is "
                "not finite in float32; correct it, or leave the row out"
            )
    return VectorFile(path, ids, vectors)


def _from_npy(path: Path) -> tuple[list[str], NDArray[np.generic]]:
    beside = require_file(ids_beside(path))
    try:
        lines = beside.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{beside}: not UTF-8 text ({error}).") from error
    ids = [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            vectors = np.lib.format.open_memmap(path, mode="r")
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a complete .npy file of numbers ({error}).") from error
    return ids, vectors


def _from_npz(path: Path) -> tuple[list[str], NDArray[np.generic]]:
    try:
        with warnings.catch_warnings(), path.open("rb") as opened:
            warnings.simplefilter("error")
            arrays = np.load(opened, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            missing = [name for name in ("ids", "vectors") if name not in arrays]
            if missing:
                raise InputError(
                    f"{path}: has no array {' and no '.join(missing)} (there: "
                    f"{', '.join(arrays)}); it needs ids [N] and vectors [N, E]"
                )
            ids, vectors = arrays["ids"], arrays["vectors"]
            if not (isinstance(ids, np.ndarray) and isinstance(vectors, np.ndarray)):
                raise ValueError("ids or vectors are no array")
    except _NPZ_ERRORS as error:
        raise InputError(f"{path}: not a complete .npz file of numbers ({error}).") from error
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(
            f"{path}: ids are an array of shape {ids.shape} and type {ids.dtype}; expected text or "
            "whole numbers in one dimension"
        )
    return [str(name) for name in ids.tolist()], vectors


def _from_parquet(path: Path) -> tuple[list[str], NDArray[np.generic]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        kinds = {field.name: field.type for field in schema}
        lists = [name for name, kind in kinds.items() if _is_list(kind)]
        plain = [name for name, kind in kinds.items() if _is_id(kind)]
        named = [name for name in _ID_COLUMNS if name in plain][:1] or plain
        if len(lists) != 1 or len(named) != 1:
            raise InputError(
                f"{path}: needs one column of lists of numbers and one of ids (called item, or the "
                f"only one of text or whole numbers); its columns: "
                f"{', '.join(f'{name} ({kind})' for name, kind in kinds.items())}"
            )
        table = pq.read_table(path, columns=[named[0], lists[0]])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error}).") from error
    ids, column = table.column(0), table.column(1)
    if named[0] != table.column_names[0]:
        ids, column = column, ids
    if ids.null_count or column.null_count:
        raise InputError(f"{path}: a row has no id or no vector; leave it out")
    if len(column) == 0:
        return [], np.zeros((0, 0), dtype=np.float32)
    sizes = pc.list_value_length(column).to_numpy()
    other = np.flatnonzero(sizes != sizes[0])
    if len(other):
        raise InputError(
            f"{path}: the vector of row {other[0] + 1} has {sizes[other[0]]} numbers, that of row "
            f"1 has {sizes[0]}; all vectors need as many"
        )
    numbers = pc.list_flatten(column).to_numpy()
    try:
        names = [str(name) for name in ids.to_pylist()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: column {named[0]} has an id that is not UTF-8 ({error})"
        ) from error
    return names, numbers.reshape(len(sizes), int(sizes[0]))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return False
    return bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _is_id(kind: pa.DataType) -> bool:
    import pyarrow as pa

    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_dictionary(kind))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r:.60}" for name in names[:_SHOWN])
    return shown + ", ..." * (len(names) > _SHOWN)
