"""`sf.prepare` and `sf.load_corpus`: from a frame, a file or a data set's name to a `Corpus`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa

from research.annotations import convert_value, did_you_mean
from research.data.corpus import Corpus
from research.data.preparation.compression import plain_suffix
from research.data.preparation.datasets import DATASETS
from research.data.preparation.frames import ArrowStream, Frame, prepare_frame
from research.data.preparation.headers import SUFFIXES, columns_of_file
from research.data.preparation.options import Duplicates, PrepareConfig
from research.data.preparation.prepare import prepare as prepare_files
from research.errors import InputError
from research.overrides import replace_fields
from research.public.columns import Columns, columns_of_frame
from research.public.messages import check_argument, named_by_arguments
from research.runs.corpus import open_corpus

# Endings by which the format of a path is told.
ENDINGS = {**SUFFIXES, "atomic": (".inter",)}
# The fields of `PrepareConfig` that name columns of events, with the arguments of `prepare`.
COLUMN_OPTIONS = {"user_column": "user", "item_column": "item", "timestamp_column": "time"}


def prepare(
    data: Frame | pd.DataFrame | Path | str,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | Literal[False] | None = None,
    rating: str | None = None,
    title: str | None = None,
    attributes: Sequence[str] = (),
    vectors: Path | str | None = None,
    min_rating: float | None = None,
    user_core: int = 0,
    item_core: int = 0,
    duplicates: Duplicates = "keep",
    format: str | None = None,
    options: Mapping[str, object] | None = None,
    name: str = "frame",
    out: Path | str | None = None,
    data_root: Path | str = "data",
) -> Corpus:
    """The corpus of a frame, of a file or of a public data set, prepared unless it is already.

    One row is one event of a user with an item. Nothing is filtered unless it is asked for. What
    was read and removed, and warnings, are in the corpus's `manifest.report`.

        >>> corpus = sf.prepare(orders, user="customer", item="sku", time="bought_at")
        >>> corpus = sf.prepare("events.parquet", user_core=5, item_core=5)
        >>> corpus = sf.prepare("ml-100k")

    Args:
        data: a pandas frame, an object that exports Arrow (of Polars, DuckDB, PyArrow) or a dict of
            columns; a path of a CSV, Parquet, JSON lines or .inter file, or a folder of those; or
            the name of a data set that `sixfold datasets` lists.
        user, item: columns of ids, which are text or whole numbers. None: the one column with such
            a name ("customer_id", "sku"), if there is exactly one.
        time: column of times: dates, or numbers (whose unit is told by their size). None: the one
            column with such a name. False: there are no times, and a user's rows are in order.
        rating: column of ratings, which `min_rating` needs.
        title: column of items' titles.
        attributes: columns whose values are attributes of items, such as a brand.
        vectors: file with a vector of each item, such as an embedding of its text: `.npz` (arrays
            ids and vectors), Parquet, or `X.npy` with the ids in `X.ids.txt`.
        min_rating: rows rated lower are removed.
        user_core, item_core: users and items with fewer events are removed, until none is left.
        duplicates: which of several events of one user with one item are kept: "keep" (all),
            "exact" (all but exact doubles), "first" or "last".
        format: the format of a path: csv, parquet, jsonl, atomic, s3rec, pairs or movielens. None:
            by its ending.
        options: further fields of `sf.PrepareConfig`, such as `{"time_format": "%d.%m.%Y"}`; with
            `items_file`, title and attributes are columns of that file.
        name: the name of a frame's corpus, which is also a folder's; a file's is that of the file.
        out: the corpus's folder. None: one below `data_root/corpora`, by the content.
        data_root: the folder of raw files and prepared corpora.

    Raises:
        InputError: for a wrong cell (named by row and column), for a column that is not there or
            not recognized, for wrong options, and where `out` holds another corpus.
    """
    named = {"user": user, "item": item, "rating": rating, "title": title, "format": format}
    _check_arguments(named, str | None)
    _check_arguments({"out": out, "vectors": vectors}, str | Path | None)
    check_argument("time", time, str | Literal[False] | None)
    check_argument("name", name, str)
    check_argument("options", options, Mapping[str, object] | None)
    if isinstance(attributes, str) or not isinstance(attributes, Iterable):
        raise InputError(f"attributes is {attributes!r:.60}; give a list of the names of columns")
    attributes = convert_value(tuple(attributes), tuple[str, ...], "attributes")
    given = _changed(
        {
            "min_rating": min_rating,
            "user_core": user_core,
            "item_core": item_core,
            "duplicates": duplicates,
            "rating_column": rating,
            "title_column": title,
            "attribute_columns": attributes or None,
            "item_vectors": None if vectors is None else os.path.expanduser(vectors),
        }
    )
    given |= _checked(options or {})
    others = {} if rating is None else {"rating": rating}
    if min_rating is not None:
        others = {"rating": rating or PrepareConfig.rating_column}
    if "items_file" not in given:
        others |= {} if title is None else {"title": title}
        others |= {f"attributes[{place}]": column for place, column in enumerate(attributes)}
    columns = Columns(user=user, item=item, time=time, others=others)
    if isinstance(data, str | Path):
        config = replace_fields(_of_path(data, format), given)
        with named_by_arguments():
            return _prepare_path(config, given, columns, out, data_root)
    frame = data
    if isinstance(data, ArrowStream) and not isinstance(data, pd.DataFrame):
        # A stream may be read once only, so its columns are asked of the reader that reads it.
        frame = pa.RecordBatchReader.from_stream(data)
    given |= columns.options("the frame", columns_of_frame(frame))
    config = replace_fields(PrepareConfig(source=format or "parquet"), given)
    with named_by_arguments():
        return prepare_frame(frame, config, out, name=name, data_root=data_root)


def _check_arguments(arguments: Mapping[str, object], kind: object) -> None:
    """`InputError` for an argument, by name, that is not of the type `kind`."""
    for argument, value in arguments.items():
        check_argument(argument, value, kind)


def _changed(arguments: Mapping[str, object]) -> dict[str, object]:
    """The arguments, by field of `PrepareConfig`, that are not at the field's default."""
    defaults = vars(PrepareConfig(source=""))
    return {
        option: value
        for option, value in arguments.items()
        if value is not None and value != defaults[option]
    }


def _checked(options: Mapping[str, object]) -> Mapping[str, object]:
    """The options; `InputError` for one that an argument of `prepare` is for."""
    arguments = {"source": "format", "raw": "data", **COLUMN_OPTIONS}
    for option, argument in arguments.items():
        if option in options:
            raise InputError(f"options has {option!r}; give it as {argument}=")
    return options


def _prepare_path(
    config: PrepareConfig,
    given: Mapping[str, object],
    columns: Columns,
    out: Path | str | None,
    data_root: Path | str,
) -> Corpus:
    """The corpus of the file or data set that the config names."""
    named = {"user": columns.user, "item": columns.item, "time": columns.time}
    if config.source in SUFFIXES and config.header:
        found = columns.options(str(config.raw), columns_of_file(config))
    else:
        # Such a format or data set has columns of its own; only what is named differs.
        found = {
            option: named[argument] or None
            for option, argument in COLUMN_OPTIONS.items()
            if named[argument] is not None
        }
    config = replace_fields(config, found)
    return prepare_files(config, out, data_root=data_root, given=(*given, *found))


def _of_path(data: str | Path, format: str | None) -> PrepareConfig:
    """The config that reads a path, or a data set of this name, with nothing else changed."""
    path = Path(os.path.expanduser(data))
    if format is not None:
        return PrepareConfig(source=format, raw=str(path))
    if str(data) in DATASETS and not path.is_file():
        return PrepareConfig(source=str(data))
    endings = {plain_suffix(path)}
    if path.is_dir():
        endings = {plain_suffix(file) for file in path.rglob("*") if file.is_file()}
    formats = [name for name, suffixes in ENDINGS.items() if endings & set(suffixes)]
    if len(formats) == 1:
        return PrepareConfig(source=formats[0], raw=str(path))
    if path.exists():
        raise InputError(
            f"{data}: its ending does not tell its format; give format= with csv, parquet, jsonl, "
            "atomic, s3rec, pairs or movielens"
        )
    raise InputError(
        f"{data} is neither a file or folder nor a data set that `sixfold datasets` lists"
        f"{did_you_mean(str(data), DATASETS)}"
    )


def load_corpus(folder: Path | str, *, data_root: Path | str = "data") -> Corpus:
    """Open a prepared corpus; its arrays are mapped and not read, so this takes milliseconds.

    `folder` is the corpus's folder, its name below `data_root/corpora`, or a public data set's
    name, which is prepared at first use. Raises `InputError` if there is none, or it is damaged.

        >>> corpus = sf.load_corpus("data/corpora/frame-2f0c1a")
    """
    with named_by_arguments():
        return open_corpus(corpus_name(folder), str(data_root))


def corpus_name(corpus: Corpus | Path | str) -> str:
    """The folder of a corpus, or the name that stands for one; `InputError` for anything else."""
    if not isinstance(corpus, Corpus | Path | str):
        raise InputError(
            f"the corpus is of type {type(corpus).__name__}; give what sf.prepare returns, the "
            "folder of a prepared corpus, or the name of a data set"
        )
    return str(corpus.folder if isinstance(corpus, Corpus) else corpus)
