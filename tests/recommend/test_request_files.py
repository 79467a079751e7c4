"""Histories and ids come out of files as they went in, and what is wrong in one is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from research.errors import InputError
from research.recommend.request_files import read_histories, read_id_file
from tests.support.odd_names import ODD_NAMES

HALF = len(ODD_NAMES) // 2
EVENTS = pd.DataFrame(
    {
        "user": ["a, b"] * HALF + ["-2"] * HALF,
        "item": ODD_NAMES,
        "other": 0,
        # Newest first, but the last two of a user at one time.
        "timestamp": [*range(HALF + 100, 102, -1), 100, 100, *range(HALF + 100, 102, -1), 100, 100],
    }
)


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        lines = [json.dumps(row) for row in frame.to_dict("records")]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_events_become_histories_in_order(tmp_path: Path, suffix: str) -> None:
    path = written(EVENTS.drop(columns="timestamp"), tmp_path / f"events{suffix}")
    read = read_histories(path)
    assert (read.names, read.times) == (["a, b", "-2"], None)
    assert read.histories == [ODD_NAMES[:HALF], ODD_NAMES[HALF:]]
    timed = read_histories(written(EVENTS, tmp_path / f"timed{suffix}"))
    newest_first = [*range(HALF - 3, -1, -1)]
    order = [HALF - 2, HALF - 1, *newest_first]
    assert timed.histories == [
        [ODD_NAMES[place] for place in order], [ODD_NAMES[HALF + place] for place in order]
    ]  # fmt: skip
    assert timed.times == [[100, 100, *range(103, HALF + 101)]] * 2
    renamed = EVENTS.rename(columns={"user": "who", "item": "what", "timestamp": "when"})
    again = read_histories(
        written(renamed, tmp_path / f"renamed{suffix}"),
        user_column="who",
        item_column="what",
        timestamp_column="when",
    )
    assert (again.histories, again.times) == (timed.histories, timed.times)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_times_are_never_passed_over_in_silence(tmp_path: Path, suffix: str) -> None:
    events = pd.DataFrame({"user": ["u", "u"], "item": ["new", "old"], "bought_at": [9, 8]})
    path = written(events, tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match=r"'bougth_at'.*; did you mean bought_at\?"):
        read_histories(path, timestamp_column="bougth_at")
    named = read_histories(path, timestamp_column="bought_at")
    assert (named.histories, named.timestamp_column) == ([["old", "new"]], "bought_at")
    # Nothing tells that this column holds times.
    unnamed = read_histories(path)
    assert (unnamed.histories, unnamed.timestamp_column) == ([["new", "old"]], None)
    path = written(events.rename(columns={"bought_at": "Date"}), tmp_path / f"b{suffix}")
    with pytest.raises(InputError, match="but Date may hold times; say so with --timestamp-column"):
        read_histories(path)
    with pytest.raises(InputError, match="a column is named for two purposes"):
        read_histories(path, timestamp_column="item")


def test_every_line_of_json_says_which_fields_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    without = '{"user": "u", "item": "first"}\n'
    with_time = '{"user": "u", "item": "i", "timestamp": 7}\n'
    for text, line in ((without + with_time, 1), (with_time + without, 2)):
        path.write_text(text)
        with pytest.raises(InputError, match=f"line {line}, column 'timestamp': the cell is empty"):
            read_histories(path)
    # As far into the file as nobody looks for the names of fields.
    path.write_text(without * 300 + with_time)
    with pytest.raises(InputError, match="line 1, column 'timestamp': the cell is empty"):
        read_histories(path)
    path.write_text('{"user": "u", "itm": "i"}\n')
    with pytest.raises(InputError, match=r"no line has the field 'item'; .* mean itm"):
        read_histories(path)


def test_tabs_and_quotes_around_every_name(tmp_path: Path) -> None:
    events = EVENTS.drop(columns="timestamp")
    for name, separator in (("a.tsv", "\t"), ("b.csv", ";")):
        events.to_csv(tmp_path / name, index=False, sep=separator, quoting=csv.QUOTE_ALL)
        assert read_histories(tmp_path / name).histories == [ODD_NAMES[:HALF], ODD_NAMES[HALF:]]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_null_is_no_event(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"lists{suffix}"
    for items, times in (
        ([["a"], ["b", None]], [[1], [2, 3]]),
        ([["a"], None], [[1], [2, 3]]),
        ([["a"], ["b", "c"]], [[1], [2, None]]),
        ([["a"], ["b", "c"]], [[1], None]),
    ):
        rows = {"user": ["u", "v"], "item": items, "timestamp": times}
        table = pa.table(rows)
        if suffix == ".parquet":
            parquet.write_table(table, path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        with pytest.raises(InputError, match=r"(row|line) 2, .*: (the cell is empty|a list with)"):
            read_histories(path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_lists_are_histories_and_may_be_empty(tmp_path: Path, suffix: str) -> None:
    rows = {"user": ["u1", "u2", "u3"], "item": [["x", "y"], [], ["z"]]}
    read = read_histories(written(pd.DataFrame(rows), tmp_path / f"lists{suffix}"))
    assert read.names == ["u1", "u2", "u3"]
    assert read.histories == [["x", "y"], [], ["z"]]
    times = {"timestamp": [[9, 8], [], [7]]}
    read = read_histories(written(pd.DataFrame({**rows, **times}), tmp_path / f"timed{suffix}"))
    assert read.histories == [["y", "x"], [], ["z"]]
    assert read.times == [[8, 9], [], [7]]
    short = {"timestamp": [[9], [], [7]]}
    with pytest.raises(InputError, match="'item' and 'timestamp' hold lists of different lengths"):
        read_histories(written(pd.DataFrame({**rows, **short}), tmp_path / f"short{suffix}"))
    empty = pd.DataFrame({"user": ["u1"], "item": [[]]})
    assert read_histories(written(empty, tmp_path / f"empty{suffix}")).histories == [[]]


def test_numbers_are_the_ids_that_prepare_makes_of_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [7, 7, 5], "item": [30, 4, 30]})
    for suffix in (".csv", ".parquet", ".jsonl"):
        read = read_histories(written(frame, tmp_path / f"numbers{suffix}"))
        assert (read.names, read.histories) == (["7", "5"], [["30", "4"], ["30"]])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".txt"])
def test_ids_are_read_once_each_and_exactly(tmp_path: Path, suffix: str) -> None:
    names = [name for name in ODD_NAMES if suffix != ".txt" or "\n" not in name]
    path = tmp_path / f"ids{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join([*names, "", names[0]]) + "\n")
    else:
        written(pd.DataFrame({"x": 1, "item": [*names, names[0]]}), path)
    assert read_id_file(path, "item") == names


def test_a_text_of_ids_may_have_a_byte_order_mark_and_be_compressed(tmp_path: Path) -> None:
    text = "\ufeffnaïve \r\n\n7\n".encode()
    (tmp_path / "ids.txt").write_bytes(text)
    (tmp_path / "ids.txt.gz").write_bytes(gzip.compress(text))
    for name in ("ids.txt", "ids.txt.gz"):
        assert read_id_file(tmp_path / name, "item") == ["naïve ", "7"]
    (tmp_path / "ids.TXT").write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match=r"ids\.TXT, line 2: not utf-8 text"):
        read_id_file(tmp_path / "ids.TXT", "item")
    (tmp_path / "ids.md").write_bytes(text)
    with pytest.raises(InputError, match=r"ids\.md: only files that end in .*\.txt"):
        read_id_file(tmp_path / "ids.md", "item")


def test_what_is_wrong_in_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,itm\nu,i\n")
    with pytest.raises(InputError, match=r"a\.csv: there is no column 'item'; .* mean itm\?"):
        read_histories(path)
    path.write_text("user,item\nu,i\nu,\n")
    with pytest.raises(InputError, match=r"a\.csv, line 3, column 'item': the cell is empty"):
        read_histories(path)
    path = written(pd.DataFrame({"user": ["u"], "item": [["i", None]]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match=r"list\.parquet, row 1, column 'item': the cell is empty"):
        read_histories(path)
    path = tmp_path / "a.jsonl"
    path.write_text("user\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: no JSON"):
        read_histories(path)
    path = tmp_path / "a.parquet"
    path.write_text("no\n")
    with pytest.raises(InputError, match=r"a\.parquet: not readable as Parquet"):
        read_histories(path)
    with pytest.raises(InputError, match=r"b\.csv is not a file"):
        read_histories(tmp_path / "b.csv")
    path = tmp_path / "a.xlsx"
    path.write_text("x")
    with pytest.raises(InputError, match=r"a\.xlsx: only files that end in \.csv, \.tsv"):
        read_id_file(path, "user")
