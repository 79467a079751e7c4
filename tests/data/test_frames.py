"""Frames in memory: each is the corpus of the file that it would be written to, or is refused."""

import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from research.data.corpus import Corpus
from research.data.preparation.column_digest import digest_of_columns
from research.data.preparation.frames import frame_source, prepare_frame
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.histories import histories


def of_frame(tmp_path: Path, frame: object, **options: object) -> Corpus:
    config = PrepareConfig(**{"source": "csv", **options})
    return prepare_frame(frame, config, name="frame", data_root=tmp_path / "memory")


def refused(tmp_path: Path, frame: object, message: str, **options: object) -> None:
    with pytest.raises(InputError, match=message):
        of_frame(tmp_path, frame, **options)
    assert not (tmp_path / "memory").exists()


def assert_same(first: Corpus, second: Corpus) -> None:
    assert first.fingerprint == second.fingerprint
    assert first.items.tolist() == second.items.tolist()
    assert first.offsets.tolist() == second.offsets.tolist()
    assert list(first.user_names) == list(second.user_names)
    assert list(first.item_names) == list(second.item_names)
    assert (first.timestamps is None) == (second.timestamps is None)
    if first.timestamps is not None and second.timestamps is not None:
        assert first.timestamps.tolist() == second.timestamps.tolist()


def assert_like_csv(tmp_path: Path, frame: pd.DataFrame, **options: object) -> Corpus:
    frame.to_csv(tmp_path / "f.csv", index=False)
    config = PrepareConfig(source="csv", raw=str(tmp_path / "f.csv"), **options)
    corpus = of_frame(tmp_path, frame, **options)
    assert_same(corpus, prepare(config, data_root=tmp_path / "files"))
    return corpus


def assert_like_parquet(tmp_path: Path, frame: pd.DataFrame, **options: object) -> Corpus:
    frame.to_parquet(tmp_path / "f.parquet", index=False)
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "f.parquet"), **options)
    corpus = of_frame(tmp_path, frame, source="parquet", **options)
    assert_same(corpus, prepare(config, data_root=tmp_path / "files"))
    return corpus


SECONDS = pd.to_datetime([3, 1, 2, 4], unit="s")
USERS: dict[str, object] = {
    "int64": [12, 7, 12, 7],
    "uint64": np.array([2**64 - 1, 7, 7, 7], dtype=np.uint64),
    "text": ["b", "a", "b", "007"],
    "text with commas, quotes and blanks": ["b,c", 'a"', " b", "a, b"],
    "objects of text": np.array(["b", "a", None, "007"], dtype=object),
    "objects of text and numbers": np.array(["b", 7, 7.0, "7"], dtype=object),
    "objects of integers": np.array([2**70, 7, None, 7], dtype=object),
    "objects of integers and floats": np.array([1, 1.0, 1.5, 1], dtype=object),
    "categories of text": pd.Categorical(["b", "a", None, "b"], categories=["a", "b", "c"]),
    "categories of integers": pd.Categorical([12, 7, 7, 12]),
    "categories of floats": pd.Categorical([12.0, 7.5, 7.5, 12.0]),
    "categories of objects": pd.Categorical(np.array(["b", 7, "b", 7], dtype=object)),
    "floats with NaN": [12.0, np.nan, 7.0, 1e16],
    "float32": np.array([12, 7, 0.1, 1], dtype=np.float32),
    "Int64": pd.array([12, None, 7, 7], dtype="Int64"),
    "Float64": pd.array([12.0, None, 7.5, 7.5], dtype="Float64"),
    "string[python]": pd.array(["b", None, "a", "a"], dtype="string[python]"),
    "string[pyarrow]": pd.array(["b", None, "a", "a"], dtype="string[pyarrow]"),
    "Arrow's decimals": pd.array(
        [Decimal("1.00"), None, Decimal("2.50"), Decimal("1.00")],
        dtype=pd.ArrowDtype(pa.decimal128(9, 2)),
    ),
    "Arrow's dates": pd.array(
        [datetime.date(2020, 1, day) for day in (2, 1, 2, 1)], dtype=pd.ArrowDtype(pa.date32())
    ),
    "words for nothing": ["nan", "NULL", "b", " "],
    "dates as objects": np.array([datetime.date(2020, 1, day) for day in (1, 2, 1, 2)], object),
}
NOT_IN_PARQUET = (
    "objects of text and numbers",
    "objects of integers",
    "categories of objects",
)
NO_IDS_IN_PARQUET = (
    *("objects of integers and floats", "categories of floats", "floats with NaN", "float32"),
    *("Float64", "Arrow's decimals", "Arrow's dates", "dates as objects"),
)


@pytest.mark.parametrize("users", USERS.values(), ids=USERS)
def test_ids_are_those_of_a_csv_of_the_frame(tmp_path: Path, users: object) -> None:
    frame = pd.DataFrame({"user": users, "item": [1, 2, 3, 4], "timestamp": [3, 1, 2, 4]})
    assert_like_csv(tmp_path, frame, missing="drop")
    named = frame.rename(columns={"user": "item", "item": "user"})
    assert_like_csv(tmp_path, named, missing="drop")


@pytest.mark.parametrize("kind", [kind for kind in USERS if kind not in NOT_IN_PARQUET])
def test_ids_are_those_of_a_parquet_file_of_the_frame(tmp_path: Path, kind: str) -> None:
    columns = {"user": USERS[kind], "item": [1, 2, 3, 4], "timestamp": [3, 1, 2, 4]}
    frame = pd.DataFrame(columns)
    if kind not in NO_IDS_IN_PARQUET:
        assert_like_parquet(tmp_path, frame, missing="drop")
        return
    frame.to_parquet(tmp_path / "f.parquet", index=False)
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "f.parquet"), missing="drop")
    with pytest.raises(InputError) as of_file:
        prepare(config, data_root=tmp_path / "files")
    with pytest.raises(InputError) as of_memory:
        of_frame(tmp_path, frame, source="parquet", missing="drop")
    assert str(of_file.value).replace(str(tmp_path / "f.parquet"), "the frame") == str(
        of_memory.value
    )


DAYS = pd.to_datetime(["2020-01-02", "2020-01-01", None, "2020-01-01"])
ATTRIBUTES: dict[str, object] = {
    "truth values": [True, False, True, True],
    "days": DAYS,
    "moments": DAYS + pd.Timedelta("3h"),
    "months": pd.PeriodIndex(["2020-01", "2020-02", None, "2020-01"], freq="M"),
    "bands": pd.cut([1.0, 5.0, 9.0, 1.0], 3),
    "sparse": pd.arrays.SparseArray([0, 1, 0, 2]),
}


@pytest.mark.parametrize("values", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes_are_those_of_a_csv_of_the_frame(tmp_path: Path, values: object) -> None:
    frame = pd.DataFrame({"user": [1, 2, 1, 2], "item": [1, 2, 3, 4], "timestamp": [3, 1, 2, 4]})
    assert_like_csv(tmp_path, frame.assign(kind=values), attribute_columns=("kind",))


def test_a_column_of_days_and_moments_keeps_the_time_of_day(tmp_path: Path) -> None:
    day, late = datetime.date(2019, 1, 1), datetime.datetime(2020, 1, 1, 23)
    moments = np.array([day, late, late.replace(hour=5)], dtype=object)
    for order in ([0, 1, 2], [1, 0, 2]):
        frame = pd.DataFrame({"user": 1, "item": order, "timestamp": moments[order]})
        corpus = of_frame(tmp_path / str(order), frame, source="parquet")
        assert histories(corpus) == {"1": ["0", "2", "1"]}


def test_a_column_of_structs_is_refused_by_name(tmp_path: Path) -> None:
    kinds = np.array([{"a": 1}, None], dtype=object)
    frame = pd.DataFrame({"user": 1, "item": [1, 2], "timestamp": [1, 2], "kind": kinds})
    with pytest.raises(InputError, match="column 'kind' holds struct<a: int64>; allowed are text"):
        of_frame(tmp_path, frame, source="parquet", attribute_columns=("kind",))


ZONES = [datetime.timezone(datetime.timedelta(hours=hours)) for hours in (0, -3)]
TIMES: dict[str, object] = {
    "int64": [3, 1, 2, 4],
    "nanoseconds": [10**18 + 3, 10**18 + 1, 10**18 + 2, 10**18 + 4],
    "floats": [3.5, -1.25, 2.0, 3.25],
    "floats with NaN": [3.5, np.nan, 2.0, 3.25],
    "large floats": [1.6e18, 1.6e18 + 256, 1577836799999999872.0, 1.5e18],
    "datetime64": SECONDS,
    "datetime64 with parts of a second": SECONDS + pd.to_timedelta([1, 2, 3, 4], unit="us"),
    "datetime64 at midnight": pd.to_datetime(["2020-01-02", None, "2020-01-03", "2020-01-01"]),
    "datetime64 in UTC": SECONDS.tz_localize("UTC"),
    "datetime64 in a zone": SECONDS.tz_localize("America/New_York"),
    "text": ["2020-01-02", "2020-01-01T10:00:00+02:00", "2020-01-01 09:00:00", "2020-01-03"],
    "objects of several zones": np.array(
        [
            datetime.datetime(2020, 1, 1, hour, tzinfo=zone)
            for hour, zone in zip((3, 4, 2, 1), (ZONES * 2))
        ],
        dtype=object,
    ),
    "dates": np.array([datetime.date(2020, 1, day) for day in (4, 3, 2, 1)], dtype=object),
    "Int64": pd.array([3, None, 2, 4], dtype="Int64"),
    "categories": pd.Categorical(["2020-01-02", "2020-01-01", "2020-01-02", "2020-01-03"]),
    "YYYYMMDD": [20200102, 20200101, 20200103, 20200104],
}  # fmt: skip


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_times_are_those_of_a_file_of_the_frame(tmp_path: Path, times: object) -> None:
    frame = pd.DataFrame({"user": ["a"] * 4, "item": [1, 2, 3, 4], "timestamp": times})
    assert_like_csv(tmp_path, frame, missing="drop")
    assert_like_parquet(tmp_path, frame, missing="drop")


def test_filters_and_column_options_are_those_of_files(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"who": [1, 1, 2, 2], "what": [5, 6, 5, 5], "when": [1, 2, 3, 3], "stars": [5, 1, 4, 4]}
    )
    options = {"user_column": "who", "item_column": "what", "timestamp_column": "when"}
    corpus = assert_like_csv(
        tmp_path, frame, rating_column="stars", min_rating=2.0, duplicates="exact", **options
    )
    assert histories(corpus) == {"1": ["5"], "2": ["5"]}
    assert_like_parquet(tmp_path, frame, item_core=2, **options)


def test_names_of_columns_are_their_text(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1, 2, 3], [1, 3, 4]])
    options = {"user_column": "0", "item_column": "1", "timestamp_column": "2"}
    assert_like_csv(tmp_path, frame, **options)


ROWS = {"user": ["b", "a", "b"], "item": [3, 3, 5], "timestamp": [7, 8, 6]}


def exported(kind: str) -> object:
    if kind == "table":
        return pa.table(ROWS)
    if kind == "chunks":
        return pa.concat_tables([pa.table(ROWS).slice(row, 1) for row in range(3)])
    if kind == "views":
        views = pa.array(ROWS["user"], pa.string_view())
        return pa.table({**ROWS, "user": views})
    if kind == "reader":
        return pa.table(ROWS).to_reader(max_chunksize=2)
    if kind == "record batch":
        return pa.RecordBatch.from_pydict(ROWS)
    if kind == "dict of lists":
        return ROWS
    if kind == "dict of arrays":
        return {name: pa.array(values) for name, values in ROWS.items()}
    return {name: pd.Series(values, index=[2, 0, 1]) for name, values in ROWS.items()}


KINDS = ("table", "chunks", "views", "reader", "record batch", "dict of lists", "dict of arrays",
         "dict of series")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_exports_arrow_and_a_dict_of_columns_are_frames(tmp_path: Path, kind: str) -> None:
    expected = of_frame(tmp_path, pd.DataFrame(ROWS))
    corpus = of_frame(tmp_path / kind, exported(kind))
    assert_same(expected, corpus)
    assert histories(corpus) == {"b": ["5", "3"], "a": ["3"]}


def test_only_the_wanted_columns_are_asked_of_what_exports_arrow(tmp_path: Path) -> None:
    table = pa.table({**ROWS, "more": pa.array([b"\xff"] * 3)})
    report = of_frame(tmp_path, table).manifest.report
    assert isinstance(report, dict)
    assert report["files"] == []
    memory = report["memory"]
    assert isinstance(memory, dict)
    assert memory["rows"] == 3
    assert memory["columns"] == ["user", "item", "timestamp"]


def test_the_integers_of_a_list_with_none_stay_integers(tmp_path: Path) -> None:
    columns = {**ROWS, "user": [2**53 + 1, None, 7]}
    corpus = of_frame(tmp_path, columns, missing="drop")
    assert list(corpus.user_names) == ["9007199254740993", "7"]


def test_a_frame_is_prepared_once_and_again_when_a_wanted_cell_changes(tmp_path: Path) -> None:
    frame = pd.DataFrame({**ROWS, "more": [1, 2, 3]})
    first = of_frame(tmp_path, frame)
    before = first.folder.stat()
    again = of_frame(tmp_path, frame.assign(more=0)[["timestamp", "more", "item", "user"]])
    assert again.folder.stat() == before
    assert of_frame(tmp_path, exported("chunks")).folder == first.folder
    assert of_frame(tmp_path, exported("views")).folder == first.folder
    for name, value in (("user", "c"), ("item", 9), ("timestamp", 9)):
        changed = frame.copy()
        changed.loc[2, name] = value
        assert of_frame(tmp_path, changed).folder != first.folder


def test_the_digest_does_not_depend_on_chunks_or_on_the_type_of_text() -> None:
    texts = ["b", None, "", "äb", "b"]
    lists = [[1, 2], None, [], [3], [None]]
    expected = digest_of_columns(pa.table({"t": texts, "l": lists, "n": [1, 2, None, 4, 5]}))
    kinds = (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    )
    for kind in kinds:
        column = pa.array(texts).cast(kind)
        table = pa.table({"t": column, "l": lists, "n": [1, 2, None, 4, 5]})
        for size in (1, 2, 5):
            parts = [table.slice(start, size) for start in range(0, 5, size)]
            assert digest_of_columns(pa.concat_tables(parts)) == expected
    for other in (
        {"t": ["b", "", None, "äb", "b"], "l": lists, "n": [1, 2, None, 4, 5]},
        {"t": ["bä", None, "", "b", "b"], "l": lists, "n": [1, 2, None, 4, 5]},
        {"t": texts, "l": [[1], None, [2], [3], [None]], "n": [1, 2, None, 4, 5]},
        {"t": texts, "l": lists, "n": [1, 2, 0, 4, 5]},
        {"t": texts, "l": lists, "n": [1.0, 2.0, None, 4.0, 5.0]},
        {"u": texts, "l": lists, "n": [1, 2, None, 4, 5]},
    ):
        assert digest_of_columns(pa.table(other)) != expected


def test_what_a_null_covers_does_not_enter_the_digest() -> None:
    covered = pa.Array.from_buffers(
        pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(np.array([1, 9]).tobytes())]
    )
    digest = digest_of_columns(pa.table({"n": pa.array([1, None], pa.int64())}))
    assert digest_of_columns(pa.table({"n": covered})) == digest


def test_a_dictionary_that_holds_a_null_is_read(tmp_path: Path) -> None:
    users = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["b", None, "b"]))
    corpus = of_frame(tmp_path, pa.table({**ROWS, "user": users}), missing="drop")
    assert histories(corpus) == {"b": ["5", "3"]}


def test_lists_are_read_from_a_frame_that_counts_as_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["a", "b"], "item": [["x", "y"], ["x"]]})
    corpus = assert_like_parquet(tmp_path, frame, timestamp_column=None)
    assert histories(corpus) == {"a": ["x", "y"], "b": ["x"]}
    message = r"row 1, column 'item': \['x', 'y'\] is list, neither text nor a number"
    refused(tmp_path / "csv", frame, message, timestamp_column=None)
    table = pa.table({"user": ["a", "b"], "item": [["x", "y"], ["x"]]})
    refused(tmp_path / "csv", table, "CSV has no lists", timestamp_column=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": ["a", "b", None]}, r"the frame, row 3, column 'user': the cell is empty"),
        ({"user": [True, False, True]}, r"the frame, row 1, column 'user' holds bool"),
        ({"item": pd.Categorical([True, False, True])}, r"column 'item' holds bool"),
        ({"user": pd.array([True, None, True], "boolean")}, r"column 'user': the cell is empty"),
        (
            {"user": np.array(["a", True, "b"], dtype=object)},
            r"the frame, row 2, column 'user': True is bool, neither text nor a number",
        ),
        (
            {"user": pd.Series(["a", "b", "\ud800"], dtype=object)},
            r"row 3, column 'user': '\\ud800' has half of a surrogate",
        ),
        ({"timestamp": [1.0, 2.0, np.inf]}, r"row 3, column 'timestamp': inf is not finite"),
        ({"timestamp": ["1", "2", "now"]}, r"row 3, column 'timestamp': 'now' is no number"),
        ({"timestamp": [True, False, True]}, r"row 1, .*: bool is no type of times"),
        ({"user": SECONDS[:3]}, r"column 'user' holds timestamp\[.*; ids must be integers or text"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_row_and_column(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    refused(tmp_path, pd.DataFrame({**ROWS, **change}), message)


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    message = r"the frame: there is no column 'usr'; the columns are user, item, timestamp; "
    refused(tmp_path, frame, message, user_column="usr")
    double = pd.concat([frame, frame[["user"]]], axis=1)
    refused(tmp_path, double, "column 'user' occurs 2 times")
    refused(tmp_path, frame.rename(columns={"user": 1, "item": "1"}), "column '1' occurs 2 times",
            user_column="1", item_column="timestamp", timestamp_column=None)  # fmt: skip
    refused(tmp_path, frame.set_index("user"), "'user' is the index.*call reset_index")
    refused(tmp_path, {**ROWS, "user": ["a"]}, "the columns differ in length")
    refused(tmp_path, {**ROWS, "user": "abc"}, "column 'user' is str; a list or an array")
    refused(tmp_path, {**ROWS, "user": np.ones((3, 2))}, "column 'user': ")
    refused(tmp_path, [1, 2], "list is no frame")


def test_an_index_is_no_column_and_is_told_of_where_it_has_the_name_of_one(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, index=pd.Index([5, 5, 6], name="user"))
    corpus = of_frame(tmp_path, frame)
    assert_same(corpus, of_frame(tmp_path, frame.reset_index(drop=True)))
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["warnings"][0] == (
        "the index is named 'user' too; the column of that name is read."
    )


def test_ids_of_floats_are_told_of(tmp_path: Path) -> None:
    report = of_frame(tmp_path, {**ROWS, "user": np.array([1.0, 2.0, 1.0])}).manifest.report
    assert isinstance(report, dict)
    assert report["warnings"] == [
        "column 'user' holds floats, so its ids are text such as '1.0', as in CSV; make it "
        "integers or text if that is not wanted."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "pairs"}, "source 'pairs': a frame counts as csv or parquet"),
        ({"delimiter": ";"}, "delimiter is for files; a frame does not use it"),
        ({"header": False}, "header is for files"),
        ({"quotes": True}, "quotes is for files"),
        ({"quoted_newlines": True}, "quoted_newlines is for files"),
        ({"raw": "x.csv"}, "raw is for files"),
        ({"rating_column": "item"}, "is read for --min-rating alone"),
        ({"user_core": -1}, "user_core -1"),
        ({"user_column": "item"}, "column 'item' is named for two purposes"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    refused(tmp_path, pd.DataFrame(ROWS), message, **options)


def test_attributes_come_from_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"3": ["red"], "5": ["red", "blue"]}')
    corpus = of_frame(tmp_path, ROWS, attributes=str(tmp_path / "a.json"))
    assert list(corpus.attribute_names) == ["blue", "red"]
    (tmp_path / "a.json").write_text('{"3": ["red"], "5": ["red"]}')
    second = of_frame(tmp_path, ROWS, attributes=str(tmp_path / "a.json"))
    assert second.folder != corpus.folder


def test_attributes_and_titles_are_columns_of_the_frame_or_of_an_items_file(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {**ROWS, "brand": ["x", "x", None], "price": [1.0, 1.0, 2.5], "name": ["A", "A", "B, b"]}
    )
    options = {"attribute_columns": ("brand", "price"), "title_column": "name"}
    corpus = assert_like_csv(tmp_path, frame, **options)
    assert list(corpus.attribute_names) == ["brand:x", "price:1.0", "price:2.5"]
    assert corpus.item_titles is not None
    assert list(corpus.item_titles) == ["A", "B, b"]
    assert_like_parquet(tmp_path, frame, **options)
    frame[["item", "brand"]].drop_duplicates().to_csv(tmp_path / "i.csv", index=False, sep=";")
    corpus = of_frame(
        tmp_path, ROWS, items_file=str(tmp_path / "i.csv"), delimiter=";",
        attribute_columns=("brand",),
    )  # fmt: skip
    assert list(corpus.attribute_names) == ["brand:x"]


def test_no_more_is_kept_of_a_frame_than_its_wanted_columns() -> None:
    values = np.arange(200_000)
    wide = {f"more{number}": np.random.default_rng(0).random(200_000) for number in range(50)}
    table = pa.table({"user": values, "item": values, "timestamp": values, **wide})

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in table.to_batches(max_chunksize=1000):
            # Copies, as a source that computes its rows makes them.
            yield pa.RecordBatch.from_arrays(
                [pa.array(column.to_numpy().copy()) for column in batch.columns],
                names=batch.schema.names,
            )

    reader = pa.RecordBatchReader.from_batches(table.schema, batches())

    before = pa.total_allocated_bytes()
    source = frame_source(reader, PrepareConfig(source="parquet"), "frame")
    assert source.files == ()
    assert pa.total_allocated_bytes() - before < 2 * 3 * values.nbytes
    del reader
