"""Files of kinds that were read wrongly: the right events come out, or the right line is named."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.preparation.raw_tables import RawTable, concatenated
from research.errors import InputError
from tests.support.histories import histories


def prepared(
    tmp_path: Path, name: str, text: str, source: str = "csv", **options: object
) -> Corpus:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    config = PrepareConfig(source=source, raw=str(path), **options)
    corpus = prepare(config, data_root=tmp_path / "data")
    corpus.verify()
    return corpus


def times(corpus: Corpus) -> list[int]:
    assert corpus.timestamps is not None
    return [int(time) for time in corpus.timestamps]


NO_TIMES = {"timestamp_column": None}


def listens(separator: str) -> str:
    """27 events; the names of two bands, which are not asked for, hold one quote each."""
    lines = ["user,item,artist,plays", "u0,m0,band 0,9", "u0,m1,band 1,8", "u0,m2,band 2,7"]
    lines += ['u0,m9,"idols,3', "u0,m3,band 3,6", "u0,m4,band 4,5"]
    lines += [f"u1,m{n},band {n},{9 - n}" for n in range(5)]
    lines += ['u2,m11,encore ",3', *(f"u2,m{n},band {n},{9 - n}" for n in range(5))]
    lines += [f"u{user},m{n},band {n},{9 - n}" for user in (3, 4) for n in range(5)]
    return "\n".join(lines).replace(",", separator) + "\n"


def test_stray_quotes_swallow_no_lines_of_a_tsv(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "listens.tsv", listens("\t"), **NO_TIMES)
    assert corpus.num_interactions == 27
    assert histories(corpus)["u0"] == ["m0", "m1", "m2", "m9", "m3", "m4"]
    assert list(corpus.user_names) == ["u0", "u1", "u2", "u3", "u4"]


def test_the_line_of_a_stray_quote_in_a_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"listens\.csv, line 5: a quote opens a field that does"):
        prepared(tmp_path, "listens.csv", listens(","), **NO_TIMES)
    corpus = prepared(tmp_path, "listens.csv", listens(","), quotes=False, **NO_TIMES)
    assert corpus.num_interactions == 27


STRAY_QUOTES = {
    # Two quotes that would make one field of three lines, and as many columns.
    'user,item,note\na,x,1\nb,"y,2\nc,z,3\nd,w",4\n': 3,
    # What follows a closing quote.
    'user,item,note\na,x,"so" he said\nb,y,2\n': 2,
    # A quote that opens in the last column and closes in the first one of the next line.
    'user,item,note\na,x,"one\nb",y,two\nc,z,3\n': 2,
}


@pytest.mark.parametrize("text", STRAY_QUOTES)
def test_no_lines_of_a_csv_become_one_field(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=rf"c\.csv, line {STRAY_QUOTES[text]}[:,]"):
        prepared(tmp_path, "c.csv", text, **NO_TIMES)
    corpus = prepared(tmp_path, "c.csv", text, quotes=False, **NO_TIMES)
    assert corpus.num_interactions == text.count("\n") - 1


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        # Tenths of a second, newest first.
        ([f"{n},1600000000.{n}" for n in (5, 4, 3, 2, 1, 0)], "012345"),
        # The same in milliseconds.
        ([f"{n},1600000000000.{n}" for n in (3, 2, 1)], "123"),
        # Before 1970.
        (["1,-0.5", "0,-0.75", "2,-0.25"], "012"),
        # Nanoseconds, one of which was written as a float.
        (
            ["1,1600000000000000001", "0,1600000000000000000", "2,1600000000000000100.0"],
            "012",
        ),
        # Beyond the integers that a float holds.
        (["1,9007199254740993", "0,9007199254740992", "2,9007199254740994.5"], "012"),
        (["1,1e16", "0,9999999999999999", "2,10000000000000001"], "012"),
        # More digits than a float holds.
        (["1,1600000000.0000000002", "0,1600000000.0000000001", "2,1600000000.1"], "012"),
    ],
)
def test_events_are_in_the_order_of_the_times_as_given(
    tmp_path: Path, rows: list[str], order: str
) -> None:
    text = "\n".join(["user,item,timestamp", *(f"a,{row}" for row in rows)])
    assert histories(prepared(tmp_path, "c.csv", text)) == {"a": list(order)}


def test_a_time_that_was_a_float_is_told(tmp_path: Path) -> None:
    text = "user,item,timestamp\na,1,1600000000000000001\na,2,1600000000000000100.0\n"
    report = prepared(tmp_path, "c.csv", text).manifest.report
    assert isinstance(report, dict)
    (said,) = [text for text in report["warnings"] if "too large for a float" in text]
    assert "c.csv, line 3, column 'timestamp'" in said


BLANK_FIRST = "\nuser,item\na,1\na,2\na,3\nb,2\nb,3\nb,1\n"


@pytest.mark.parametrize(
    "text",
    [
        BLANK_FIRST,
        BLANK_FIRST.replace("\n", "\r\n"),
        BLANK_FIRST.replace("\n", "\r"),
        "\ufeff\n\n" + BLANK_FIRST,
        "\n" * 5000 + BLANK_FIRST,
        BLANK_FIRST.replace("user,item", '"user","item"'),
    ],
)
def test_blank_lines_before_the_header_are_no_rows(tmp_path: Path, text: str) -> None:
    corpus = prepared(tmp_path, "c.csv", text, **NO_TIMES)
    assert histories(corpus) == {"a": ["1", "2", "3"], "b": ["2", "3", "1"]}


def test_blank_lines_before_the_header_of_other_formats_are_no_rows(tmp_path: Path) -> None:
    text = "\n\nuser_id:token\titem_id:token\na\t1\nb\t2\n"
    assert histories(prepared(tmp_path, "x.inter", text, "atomic")) == {"a": ["1"], "b": ["2"]}
    text = "\nuserId,movieId,rating,timestamp\n1,7,4,5\n2,8,3,6\n"
    corpus = prepared(tmp_path, "ratings.csv", text, "movielens")
    assert histories(corpus) == {"1": ["7"], "2": ["8"]}


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        (
            "pairs",
            "1 007\n1 7\n1 8\n2 7\n2 007\n",
            {"1": ["007", "7", "8"], "2": ["7", "007"]},
        ),
        ("pairs", "1 5\n01 5\n", {"1": ["5"], "01": ["5"]}),
        ("pairs", "1 0\n1 00\n1 000\n", {"1": ["0", "00", "000"]}),
        ("s3rec", "1 007 7\n2 7 07\n", {"1": ["007", "7"], "2": ["7", "07"]}),
        ("s3rec", "1 5 6\n01 5\n", {"1": ["5", "6"], "01": ["5"]}),
        # Lines that end as on old Macs.
        ("pairs", "1 5\r2 6\r", {"1": ["5"], "2": ["6"]}),
        ("s3rec", "1 5 6\r2 7 8\r", {"1": ["5", "6"], "2": ["7", "8"]}),
    ],
)
def test_ids_of_digits_are_text(
    tmp_path: Path, source: str, text: str, expected: dict[str, list[str]]
) -> None:
    assert histories(prepared(tmp_path, "X.txt", text, source)) == expected


NO_IDS = "user,item,timestamp\na,1,1\na,nan,2\na,3,3\nb,NULL,1\nb,None,2\nb,\\N,3\nc,4,1\n"


def test_words_for_nothing_are_no_items(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3, column 'item': 'nan' .* value: 4 in column 'i"):
        prepared(tmp_path, "c.csv", NO_IDS)
    corpus = prepared(tmp_path, "c.csv", NO_IDS, missing="drop")
    assert histories(corpus) == {"a": ["1", "3"], "c": ["4"]}
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["rows_dropped_as_missing"] == 4
    assert report["missing_cells"] == {"user": 0, "item": 4, "timestamp": 0}
    kept = prepared(tmp_path, "c.csv", NO_IDS, missing_words=("",))
    assert histories(kept)["b"] == ["NULL", "None", "\\N"]


@pytest.mark.parametrize(
    ("source", "name", "text", "message"),
    [
        ("csv", "c.csv", "user,item,timestamp\na,1,1\n<NA>,1,2\n", "line 3, column 'user': '<NA>'"),
        ("csv", "c.tsv", "user\titem\ttimestamp\na\tN/A\t1\n", "line 2, column 'item': 'N/A'"),
        ("csv", "c.csv", "user,item,timestamp\na, ,1\n", "line 2, column 'item': ' ' stands for"),
        (
            "atomic",
            "x.inter",
            "user_id:token\titem_id:token\na\t1\nNaN\t1\n",
            "line 3, column 'user_id': 'NaN'",
        ),
    ],
)
def test_words_for_nothing_are_refused_by_name(
    tmp_path: Path, source: str, name: str, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, name, text, source)


@pytest.mark.parametrize(
    ("dates", "seconds"),
    [
        (
            ["2020-01-01 10:00:00", "2020-01-02 10:00:00", "2020-01-03 10:00:00"],
            [1577872800, 1577959200, 1578045600],
        ),
        # Six past six in Berlin is before half past four in Greenwich.
        (["2024-08-06T06:06:10+02:00", "2024-08-06T04:30:00Z"], [1722917170, 1722918600]),
        (["20240806", "20240807"], [1722902400, 1722988800]),
        # As pandas writes whole numbers of which one was missing.
        (["20240806.0", "20240807.0"], [1722902400, 1722988800]),
        (["1969/12/31", "1970/01/01"], [-86400, 0]),
        (["2500-01-01", "2500-01-02"], [16725225600, 16725312000]),
    ],
)
def test_dates_are_times(tmp_path: Path, dates: list[str], seconds: list[int]) -> None:
    rows = [f"a,{place},{date}" for place, date in enumerate(dates)]
    # The newest comes first, so that the order is that of the times.
    corpus = prepared(tmp_path, "c.csv", "\n".join(["user,item,timestamp", *rows[::-1]]))
    assert times(corpus) == seconds
    assert histories(corpus) == {"a": [str(place) for place in range(len(dates))]}


@pytest.mark.parametrize(
    "review",
    [
        "Great product.\nI love it, really.\n" * 3,
        "Great product.\r\nI love it, really.\r\n\r\n" * 3,
        'She said ""no"".\nI said ""yes"", as in:\n\nuser,item,timestamp\n',
        "One.\rTwo.\r" * 4,
    ],
)
def test_reviews_of_many_lines_are_read_in_files_of_any_size(tmp_path: Path, review: str) -> None:
    rows = [f'U{n % 50},B{n * 7 % 300},{1000 + n},"{review}"' for n in range(24_000)]
    text = "\n".join(["user,item,timestamp,text", *rows]) + "\n"
    assert len(text) > 1 << 20
    corpus = prepared(tmp_path, "reviews.csv", text, quoted_newlines=True)
    assert corpus.num_interactions == 24_000
    assert times(corpus)[:2] == [1000, 1050]
    with pytest.raises(InputError, match=r"reviews\.csv, line 2: a quote opens .*--quoted-newlin"):
        prepared(tmp_path, "reviews.csv", text)


SHOP = "user,item,timestamp\na,1,5\nb,2,6\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ""}, r"delimiter '': one ASCII character"),
        ({"delimiter": "¦"}, r"delimiter '¦': one ASCII character"),
        ({"delimiter": "\0"}, r"delimiter '\\x00': one ASCII character"),
        ({"delimiter": "::", "quotes": True}, r"--quotes True: no quotes are read where `::`"),
        ({"quotes": False, "quoted_newlines": True}, r"--quoted-newlines True: where ','"),
        ({"missing": "skip"}, r"missing 'skip'; allowed: error, drop"),
        ({"time_unit": "sec"}, r"time_unit 'sec'; allowed: auto, s, ms, us, ns"),
        ({"time_format": "mixed"}, r"--time-format 'mixed': expected a form"),
        ({"time_unit": "s", "timestamp_column": None}, r"--time-unit: no times are read"),
        ({"time_format": "%Y", "timestamp_column": None}, r"--time-format: no times are read"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "c.csv", SHOP, **options)


def test_a_unit_is_refused_for_dates(tmp_path: Path) -> None:
    text = "user,item,timestamp\na,1,2024-08-06\n"
    with pytest.raises(InputError, match=r"line 2, column 'timestamp': times are dates"):
        prepared(tmp_path, "c.csv", text, time_unit="ms")


def test_the_delimiter_of_a_file_without_header_is_told_or_asked_for(tmp_path: Path) -> None:
    columns = {"header": False, "user_column": "1", "item_column": "2", **NO_TIMES}
    # Decimal commas; cut at them, a user would be "u1 i1 3".
    text = "u1\ti1\t3,5\nu2\ti2\t4,5\n"
    with pytest.raises(InputError, match=r"',' and '\\t' can both separate columns.*--delimiter"):
        prepared(tmp_path, "c.csv", text, **columns)
    corpus = prepared(tmp_path, "c.csv", text, delimiter="\\t", **columns)
    assert histories(corpus) == {"u1": ["i1"], "u2": ["i2"]}
    assert histories(prepared(tmp_path, "d.csv", "u1|i1\nu2|i2\n", **columns)) == {
        "u1": ["i1"],
        "u2": ["i2"],
    }
    with pytest.raises(InputError, match=r"e\.csv, line 2: 2 fields; expected 3 \(1;2;3\)"):
        prepared(tmp_path, "e.csv", "u1;i1;3\nu2;i2\n", **columns)


@pytest.mark.parametrize(
    "header",
    [
        'user,item,"two\nlines"',
        'user,item,"a"',
        "\ufeffuser,item,",
        'user,item,"' + "x" * 2_000_000 + '"',
    ],
)
def test_a_header_may_hold_any_names(tmp_path: Path, header: str) -> None:
    corpus = prepared(
        tmp_path, "c.csv", f"{header}\na,1,x\nb,2,y\n", quoted_newlines=True, **NO_TIMES
    )
    assert histories(corpus) == {"a": ["1"], "b": ["2"]}


def test_names_of_other_columns_may_repeat_and_need_not_be_utf_8(tmp_path: Path) -> None:
    raw = tmp_path / "c.csv"
    raw.write_bytes(b"user,pr\xe9nom,item,x,x\na,\xe9,1,2,3\n")
    config = PrepareConfig(source="csv", raw=str(raw), timestamp_column=None)
    assert histories(prepare(config, data_root=tmp_path)) == {"a": ["1"]}


def test_a_number_may_be_a_word_for_nothing(tmp_path: Path) -> None:
    text = "user,item,rating,timestamp\na,1,4,5\na,2,-1,6\na,3,4,-1\n"
    options = {"missing": "drop", "missing_words": ("", "-1"), "min_rating": 0.0}
    assert histories(prepared(tmp_path, "c.csv", text, **options)) == {"a": ["1"]}


def test_a_file_beside_its_compressed_self_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "c.csv").write_text(SHOP)
    (folder / "c.csv.gz").write_bytes(gzip.compress(SHOP.encode()))
    config = PrepareConfig(source="csv", raw=str(folder))
    with pytest.raises(InputError, match=r"c\.csv and c\.csv\.gz would be one file"):
        prepare(config, data_root=tmp_path / "data")
    (folder / "c.csv").rename(folder / "b.csv")
    assert prepare(config, data_root=tmp_path / "data").num_interactions == 4


def test_a_corpus_is_named_by_all_of_a_file_name_but_its_format(tmp_path: Path) -> None:
    lines = "user,item,timestamp\na,x,1\nb,x,2\n"
    assert prepared(tmp_path, "x.2024.csv", lines).name == "x.2024"
    assert prepared(tmp_path, "x.2024.txt", lines, user_core=1).name == "x.2024"
    objects = '{"user": "a", "item": "x", "timestamp": 1}\n'
    assert prepared(tmp_path, "y.5.jsonl", objects, "jsonl").name == "y.5"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "int32", "float32", "decimal", "dictionary"])
def test_a_number_among_the_missing_words_is_missing_in_every_format(
    tmp_path: Path, kind: str
) -> None:
    options: dict[str, object] = {"missing": "drop", "missing_words": ("", "-1"), **NO_TIMES}
    if kind == "csv":
        corpus = prepared(tmp_path, "e.csv", "user,item\na,3\na,-1\n", **options)
    elif kind == "jsonl":
        lines = '{"user": "a", "item": 3}\n{"user": "a", "item": -1}\n'
        corpus = prepared(tmp_path, "e.jsonl", lines, "jsonl", **options)
    else:
        types = {
            "int32": pa.int32(),
            "float32": pa.float32(),
            "decimal": pa.decimal128(24, 2),
            "dictionary": pa.dictionary(pa.int8(), pa.int64()),
        }
        items = pa.array([3, -1]).cast(pa.float64() if kind == "float32" else pa.int64())
        items = items.dictionary_encode() if kind == "dictionary" else items.cast(types[kind])
        path = tmp_path / "e.parquet"
        parquet.write_table(pa.table({"user": ["a", "a"], "item": items}), path)
        config = PrepareConfig(source="parquet", raw=str(path), **options)
        corpus = prepare(config, data_root=tmp_path / "data")
    assert histories(corpus) == {"a": ["3"]}
    assert corpus.manifest.report["rows_dropped_as_missing"] == 1


def test_a_missing_word_that_a_column_cannot_hold_is_no_error(tmp_path: Path) -> None:
    words = ("", "1e30", "0.5", "nan", "99999999999999999999", "1e999999999")
    corpus = prepared(
        tmp_path, "e.jsonl", '{"user": 1, "item": 3}\n', "jsonl", missing_words=words, **NO_TIMES
    )
    assert histories(corpus) == {"1": ["3"]}


MOVIELENS_CSV = "userId,movieId,rating,timestamp\n1,2,3.0,\n"
DIGINETICA = "sessionId;userId;itemId;timeframe;eventdate\n1;NA;8;;2016-05-09\n"


@pytest.mark.parametrize(
    ("name", "text", "source", "column"),
    [
        ("ratings.csv", MOVIELENS_CSV, "movielens", "timestamp"),
        ("train-item-views.csv", DIGINETICA, "diginetica", "timeframe"),
    ],
)
def test_a_missing_cell_is_told_without_options_that_the_format_has_not(
    tmp_path: Path, name: str, text: str, source: str, column: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, name, text, source)
    assert f"line 2, column '{column}': the cell is empty." in str(caught.value)
    assert str(caught.value).endswith(f"1 in column '{column}'. Correct them.")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ("Kunde Nr", "Artikel", "Marke,Farbe"),
            "there is no column 'Farbe'; the columns are Ku",
        ),
        (("Kunde", "Artikel", "Marke"), "are Kunde Nr, Artikel, Marke; did you mean Kunde Nr?"),
    ],
)
def test_the_columns_are_told_apart_where_one_that_is_named_is_missing(
    columns: tuple[str, str, str], message: str, tmp_path: Path
) -> None:
    """The delimiter is that which gives the most columns, not always a comma."""
    path = tmp_path / "e.csv"
    path.write_text("Kunde Nr;Artikel;Marke\n1;a;x\n")
    user, item, about = columns
    config = PrepareConfig(
        source="csv", raw=str(path), user_column=user, item_column=item, timestamp_column=None,
        attribute_columns=tuple(about.split(",")),
    )  # fmt: skip
    with pytest.raises(InputError, match=re.escape(message)):
        prepare(config, tmp_path / "corpus")


def test_a_file_of_one_column_says_by_what_it_was_separated(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user~item\n1~a\n")
    config = PrepareConfig(source="csv", raw=str(path), timestamp_column=None)
    with pytest.raises(InputError, match=r"are user~item .separated by ','; --delimiter says"):
        prepare(config, tmp_path / "corpus")


def test_a_header_is_spoken_of_only_where_the_format_has_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"usr, item; did you mean usr\? Name .*--header False\.$"):
        prepared(tmp_path, "e.csv", "usr,item\na,x\n", **NO_TIMES)
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table({"x": ["a"], "item": ["x"]}), path)
    config = PrepareConfig(source="parquet", raw=str(path), **NO_TIMES)
    with pytest.raises(InputError, match=r"x, item\. Name yours .* and --rating-column\.$"):
        prepare(config, data_root=tmp_path / "data")


def test_a_header_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.inter").write_bytes(b"user_id:token\titem_id:token\nu\tx\n")
    (tmp_path / "e.item").write_bytes(b"item_id:token\tt\xfftle:token_seq\nx\tA\n")
    config = PrepareConfig(source="atomic", raw=str(tmp_path / "e.inter"))
    message = r"e\.item, line 1: the name of a column, 't\\xfftle.*, is not utf-8 text"
    with pytest.raises(InputError, match=message):
        prepare(config, data_root=tmp_path / "data")
    (tmp_path / "e.csv").write_bytes(b"user,item,t\xff\nu,x,A\n")
    config = PrepareConfig(
        source="csv", raw=str(tmp_path / "e.csv"), title_column="t\udcff", **NO_TIMES
    )
    with pytest.raises(InputError, match=r"e\.csv, line 1: the name of a column, 't\\xff'"):
        prepare(config, data_root=tmp_path / "data")


def test_notes_of_several_files_are_kept_and_counts_added_up() -> None:
    def raw(notes: dict[str, object]) -> RawTable:
        return RawTable(table=pa.table({"a": [1]}), where=str, notes=notes)

    tables = [raw({"n": 2, "kind": "x"}), raw({"n": 3, "kind": "x"}), raw({"kind": "y"})]
    assert concatenated(tables).notes == {"n": 5, "kind": ["x", "y"]}
    assert concatenated(tables[:2]).notes == {"n": 5, "kind": "x"}


def test_a_path_in_place_of_a_format_is_told_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text("user,item\n1,a\n")
    with pytest.raises(InputError, match=r"known: .*as in `prepare csv --raw events\.csv`"):
        prepare(PrepareConfig(source="events.csv"), tmp_path / "corpus")
