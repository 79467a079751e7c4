"""Parquet: what is read, and what is refused."""

import datetime
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from research.data.corpus import Corpus
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.data.test_readers import histories, refused


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def parquet(tmp_path: Path, columns: dict[str, object], **options: object) -> Corpus:
    pd.DataFrame(columns).to_parquet(tmp_path / "p.parquet")
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "p.parquet"), **options)
    return prepare(config, data_root=tmp_path / "data")


def test_parquet_holds_integers_or_text_and_dates(tmp_path: Path) -> None:
    when = pd.to_datetime(["1970-01-02", "1970-01-01"]).astype("datetime64[s]")
    columns = {"user": [12, 12], "item": ["b", "a"], "timestamp": when, "more": [1, 2]}
    corpus = parquet(tmp_path, columns)
    assert histories(corpus) == {"12": ["a", "b"]}
    assert corpus.timestamps is not None
    assert corpus.timestamps.max() - corpus.timestamps.min() in (86_400, 86_400_000)


def test_parquet_ids_may_be_categories_of_numbers(tmp_path: Path) -> None:
    columns = {"user": pd.Categorical([12, 12]), "item": pd.Categorical(["b", "a"])}
    corpus = parquet(tmp_path, columns, timestamp_column=None)
    assert histories(corpus) == {"12": ["b", "a"]}


def test_parquet_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"user": ["abcdefgh"], "item": ["x"], "timestamp": [1]})
    table.to_parquet(tmp_path / "p.parquet", compression=None, write_statistics=False)
    raw = (tmp_path / "p.parquet").read_bytes().replace(b"abcdefgh", b"\xff" * 8)
    (tmp_path / "p.parquet").write_bytes(raw)
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "p.parquet"))
    with pytest.raises(InputError, match=r"p\.parquet: not readable as Parquet .*Invalid UTF8"):
        prepare(config, data_root=tmp_path / "data")


def test_a_time_of_day_is_no_rating(tmp_path: Path) -> None:
    columns = {"user": ["a"], "item": ["x"], "rating": [datetime.time(1, 2)]}
    with pytest.raises(InputError, match=r"column 'rating' holds time64\[us\], no numbers"):
        parquet(tmp_path, columns, timestamp_column=None, min_rating=1.0)


def test_a_bad_parquet_is_refused(tmp_path: Path) -> None:
    good = {"user": ["a", "b"], "item": ["x", "y"], "timestamp": [1.0, 2.0]}
    for column, values, message in (
        ("user", ["a", None], r"p\.parquet, row 2, column 'user': the cell is empty"),
        ("user", ["a", ""], r"p\.parquet, row 2, column 'user': the cell is empty"),
        ("user", [1.5, 2.0], r"row 1, column 'user': 1\.5 is a float that has a fraction"),
        ("timestamp", [1.0, float("inf")], r"p\.parquet, row 2, column 'timestamp': inf is not f"),
        ("timestamp", [1e30, 1.0], r"row 1, column 'timestamp': 1e\+30 does not fit into int64"),
        (
            "user",
            pd.Categorical([1.5, 2.0]),
            r"row 1, column 'user': 1\.5 is a float that has a fraction",
        ),
        (
            "timestamp",
            ["now", "then"],
            r"row 1, column 'timestamp': 'now' is neither a number nor a date",
        ),
    ):
        with pytest.raises(InputError, match=message):
            parquet(tmp_path, {**good, column: values})
    with pytest.raises(InputError, match="column 'when' occurs 0 times; the columns are user"):
        parquet(tmp_path, good, timestamp_column="when")
    refused(tmp_path, "parquet", "broken.parquet", "PAR1 no", r"broken\.parquet: not readable as P")
