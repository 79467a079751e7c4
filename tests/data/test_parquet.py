"""Parquet as Spark, DuckDB, Polars and pandas write it: what is read, and what is refused."""

import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from research.data.corpus import Corpus
from research.data.preparation.events import Events
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare, source_of
from research.errors import InputError
from tests.support.histories import histories


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
    with pytest.raises(InputError, match="there is no column 'when'; the columns are user"):
        parquet(tmp_path, good, timestamp_column="when")
    (tmp_path / "broken.parquet").write_text("PAR1 no")
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "broken.parquet"))
    with pytest.raises(InputError, match=r"broken\.parquet: not readable as P"):
        prepare(config, data_root=tmp_path / "data")


Event = tuple[str, str, int | None]


def events_in(raw: Path, **options: object) -> Events:
    return source_of(PrepareConfig(source="parquet", raw=str(raw), **options), raw.parent).read()


def rows_in(raw: Path, **options: object) -> list[Event]:
    """User, item and time of each event, in the order that they are read in."""
    events = events_in(raw, **options)
    times = [None] * len(events.users) if events.timestamps is None else events.timestamps.tolist()
    return [
        (events.user_names[user], events.item_names[item], time)
        for user, item, time in zip(events.users.tolist(), events.items.tolist(), times)
    ]


def write(path: Path, columns: dict[str, object], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_a_folder_as_spark_writes_it_is_read_in_the_order_of_its_parts(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"
    days = [datetime.datetime(2020, 1, day) for day in (3, 2, 1)]
    name = "part-0000{}-0a1b-c000.snappy.parquet"
    for number in range(3):
        write(
            folder / name.format(number),
            {"user": ["a"], "item": [f"i{number}"], "timestamp": days[number : number + 1]},
            use_deprecated_int96_timestamps=True,
        )
    write(
        folder / name.format(3),
        {"user": pa.array([], pa.string()), "item": pa.array([], pa.string()),
         "timestamp": pa.array([], pa.timestamp("ns"))},
        use_deprecated_int96_timestamps=True,
    )  # fmt: skip
    (folder / "_SUCCESS").touch()
    (folder / f".{name.format(0)}.crc").write_bytes(b"crc")
    assert rows_in(folder) == [
        ("a", "i0", 1578009600),
        ("a", "i1", 1577923200),
        ("a", "i2", 1577836800),
    ]
    corpus = prepare(PrepareConfig(source="parquet", raw=str(folder)), data_root=tmp_path / "data")
    assert corpus.name == "events"
    assert histories(corpus) == {"a": ["i2", "i1", "i0"]}


def test_the_names_of_folders_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "in" / "date=2020-01-01" / "x.parquet", {"user": ["a", "b"], "item": [1, 2]})
    write(tmp_path / "in" / "date=2020-01-02" / "x.parquet", {"user": ["a"], "item": [3]})
    rows = [("a", "1", 1577836800), ("b", "2", 1577836800), ("a", "3", 1577923200)]
    assert rows_in(tmp_path / "in", timestamp_column="date") == rows
    assert rows_in(tmp_path / "in" / "*" / "*.parquet", timestamp_column="date") == rows
    nested = tmp_path / "shops" / "shop=K%C3%B6ln 1" / "y=1"
    write(nested / "x.parquet", {"item": [1]})
    write(tmp_path / "shops" / "shop=__HIVE_DEFAULT_PARTITION__" / "x.parquet", {"item": [2]})
    options = {"user_column": "shop", "timestamp_column": None}
    with pytest.raises(InputError, match=r"__/x\.parquet, row 1, column 'shop': the cell is empty"):
        rows_in(tmp_path / "shops", **options)
    kept = rows_in(tmp_path / "shops", missing="drop", **options)
    assert kept == [("Köln 1", "1", None)]


def test_a_column_in_the_file_goes_before_the_name_of_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "user=b" / "x.parquet", {"user": ["a"], "item": [1]})
    assert rows_in(path, timestamp_column=None) == [("a", "1", None)]


def test_a_corpus_is_prepared_again_when_only_the_name_of_a_folder_changes(tmp_path: Path) -> None:
    write(tmp_path / "in" / "date=2020-01-01" / "x.parquet", {"user": ["a"], "item": [1]})
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "in"), timestamp_column="date")
    first = prepare(config, data_root=tmp_path)
    assert prepare(config, data_root=tmp_path).folder == first.folder
    (tmp_path / "in" / "date=2020-01-01").rename(tmp_path / "in" / "date=2020-01-02")
    second = prepare(config, data_root=tmp_path)
    assert second.timestamps is not None
    assert second.timestamps.tolist() == [1577923200]


USERS = (
    pa.array(["7", "8"], pa.string()),
    pa.array(["7", "8"], pa.large_string()),
    pa.array(["7", "8"], pa.string_view()),
    pa.array(["7", "8"]).dictionary_encode(),
    pa.array([b"7", b"8"], pa.binary()),
    pa.array([b"7", b"8"], pa.large_binary()),
    pa.array([7, 8], pa.int8()),
    pa.array([7, 8], pa.int64()),
    pa.array([7, 8], pa.uint16()),
    pa.array([7, 8], pa.uint64()),
    pa.array([7.0, 8.0], pa.float32()),
    pa.array([7.0, 8.0], pa.float64()),
    pa.array([Decimal("7.00"), Decimal("8.00")], pa.decimal128(12, 2)),
    pa.array([Decimal("7"), Decimal("8")], pa.decimal128(38, 0)),
    pa.array([Decimal("7"), Decimal("8")], pa.decimal256(50, 0)),
)


@pytest.mark.parametrize("users", USERS, ids=lambda users: str(users.type))
def test_ids_are_text_or_whole_numbers_of_any_type(tmp_path: Path, users: pa.Array) -> None:
    path = write(tmp_path / "p.parquet", {"user": users, "item": ["x", "y"]})
    assert rows_in(path, timestamp_column=None) == [("7", "x", None), ("8", "y", None)]


@pytest.mark.parametrize(
    "users",
    [*USERS, pa.array([b"7", b"8"], pa.binary_view())],
    ids=lambda users: str(users.type),
)
def test_lists_of_items_belong_to_users_of_any_type(tmp_path: Path, users: pa.Array) -> None:
    path = write(tmp_path / "p.parquet", {"user": users, "item": [["x", "y"], ["z"]]})
    rows = [("7", "x", None), ("7", "y", None), ("8", "z", None)]
    assert rows_in(path, timestamp_column=None) == rows


@pytest.mark.parametrize("first", USERS, ids=lambda users: str(users.type))
def test_parts_with_ids_of_two_types_are_one_data_set(tmp_path: Path, first: pa.Array) -> None:
    write(tmp_path / "in" / "0.parquet", {"user": first, "item": ["x", "y"]})
    for second in USERS:
        write(tmp_path / "in" / "1.parquet", {"item": ["z", "w"], "user": second, "more": [1, 2]})
        rows = [("7", "x", None), ("8", "y", None), ("7", "z", None), ("8", "w", None)]
        assert rows_in(tmp_path / "in", timestamp_column=None) == rows, second.type


def test_large_ids_of_two_types_stay_exact(tmp_path: Path) -> None:
    large = 2**63 + 1
    write(tmp_path / "in" / "0.parquet", {"user": pa.array([large], pa.uint64()), "item": [1]})
    write(tmp_path / "in" / "1.parquet", {"user": [2**53 + 1, -1], "item": [1, 1]})
    users = [user for user, _, _ in rows_in(tmp_path / "in", timestamp_column=None)]
    assert users == [str(large), str(2**53 + 1), "-1"]


def test_a_part_whose_ids_are_floats_as_some_are_missing_has_the_same_ids(tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", {"user": [2**53 + 1], "item": [1]})
    write(tmp_path / "in" / "1.parquet", {"user": [7.0, float("nan"), None], "item": [1, 1, 1]})
    write(tmp_path / "in" / "2.parquet", {"user": pa.nulls(1), "item": [1]})
    events = events_in(tmp_path / "in", timestamp_column=None, missing="drop")
    assert events.user_names == ["9007199254740993", "7"]
    assert events.notes["rows_dropped_as_missing"] == 3
    write(tmp_path / "in" / "1.parquet", {"user": [7.0, 7.5], "item": [1, 1]})
    with pytest.raises(InputError, match=r"1\.parquet, row 2, column 'user': 7\.5 is a float"):
        rows_in(tmp_path / "in", timestamp_column=None, missing="drop")


def test_a_uuid_is_its_text(tmp_path: Path) -> None:
    text = "0b0e7c2e-7d1c-4c8a-9a59-0d1f4b1f7f10"
    users = pa.array([UUID(text).bytes], pa.uuid())
    path = write(tmp_path / "p.parquet", {"user": users, "item": ["x"]})
    assert rows_in(path, timestamp_column=None) == [(text, "x", None)]


def test_bytes_that_are_no_text_are_refused_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"user": [b"a", None, b"\xff"], "item": [1, 2, 3]})
    with pytest.raises(
        InputError, match=r"p\.parquet, row 3, column 'user': b'\\xff' is not utf-8"
    ):
        rows_in(path, timestamp_column=None)


def test_booleans_are_no_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"user": [True, False], "item": [1, 2]})
    with pytest.raises(InputError, match="column 'user' holds bool; ids must be integers or text"):
        rows_in(path, timestamp_column=None)


SECOND = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
IN_PARIS = "Europe/Paris"
TIMES = (
    pa.array([SECOND], pa.timestamp("s", "UTC")),
    pa.array([SECOND], pa.timestamp("ms", IN_PARIS)),
    pa.array([SECOND], pa.timestamp("us")),
    pa.array([SECOND], pa.timestamp("ns", "UTC")),
    pa.array([SECOND.date()], pa.date32()),
    pa.array([SECOND.date()], pa.date64()),
)


@pytest.mark.parametrize("first", TIMES, ids=lambda times: str(times.type))
def test_times_of_two_units_or_zones_are_the_same_instants(tmp_path: Path, first: pa.Array) -> None:
    write(tmp_path / "in" / "0.parquet", {"user": [1], "item": [1], "timestamp": first})
    for second in TIMES:
        write(tmp_path / "in" / "1.parquet", {"user": [1], "item": [2], "timestamp": second})
        times = [time for _, _, time in rows_in(tmp_path / "in")]
        assert times == [1577836800, 1577836800], second.type


def test_numbers_for_times_of_two_types_stay_exact(tmp_path: Path) -> None:
    exact = 1_600_000_000_000_000_001
    write(tmp_path / "in" / "0.parquet", {"user": [1], "item": [1], "timestamp": [exact]})
    part = {"user": [1], "item": [2], "timestamp": [1.5e18]}
    write(tmp_path / "in" / "1.parquet", part)
    events = events_in(tmp_path / "in")
    assert events.exact_times is not None
    assert [int(time) for time in events.exact_times] in (
        [exact, 1_500_000_000_000_000_000],
        [1, 0],
    )
    part = {"user": [1], "item": [2], "timestamp": [1.5]}
    write(tmp_path / "in" / "0.parquet", {"user": [1], "item": [1], "timestamp": [2]})
    write(tmp_path / "in" / "1.parquet", part)
    assert [time for _, _, time in rows_in(tmp_path / "in")] == [2, 1]


def test_parts_that_are_not_compatible_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "0.parquet", {"user": [1], "item": [1], "timestamp": TIMES[0]})
    write(tmp_path / "in" / "1.parquet", {"user": [1], "item": [1], "timestamp": [5]})
    with pytest.raises(InputError, match="times of one column must all be numbers or all be dates"):
        rows_in(tmp_path / "in")
    write(tmp_path / "in" / "1.parquet", {"user": [1], "thing": [1], "timestamp": TIMES[0]})
    with pytest.raises(InputError, match=r"1\.parquet: there is no column 'item'"):
        rows_in(tmp_path / "in")


LISTS = (pa.list_, pa.large_list, pa.list_view)


def test_a_row_may_hold_all_items_of_a_user(tmp_path: Path) -> None:
    items = [["x", "y", "x"], [], None, ["z"]]
    times = [[30, 10, 20], [], None, [5]]
    for kind in LISTS:
        columns = {
            "user": pa.array(["a", "b", "c", "d"]),
            "items": pa.array(items, kind(pa.string())),
            "times": pa.array(times, kind(pa.int64())),
        }
        path = write(tmp_path / "p.parquet", columns)
        rows = [("a", "x", 30), ("a", "y", 10), ("a", "x", 20), ("d", "z", 5)]
        events = events_in(path, item_column="items", timestamp_column="times")
        assert (events.notes["lists_read"], events.notes["lists_without_items"]) == (4, 2)
        assert rows_in(path, item_column="items", timestamp_column="times") == rows
        # The order of the lists holds where times are not read.
        items_alone = [item for _, item, _ in rows_in(path, item_column="items",
                                                      timestamp_column=None)]  # fmt: skip
        assert items_alone == ["x", "y", "x", "z"]


def test_one_time_beside_a_list_is_that_of_all_its_items(tmp_path: Path) -> None:
    columns = {"user": ["a", "a"], "item": [[1, 2], [3]], "timestamp": [8, 9]}
    path = write(tmp_path / "p.parquet", columns)
    assert rows_in(path) == [("a", "1", 8), ("a", "2", 8), ("a", "3", 9)]


def test_lists_of_fixed_size_are_read(tmp_path: Path) -> None:
    items = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))
    path = write(tmp_path / "p.parquet", {"user": ["a", "b"], "item": items})
    users_and_items = [(user, item) for user, item, _ in rows_in(path, timestamp_column=None)]
    assert users_and_items == [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]


def test_wrong_lists_are_refused_by_row(tmp_path: Path) -> None:
    columns = {"user": ["a", "b"], "item": [["x"], ["y", "z"]], "timestamp": [[1], [2]]}
    path = write(tmp_path / "p.parquet", columns)
    message = r"p\.parquet, row 2: 2 entries in column 'item', but 1 in column 'timestamp'"
    with pytest.raises(InputError, match=message):
        rows_in(path)
    path = write(tmp_path / "p.parquet", {**columns, "timestamp": [None, [2, 3]]})
    with pytest.raises(InputError, match=r"row 1: 1 entries .*, but 0 in column 'timestamp'"):
        rows_in(path)
    path = write(tmp_path / "p.parquet", {**columns, "item": ["x", "y"]})
    with pytest.raises(
        InputError, match=r"column 'timestamp' holds list<.*where the column of items"
    ):
        rows_in(path)
    path = write(tmp_path / "p.parquet", {"user": [["a"]], "item": [["x"]]})
    with pytest.raises(InputError, match=r"column 'user' holds list<.*where the column of items"):
        rows_in(path, timestamp_column=None)
    path = write(tmp_path / "p.parquet", {"user": ["a", "b"], "item": [["x"], ["y", None]]})
    with pytest.raises(InputError, match=r"row 2, entry 2, column 'item': the cell is empty"):
        rows_in(path, timestamp_column=None)
    path = write(
        tmp_path / "p.parquet", {"user": ["a"], "item": pa.array([[]], pa.list_(pa.int64()))}
    )
    with pytest.raises(InputError, match=r"p\.parquet, row 1: there are no interactions"):
        rows_in(path, timestamp_column=None)


def test_a_field_of_a_struct_is_named_with_a_dot(tmp_path: Path) -> None:
    columns = {
        "actor": [{"id": "a", "at": {"time": 5}}, {"id": "b", "at": {"time": 6}}],
        "item": [1, 2],
        "actor.name": ["c", "d"],
    }
    path = write(tmp_path / "p.parquet", columns)
    options = {"user_column": "actor.id", "timestamp_column": "actor.at.time"}
    assert rows_in(path, **options) == [("a", "1", 5), ("b", "2", 6)]
    assert [row[0] for row in rows_in(path, user_column="actor.name", timestamp_column=None)] == [
        "c",
        "d",
    ]
    with pytest.raises(InputError, match=r"no column 'actor\.no'; .* actor, actor\.id, actor\.at"):
        rows_in(path, user_column="actor.no")
    path = write(tmp_path / "p.parquet", {"actor": [{"id": "a"}, None], "item": [1, 2]})
    with pytest.raises(InputError, match=r"row 2, column 'actor\.id': the cell is empty"):
        rows_in(path, user_column="actor.id", timestamp_column=None)


def test_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    columns = {"user": ["a"], "item": ["x"], "timestamp": [1], "text": ["much text" * 100_000]}
    path = write(tmp_path / "p.parquet", columns, compression=None, use_dictionary=False)
    raw = path.read_bytes()
    # The content of the other column is damaged, which only its reader would see.
    path.write_bytes(raw.replace(b"much text" * 100_000, b"\xff" * 900_000))
    assert rows_in(path) == [("a", "x", 1)]


def test_no_event_is_lost_or_invented(tmp_path: Path) -> None:
    users = [None if number % 7 == 0 else f"u{number % 5}" for number in range(1000)]
    items = [None if number % 11 == 0 else number % 13 for number in range(1000)]
    table = pa.table({"user": users, "item": items, "timestamp": list(range(1000))})
    for start in range(0, 1000, 300):
        pq.write_table(
            table.slice(start, 300), tmp_path / f"{start:04d}.parquet", row_group_size=70
        )
    expected = [
        (user, str(item), time)
        for time, (user, item) in enumerate(zip(users, items))
        if user is not None and item is not None
    ]
    assert rows_in(tmp_path, missing="drop", time_unit="s") == expected
    dropped = events_in(tmp_path, missing="drop", time_unit="s").notes["rows_dropped_as_missing"]
    assert dropped == 1000 - len(expected)


def test_an_encrypted_or_cut_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"user": ["a"], "item": ["x"], "timestamp": [1]})
    raw = path.read_bytes()
    for bad in (raw[:-4] + b"PARE", raw[:-9], raw[: len(raw) // 2], b"PAR1" + raw):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"p\.parquet: not readable as Parquet"):
            rows_in(path)


def test_a_dictionary_may_hold_a_value_twice(tmp_path: Path) -> None:
    codes = pa.array([0, 1, 2, None], pa.int32())
    users = pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b", "a"]))
    path = write(tmp_path / "p.parquet", {"user": users, "item": [1, 2, 3, 4]})
    events = events_in(path, timestamp_column=None, missing="drop")
    assert events.user_names == ["a", "b"]
    assert events.users.tolist() == [0, 1, 0]
