"""`sf.prepare` reads frames, files and data sets; columns are named, or recognized for sure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import sixfold as sf
from research.data.corpus import Corpus
from tests.support.movielens_files import archive_files

ORDERS = pd.DataFrame(
    {
        "Customer ID": ["b", "a", "b", "a"],
        "sku": [5, 3, 3, 5],
        "bought at": ["2024-01-02", "2024-01-01", "2024-01-03", "2024-01-04"],
        "what it is": ["five", "three", "three", "five"],
        "stars": [1, 5, 5, 5],
    }
)


def histories(corpus: Corpus) -> dict[str, list[str]]:
    bounds = corpus.offsets.tolist()
    return {
        user: [corpus.item_names[item] for item in corpus.items[start:stop].tolist()]
        for user, start, stop in zip(corpus.user_names, bounds, bounds[1:])
    }


def test_a_frame_with_odd_column_names(tmp_path: Path) -> None:
    corpus = sf.prepare(
        ORDERS, time="bought at", title="what it is", name="shop", data_root=tmp_path
    )
    assert histories(corpus) == {"b": ["5", "3"], "a": ["3", "5"]}
    assert corpus.item_titles is not None
    assert dict(zip(corpus.item_names, corpus.item_titles)) == {"5": "five", "3": "three"}
    assert corpus.name == "shop"
    again = sf.load_corpus(corpus.folder.name, data_root=tmp_path)
    assert again.fingerprint == corpus.fingerprint


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_a_file_gives_what_the_frame_gives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"orders.{kind}"
    if kind == "parquet":
        ORDERS.to_parquet(path)
    elif kind == "jsonl":
        ORDERS.to_json(path, orient="records", lines=True)
    else:
        ORDERS.to_csv(path, index=False, sep="\t" if kind == "tsv" else ";")
    corpus = sf.prepare(path, time="bought at", data_root=tmp_path)
    assert histories(corpus) == {"b": ["5", "3"], "a": ["3", "5"]}
    assert corpus.name == "orders"


def test_a_stream_of_arrow_is_read_once(tmp_path: Path) -> None:
    reader = pa.Table.from_pandas(ORDERS).to_reader(max_chunksize=1)
    corpus = sf.prepare(reader, time="bought at", data_root=tmp_path)
    assert histories(corpus) == {"b": ["5", "3"], "a": ["3", "5"]}


def test_rows_are_in_order_where_there_are_no_times(tmp_path: Path) -> None:
    corpus = sf.prepare(ORDERS, time=False, data_root=tmp_path)
    assert corpus.timestamps is None
    assert histories(corpus) == {"b": ["5", "3"], "a": ["3", "5"]}


def test_filters_attributes_and_further_options(tmp_path: Path) -> None:
    frame = ORDERS.assign(when=["02.01.2024", "01.01.2024", "03.01.2024", "04.01.2024"])
    corpus = sf.prepare(
        frame, time="when", rating="stars", min_rating=2.0, attributes=["what it is"],
        options={"time_format": "%d.%m.%Y"}, data_root=tmp_path,
    )  # fmt: skip
    assert histories(corpus) == {"b": ["3"], "a": ["3", "5"]}
    assert list(corpus.attribute_names) == ["what it is:five", "what it is:three"]
    with pytest.raises(sf.InputError, match=r"time_formt.*did you mean time_format"):
        sf.prepare(frame, time="when", options={"time_formt": "%d"}, data_root=tmp_path)


def test_titles_and_attributes_of_an_items_file(tmp_path: Path) -> None:
    pd.DataFrame({"sku": [3, 5], "label": ["three", "five"], "color": ["red", "blue"]}).to_csv(
        tmp_path / "items.csv", index=False
    )
    corpus = sf.prepare(
        ORDERS, time="bought at", title="label", attributes=["color"],
        options={"items_file": str(tmp_path / "items.csv")}, data_root=tmp_path,
    )  # fmt: skip
    assert corpus.item_titles is not None
    assert dict(zip(corpus.item_names, corpus.item_titles)) == {"5": "five", "3": "three"}
    assert list(corpus.attribute_names) == ["color:blue", "color:red"]


def test_options_that_are_arguments_are_asked_for_as_such(tmp_path: Path) -> None:
    with pytest.raises(sf.InputError, match="options has 'user_column'; give it as user="):
        sf.prepare(ORDERS, options={"user_column": "sku"}, data_root=tmp_path)


def test_a_known_data_set_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "ml-100k"
    folder.mkdir(parents=True)
    for name, content in archive_files("ml-100k").items():
        (folder / Path(name).name).write_bytes(content)
    corpus = sf.prepare("ml-100k", user_core=1, data_root=tmp_path)
    assert corpus.name == "ml-100k"
    assert corpus.manifest.options["user_core"] == 1


@pytest.mark.parametrize(
    ("columns", "named", "message"),
    [
        (
            ["user_id", "customer", "sku", "date"],
            {},
            "the frame: user_id and customer could each be the column of users; give user= with",
        ),
        (
            ["user", "sku", "bought"],
            {},
            "no column is recognized as the column of times; give time= with one of user, sku, "
            "bought, or time=False where",
        ),
        (
            ["user", "thing", "date"],
            {},
            "no column is recognized as the column of items; give item= with one of user, thing",
        ),
        (
            ["user", "sku", "date"],
            {"item": "skus"},
            "there is no column 'skus'; give item= with one of user, sku, date; did you mean sku",
        ),
        (["user", "sku", "date"], {"title": "name"}, "no column 'name'; give title= with one of"),
    ],
)
def test_what_is_not_sure_is_asked_for(
    tmp_path: Path, columns: list[str], named: dict[str, str], message: str
) -> None:
    frame = pd.DataFrame({name: [1, 2] for name in columns})
    with pytest.raises(sf.InputError) as caught:
        sf.prepare(frame, data_root=tmp_path, **named)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attributes": "sku"}, "attributes is 'sku'; give a list of the names of columns"),
        ({"attributes": [3]}, "attributes.0 is 3; allowed: str"),
        ({"user": 3}, "user is 3; allowed: str | None"),
        ({"time": True}, "time is True; allowed: str | False | None"),
        ({"min_rating": 3.0}, "no column 'rating'; give rating= with one of"),
        ({"min_rating": "3", "rating": "stars"}, "min_rating is '3'; allowed: float | None"),
        ({"item_core": 1.5}, "item_core is 1.5; allowed: int"),
        ({"rating": "stars"}, "rating= is read for min_rating= alone"),
        ({"options": {"time_unit": "ms"}}, 'no unit; leave out options={"time_unit": ...}'),
        ({"options": {"time_format": "d"}, "time": False}, "no times are read with time=False"),
        (
            {"options": {"missing_words": ("b",)}},
            'leave such rows out with options={"missing": "drop"}; if one of the words is a real '
            'id, name those that are not with options={"missing_words": ...}.',
        ),
    ],
)
def test_messages_name_the_arguments_of_python(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(sf.InputError) as caught:
        sf.prepare(ORDERS, **{"time": "bought at", "data_root": tmp_path, **arguments})  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_column_that_is_there_twice_is_named_by_arguments(tmp_path: Path) -> None:
    twice = pd.concat([ORDERS, ORDERS[["sku"]]], axis=1)
    with pytest.raises(sf.InputError, match=r"Name yours with user=, item=, time= \(False: order"):
        sf.prepare(twice, item="sku", time="bought at", data_root=tmp_path)


def test_a_named_column_is_no_candidate_for_another_purpose(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 1], "customer": [5, 6], "date": [1, 2]})
    corpus = sf.prepare(frame, user="user_id", item="customer", data_root=tmp_path)
    assert histories(corpus) == {"1": ["5", "6"]}


def test_what_is_no_frame_and_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sf.InputError, match="list is neither a frame nor a path"):
        sf.prepare([1, 2], data_root=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"ml-100 is neither.*; did you mean ml-100k"):
        sf.prepare("ml-100", data_root=tmp_path)
    (tmp_path / "events.xyz").write_text("a\n")
    with pytest.raises(sf.InputError, match="does not tell its format; give format="):
        sf.prepare(tmp_path / "events.xyz", data_root=tmp_path)
