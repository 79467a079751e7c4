"""S3-Rec text, pairs and CSV: what is read, and what is refused."""

import json
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.histories import attributes, histories


def prepared(
    tmp_path: Path, source: str, name: str, text: str | bytes, **options: object
) -> Corpus:
    raw = tmp_path / name
    raw.write_bytes(text.encode() if isinstance(text, str) else text)
    config = PrepareConfig(source=source, raw=str(raw), **options)
    corpus = prepare(config, data_root=tmp_path / "data")
    corpus.verify()
    return corpus


def refused(
    tmp_path: Path, source: str, name: str, text: str | bytes, message: str, **options: object
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, source, name, text, **options)
    assert not (tmp_path / "data").exists()


def test_s3rec_lines_are_histories_in_the_order_of_the_file(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "s3rec", "X.txt", "2 30 7 7\n\n1 7 100\r\n")
    assert histories(corpus) == {"1": ["7", "100"], "2": ["30", "7", "7"]}
    assert list(corpus.item_names) == ["7", "30", "100"]
    assert corpus.timestamps is None
    assert corpus.num_attributes == 0
    assert corpus.name == "X"


def test_s3rec_item_k_becomes_k_minus_one_where_all_occur(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "s3rec", "X.txt", "1 3 1\n2 4 2")
    assert corpus.items.tolist() == [2, 0, 3, 1]


def test_s3rec_attributes_are_found_beside_the_text(tmp_path: Path) -> None:
    found = {"1": [10, 2, 10], "2": [2], "9": [4]}
    (tmp_path / "X_item2attributes.json").write_text(json.dumps(found))
    corpus = prepared(tmp_path, "s3rec", "X.txt", "1 1 2 3\n")
    assert list(corpus.attribute_names) == ["2", "10"]
    assert attributes(corpus) == {"1": ["2", "10"], "2": ["2"], "3": []}
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["attribute_file_items"] == 3
    assert report["attribute_file_unknown_items"] == 1
    assert report["items_without_attributes"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"8": [1], "9": [2]}',
            r"X_item2attributes\.json: none of its 2 items is among the 3",
        ),
        ("{", r"X_item2attributes\.json: not readable as JSON"),
        ("[1]", r"X_item2attributes\.json: holds no object"),
        ('{"1": 5}', r"X_item2attributes\.json, item '1': 5; expected a list of attribute ids"),
        ('{"1": [1.5]}', r"item '1': \[1\.5\]; expected a list of attribute ids"),
        ('{"1": [5], "2": [6], "1": [7]}', r"\.json: .*the name '1' occurs twice in one object"),
        ("", r"X_item2attributes\.json: the file is empty"),
        (b"\xff\xfe", r"X_item2attributes\.json: not utf-8 text \(utf-8 was tried"),
        (r'{"1": ["\ud800"]}', r"X_item2attributes\.json: '\\ud800' has half of a surrogate pair"),
        ("[" * 100_000, r"X_item2attributes\.json: not readable as JSON \(it is nested too deeply"),
        ('{"1": [' + "9" * 5000 + "]}", r"not readable as JSON \(a whole number has 5000 digits"),
    ],
)
def test_a_bad_attribute_file_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    raw = text.encode() if isinstance(text, str) else text
    (tmp_path / "X_item2attributes.json").write_bytes(raw)
    refused(tmp_path, "s3rec", "X.txt", "1 1 2 3\n", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"X\.txt: the file is empty"),
        (" \n\n", r"X\.txt: holds no interactions"),
        ("1 2 3\n\n7\n", r"X\.txt, line 3: 1 field; expected a user and at least one item"),
        ("1 2\n2 x3 4\n", r"X\.txt, line 2, field 2: 'x3' is not an integer"),
        ("1 2\n2 3 -4\n", r"X\.txt, line 2, field 3: '-4' is not an integer"),
        ("1 2\n2 3 4.0\n", r"X\.txt, line 2, field 3: '4\.0' is not an integer"),
        ("1 2\n2 3\n1 4\n", r"X\.txt, line 3: user 1 already has line 1"),
        ("1 2\n3 4\x0b5\n", r"X\.txt, line 2, field 2: '4\\x0b5' is not an integer"),
        ("1 2\n2 1234567890123456789\n", r"X\.txt, line 2: an id of more than 18 digits"),
        (b"1 2\n\xe9 3\n", r"X\.txt: not utf-8 text \(utf-8 was tried"),
        ("1 2\n".encode("utf-16-le"), r"X\.txt: not utf-8 text \(utf-8 was tried; it holds null"),
    ],
)
def test_a_bad_s3rec_text_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(tmp_path, "s3rec", "X.txt", text, message)


def test_pairs_of_interleaved_users_keep_the_order_of_the_file(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "pairs", "p.txt", "10 5\n9 5\n10\t4\n9 6\n10 5\n")
    assert list(corpus.user_names) == ["9", "10"]
    assert list(corpus.item_names) == ["4", "5", "6"]
    assert histories(corpus) == {"9": ["5", "6"], "10": ["5", "4", "5"]}


def test_leading_zeros_make_another_id(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "pairs", "zeros.txt", "01 007\n01 7\n1 8\n1 7\n1 07\n")
    assert list(corpus.user_names) == ["01", "1"]
    assert list(corpus.item_names) == ["007", "07", "7", "8"]
    assert histories(corpus) == {"01": ["007", "7"], "1": ["8", "7", "07"]}
    corpus = prepared(tmp_path, "s3rec", "z.txt", "5 00 0 9\n05 9\n")
    assert histories(corpus) == {"05": ["9"], "5": ["00", "0", "9"]}


def test_lines_may_end_in_a_carriage_return_alone(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "s3rec", "mac.txt", "1 2 3\r2 4 5\r")
    assert histories(corpus) == {"1": ["2", "3"], "2": ["4", "5"]}
    corpus = prepared(tmp_path, "pairs", "pairs.txt", "1 2\r1 3\r\n2 4")
    assert histories(corpus) == {"1": ["2", "3"], "2": ["4"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n1 2 99\n", r"line 2: 3 field\(s\); expected 2 \(user item\)\. For times or ratings"),
        ("1 2\n1\n", r"p\.txt, line 2: 1 field\(s\); expected 2 \(user item\)\.$"),
        ("1 2\nu1 2\n", r"p\.txt, line 2, field 1: 'u1' is not an integer.*csv or atomic"),
        ("1 2\n,\n", r"p\.txt, line 2, field 1: ',' is not an integer"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    refused(tmp_path, "pairs", "p.txt", text, message)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for source in ("s3rec", "pairs", "atomic", "csv", "parquet"):
        config = PrepareConfig(source=source, raw=str(tmp_path / "nothing"))
        with pytest.raises(InputError, match="nothing: there is no such file"):
            prepare(config, data_root=tmp_path / "data")
    with pytest.raises(InputError, match="a folder; a file is needed here"):
        prepare(PrepareConfig(source="pairs", raw=str(tmp_path)), data_root=tmp_path / "data")


CSV = 'user,item,rating,timestamp\nbo,"x, y",4.5,20\nal,007,2,10\nbo,7,3,10\n'


def test_csv_ids_are_text_in_order_of_first_appearance(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "csv", "c.csv", CSV)
    assert list(corpus.user_names) == ["bo", "al"]
    assert list(corpus.item_names) == ["x, y", "007", "7"]
    assert histories(corpus) == {"bo": ["7", "x, y"], "al": ["007"]}
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [10, 20, 10]


def test_csv_columns_have_the_names_that_were_given(tmp_path: Path) -> None:
    text = "\ufeffwhen\twho\tstars\twhat\n5\tal\t1\tx\n4\tal\t5\ty\n3\tbo\t4\tx\n"
    options = {"user_column": "who", "item_column": "what", "timestamp_column": "when"}
    corpus = prepared(
        tmp_path, "csv", "c.tsv", text, rating_column="stars", min_rating=4.0, **options
    )
    assert histories(corpus) == {"al": ["y"], "bo": ["x"]}


def test_csv_without_times_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "csv", "c.csv", CSV, timestamp_column=None)
    assert corpus.timestamps is None
    assert histories(corpus)["bo"] == ["x, y", "7"]


def test_csv_attributes_come_from_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"007": ["spy", "b"], "7": ["b"]}')
    corpus = prepared(tmp_path, "csv", "c.csv", CSV, attributes=str(tmp_path / "a.json"))
    assert attributes(corpus) == {"x, y": [], "007": ["b", "spy"], "7": ["b"]}


def test_times_are_exact_integers_and_fractions_are_rounded_down(tmp_path: Path) -> None:
    text = "user,item,timestamp\na,x,9007199254740993\na,y,-3\n"
    corpus = prepared(tmp_path, "csv", "exact.csv", text, time_unit="s")
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [-3, 9007199254740993]
    text = "user,item,timestamp\na,x,881250949.0\na,y,-2.5\na,z,7.9\n"
    corpus = prepared(tmp_path, "csv", "rounded.csv", text)
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [-3, 7, 881250949]
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["timestamps_rounded_down"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "who,item,timestamp\na,x,1\n",
            r"there is no column 'user'; the columns are who, item",
        ),
        ("user,item,item,timestamp\na,x,x,1\n", r"c\.csv: column 'item' occurs 2 times"),
        ("user,item,timestamp\n", r"c\.csv: holds no interactions"),
        (
            "user,item,timestamp\na,x,1\na,x\n",
            r"c\.csv, line 3: 2 fields; expected 3 \(user,item",
        ),
        ("user,item,timestamp\na,x,1\n\na,x,1,9\n", r"c\.csv, line 4: 4 fields; expected 3"),
        (
            "user,item,timestamp\na,x,soon\n",
            r"line 2, column 'timestamp': 'soon' is neither a number nor a date in ISO 8601",
        ),
        (
            "user,item,timestamp\na,x,\n",
            r"line 2, column 'timestamp': the cell is empty",
        ),
        (
            "user,item,timestamp\na,x,1\na,x,nan\n",
            r"line 3, column 'timestamp': 'nan' stands for no value",
        ),
        ("user,item,timestamp\na,x,-inf\n", r"line 2, column 'timestamp': '-inf' is neither"),
        ("user,item,timestamp\na,x,9223372036854775808\n", r"line 2.*does not fit into int64"),
        ("user,item,timestamp\na,x,-1e30\n", r"line 2.*'-10{30}' does not fit into int64"),
        ("user,item,timestamp\na,x,1\n,x,1\n", r"c\.csv, line 3, column 'user': the cell is empty"),
        (b"user,item,timestamp\n\xe9,x,1\n", r"line 2, .*is not utf-8 text \(utf-8 was tried"),
        ("user,item,timestamp\n".encode("utf-16"), r"c\.csv: not utf-8 text \(utf-8 was tried"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(tmp_path, "csv", "c.csv", text, message)


def test_a_rating_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    text = "user,item,rating,timestamp\na,x,3,1\na,y,inf,2\n"
    message = r"c\.csv, line 3, column 'rating': inf is not finite"
    refused(tmp_path, "csv", "c.csv", text, message, min_rating=1.0)


def test_attributes_of_very_many_digits_are_names(tmp_path: Path) -> None:
    (tmp_path / "X_item2attributes.json").write_text('{"1": ["' + "9" * 5000 + '", "10", "9"]}')
    (tmp_path / "X.txt").write_text("1 1 2 3\n")
    config = PrepareConfig(source="s3rec", raw=str(tmp_path / "X.txt"))
    corpus = prepare(config, data_root=tmp_path / "data")
    assert list(corpus.attribute_names) == ["10", "9", "9" * 5000]
