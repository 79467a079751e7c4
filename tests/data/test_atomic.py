"""RecBole's atomic files: fields by name, attributes and titles, and files that bring a split."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.histories import attributes, histories


def prepared(tmp_path: Path, source: str, raw: Path, **options: object) -> Corpus:
    config = PrepareConfig(source=source, raw=str(raw), **options)
    corpus = prepare(config, data_root=tmp_path / "data")
    corpus.verify()
    return corpus


def refused(tmp_path: Path, source: str, raw: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, source, raw)
    assert not (tmp_path / "data").exists()


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
INTER += "u1\ti2\t3\t20\nu1\ti1\t4\t10\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\n"
    'i1\tThe "Best\t1995\tSci-Fi War\t1\ni2\tB C\tV\t\t2\n'
)


def test_atomic_files_bring_attributes_and_titles(tmp_path: Path) -> None:
    (tmp_path / "d.inter").write_text(INTER)
    (tmp_path / "d.item").write_text(ITEM)
    corpus = prepared(tmp_path, "atomic", tmp_path / "d.inter")
    assert histories(corpus) == {"u1": ["i1", "i2"]}
    assert list(corpus.item_names) == ["i2", "i1"]
    assert attributes(corpus) == {"i2": [], "i1": ["class:Sci-Fi", "class:War", "decade:1990s"]}
    assert corpus.item_titles is not None
    assert list(corpus.item_titles) == ["B C", 'The "Best']
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["item_columns_not_used"] == ["price"]


@pytest.mark.parametrize("field", ["time:float", "Timestamp:float", "date:token"])
def test_a_field_that_may_hold_times_is_never_passed_over(tmp_path: Path, field: str) -> None:
    path, name = tmp_path / "d.inter", field.split(":")[0]
    rows = "u\ti2\t20000102\nu\ti1\t20000101\n"
    path.write_text(f"user_id:token\titem_id:token\t{field}\n{rows}")
    said = f"no field timestamp, but {name} may hold times; say so with --timestamp-column {name},"
    refused(tmp_path, "atomic", path, said)
    read = prepared(tmp_path, "atomic", path, timestamp_column=name)
    assert histories(read) == {"u": ["i1", "i2"]}
    in_order = prepared(tmp_path / "order", "atomic", path, timestamp_column=None)
    assert histories(in_order) == {"u": ["i2", "i1"]}


def test_a_unit_of_times_that_are_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.inter").write_text("item_id:token\tuser_id:token\nx\ta\n")
    with pytest.raises(InputError, match="no field timestamp for --time-unit or --time-format;"):
        prepared(tmp_path, "atomic", tmp_path / "d.inter", time_unit="ms")


def test_an_atomic_file_is_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.inter").write_text("item_id:token\tuser_id:token\nx\ta\n")
    corpus = prepared(tmp_path, "atomic", tmp_path / "d")
    assert histories(corpus) == {"a": ["x"]}
    assert corpus.timestamps is None
    (tmp_path / "d" / "e.inter").write_text(INTER)
    with pytest.raises(InputError, match=r"d: 2 \.inter files; exactly one is needed"):
        prepared(tmp_path, "atomic", tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\titem_id:token\n", r"d\.inter, line 1, field 1: 'user_id'; expected NAME:TYPE"),
        ("user_id:token\titem_id:float\n", r"line 1: no field item_id:token; found user_id"),
        (INTER + "u1\ti2\t3\n", r"d\.inter, line 4: 3 fields; expected 4"),
        (INTER + "u1\ti2\tx\t3\n", r"d\.inter, line 4, column 'rating': 'x' is not a number"),
        (
            INTER + "u1\ti2\t3\tnan\n",
            r"d\.inter, line 4, column 'timestamp': 'nan' stands for no value",
        ),
    ],
)
def test_a_bad_atomic_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.inter").write_text(text)
    refused(tmp_path, "atomic", tmp_path / "d.inter", message)


def test_a_bad_atomic_item_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.inter").write_text(INTER)
    for text, message in (
        ("item_id:token\tclass:token_seq\ni1\n", r"d\.item, line 2: 1 fields; expected 2"),
        ("class:token_seq\nx\n", r"d\.item, line 1: no field item_id; found class"),
    ):
        (tmp_path / "d.item").write_text(text)
        refused(tmp_path, "atomic", tmp_path / "d.inter", message)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """The folder, with files in it; columns are separated by tabs in place of bars."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text.replace("|", "\t"))
    return folder


def report(corpus: Corpus) -> dict[str, object]:
    report = corpus.manifest.report
    assert isinstance(report, dict)
    return report


def warnings(corpus: Corpus) -> list[str]:
    notes = report(corpus).get("warnings", [])
    assert isinstance(notes, list)
    return [str(warning) for warning in notes]


def titles(corpus: Corpus) -> list[str]:
    assert corpus.item_titles is not None
    return list(corpus.item_titles)


SHOP = {
    "y.inter": "user_id:token|item_id:token|rating:float|timestamp:float|stars:float\n"
    "u0|i0|4|100|1\nu0|i1|4|101|1\nu1|i2|4|102|1\nu1|i3|4|103|1\n",
    "y.item": "item_id:token|item_name:token_seq|categories:token_seq|city:token|stars:float\n"
    "i0|Joe's Bar|Beer Gardens, Bars, Nightlife|Las Vegas|4.0\n"
    "i1|Sushi Go|Sushi Bars, Japanese|Phoenix|3.5\n"
    "i2|Wine Bar X|Wine Bars, Bars|Phoenix|3.5\n"
    "i3||||\n",
}


def test_lists_that_commas_separate_are_found_and_names_are_titles(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "y", SHOP))
    assert attributes(corpus) == {
        "i0": ["categories:Bars", "categories:Beer Gardens", "categories:Nightlife"],
        "i1": ["categories:Japanese", "categories:Sushi Bars"],
        "i2": ["categories:Bars", "categories:Wine Bars"],
        "i3": [],
    }
    assert titles(corpus) == ["Joe's Bar", "Sushi Go", "Wine Bar X", ""]
    notes = report(corpus)
    assert notes["item_columns_not_used"] == ["city", "stars"]
    assert notes["interaction_columns_not_used"] == ["stars"]
    assert notes["attribute_columns"] == {
        "categories": {
            "distinct_values": 6,
            "items_described": 3,
            "cells": "values separated by ', '",
        }
    }
    assert notes["title_column"] == {
        "column": "item_name",
        "items_described": 3,
        "titles_that_differ_from_the_first": 0,
    }


def test_any_column_can_be_an_attribute_and_a_token_is_never_cut(tmp_path: Path) -> None:
    raw = write(tmp_path / "y", SHOP)
    corpus = prepared(
        tmp_path,
        "atomic",
        raw,
        attribute_columns=("city", "stars"),
        title_column="categories",
        list_separator=" ",
    )
    assert attributes(corpus)["i0"] == ["city:Las Vegas", "stars:4.0"]
    assert titles(corpus)[1] == "Sushi Bars, Japanese"
    corpus = prepared(tmp_path, "atomic", raw, attribute_columns=("stars",), numeric_bins=2)
    assert attributes(corpus)["i0"] == ["stars:4"]
    for options, message in (
        (
            {"attribute_columns": ("category",)},
            "the columns about items are item_name, .*mean categories",
        ),
        ({"title_column": "item_id"}, r"y\.item, line 1: --title-column item_id: the columns"),
        ({"items_file": "x.csv", "title_column": "t"}, "--items-file is for .*; atomic does not"),
    ):
        with pytest.raises(InputError, match=message):
            prepared(tmp_path, "atomic", raw, **options)


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        (("Sci-Fi War", "War"), {}, ["War", "Sci-Fi"]),
        (("a, b", "b"), {}, ["a", "b"]),
        (("a, b c", "a b"), {}, ["a", "a,", "b", "c"]),
        (("a;b c", "b c"), {"list_separator": ";"}, ["a", "b c"]),
    ],
)
def test_the_separator_of_a_list_is_found_or_given(
    tmp_path: Path, cells: tuple[str, str], options: dict[str, object], expected: list[str]
) -> None:
    files = {
        "d.inter": "user_id:token|item_id:token\nu|i\nu|j\n",
        "d.item": f"item_id:token|c:token_seq\ni|{cells[0]}\nj|{cells[1]}\n",
    }
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", files), **options)
    assert sorted(corpus.attribute_names) == sorted(f"c:{name}" for name in expected)
    assert any("end in a comma" in warning for warning in warnings(corpus)) == ("a," in expected)


def test_an_item_twice_in_an_item_file_is_refused(tmp_path: Path) -> None:
    files = {**SHOP, "y.item": SHOP["y.item"] + "i1|Sushi|Bars|Rome|1\n"}
    message = r"y\.item, line 6: item 'i1' is described twice, before at .*y\.item, line 3"
    refused(tmp_path, "atomic", write(tmp_path / "y", files), message)


SESSIONS = {
    "s.inter": "session_id:token|product_id:token|at:token|bonus:float\n"
    "s1|p1|2024-01-02|5\ns1|p2|2024-01-01|1\ns2|p2|nan|5\n",
    "s.item": "product_id:token|brand:token|title:token\np1|Acme|One\np2|Bolt|Two\n",
}
COLUMNS = {"user_column": "session_id", "item_column": "product_id", "timestamp_column": "at"}


def test_fields_have_the_names_that_were_given(tmp_path: Path) -> None:
    raw = write(tmp_path / "s", SESSIONS)
    options = {"missing": "drop", "attribute_columns": ("brand",), **COLUMNS}
    corpus = prepared(tmp_path, "atomic", raw, **options)
    assert histories(corpus) == {"s1": ["p2", "p1"]}
    assert attributes(corpus) == {"p1": ["brand:Acme"], "p2": ["brand:Bolt"]}
    assert titles(corpus) == ["One", "Two"]
    rated = {"rating_column": "bonus", "min_rating": 4.0}
    assert histories(prepared(tmp_path, "atomic", raw, **options, **rated)) == {"s1": ["p1"]}
    message = r"s\.inter, line 4, column 'at': 'nan' stands for no value"
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "atomic", raw, **COLUMNS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"no field user_id:token; found session_id, .*--user-column"),
        ({**COLUMNS, "item_column": "sku"}, r"no field sku:token; found .*--item-column"),
        ({**COLUMNS, "user_column": "bonus"}, r"no field bonus:token; found"),
        ({**COLUMNS, "timestamp_column": "when"}, r"no field when:float or token; found .*--times"),
        (
            {**COLUMNS, "rating_column": "at", "min_rating": 1.0, "timestamp_column": None},
            r"no field at:float; found at:token",
        ),
        ({**COLUMNS, "item_column": "session_id"}, "'session_id' is named for two purposes"),
    ],
)
def test_fields_that_are_not_there_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "atomic", write(tmp_path / "s", SESSIONS), **options)


def test_without_a_column_of_times_the_order_of_the_file_holds(tmp_path: Path) -> None:
    text = "user_id:token|item_id:token|timestamp:float\nu|a|3\nu|b|1\nu|c|2\n"
    raw = write(tmp_path / "o", {"o.inter": text})
    assert histories(prepared(tmp_path, "atomic", raw)) == {"u": ["b", "c", "a"]}
    corpus = prepared(tmp_path, "atomic", raw, timestamp_column=None)
    assert histories(corpus) == {"u": ["a", "b", "c"]}
    assert corpus.timestamps is None
    assert report(corpus)["interaction_columns_not_used"] == ["timestamp"]


EVENTS = "user_id:token|item_id:token|timestamp:float\n"
LISTS = "user_id:token|item_id_list:token_seq|item_id:token\n"


def test_rows_of_histories_and_next_items_are_histories(tmp_path: Path) -> None:
    text = "user_id:token|item_id_list:token_seq|item_id:token|x:float\nu|a b|c|1\nv||b|2\n"
    for number, name in enumerate(("d.test.inter", "d.inter")):
        raw = write(tmp_path / str(number), {name: text})
        corpus = prepared(tmp_path, "atomic", raw / name)
        assert histories(corpus) == {"u": ["a", "b", "c"], "v": ["b"]}
        assert corpus.name == "d"
        notes = report(corpus)
        assert notes["interaction_columns_not_used"] == ["x"]
        assert notes["rows"] == (
            "each is a history (item_id_list) and its next item (item_id); a user's events are "
            "those of the longest row"
        )
    assert "split_of_the_files" not in notes


def test_lists_of_one_length_may_have_been_cut(tmp_path: Path) -> None:
    raw = write(tmp_path / "d", {"d.test.inter": LISTS + "u|a b|c\nv|b c|d\nw|c|d\n"})
    corpus = prepared(tmp_path, "atomic", raw)
    assert histories(corpus)["v"] == ["b", "c", "d"]
    warning = warnings(corpus)[0]
    assert "2 of 3 users have a list of 2 items" in warning
    assert "MAX_ITEM_LIST_LENGTH" in warning


def test_histories_in_parts_are_put_together_and_bring_leave_one_out(tmp_path: Path) -> None:
    files = {
        "d.train.inter": LISTS + "u|a|b\nu|a b|c\nv|a|c\n",
        "d.valid.inter": LISTS + "u|a b c|d\nv|a c|e\n",
        "d.test.inter": LISTS + "v|a c e|a\nu|a b c d|e\n",
        "d.item": "item_id:token|c:token_seq\na|red\n",
    }
    raw = write(tmp_path / "d", files)
    for path in (raw, raw / "d.valid.inter"):
        corpus = prepared(tmp_path, "atomic", path)
        assert histories(corpus) == {"u": ["a", "b", "c", "d", "e"], "v": ["a", "c", "e", "a"]}
        assert report(corpus)["split_of_the_files"] == (
            "leave-one-out: the test rows are each user's last event, the valid rows the one "
            "before it"
        )
        assert attributes(corpus)["a"] == ["c:red"]
        assert (corpus.name, warnings(corpus)) == ("d", [])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train": "u|a b|c\nu|b c|d\n", "valid": "u|c d|e\n", "test": "u|d e|f\n"},
            r"d\.train\.inter, line 3: user 'u' .* not the beginning of those at .*train\.inter, "
            r"line 2, .*cut to 2 items: .*MAX_ITEM_LIST_LENGTH",
        ),
        (
            {"train": "u|a x|c\n", "test": "u|a b c|d\n"},
            r"d\.train\.inter, line 2: user 'u' has a history in item_id_list .*test\.inter",
        ),
        ({"test": "u|a b|c\nu|a b c|d\n"}, r"user 'u' has 2 rows in the part test"),
        ({"train": "u|a b|c\nv|a|b\nv|a b|c\n", "test": "u|a b c|d\n"}, r"'v' has 0 rows in the p"),
        ({"train": "u|a b c|d\n", "test": "u|a b|c\n"}, r"part test is not the last event of user"),
        (
            {"train": "u|a|b\n", "valid": "u|a|b\n", "test": "u|a b c|d\n"},
            r"part valid is not the last but one event of user 'u'",
        ),
        (
            {"train": "u|a b|c\n", "valid": "u|a b|c\n", "test": "u|a b c|d\n"},
            r"d\.train\.inter, line 2: this row of the part train holds an event that is held out",
        ),
        ({"valid": "u|a b|c\n"}, "there is no file of the part test beside it; only valid"),
        ({"train": "u|a b|c\n", "test": "u||\n"}, r"test\.inter, line 2, column 'item_id': the ce"),
    ],
)
def test_histories_that_do_not_fit_together_are_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    raw = write(tmp_path / "d", {f"d.{name}.inter": LISTS + rows for name, rows in files.items()})
    refused(tmp_path, "atomic", raw, message)


def test_events_in_parts_are_read_where_their_split_is_leave_one_out(tmp_path: Path) -> None:
    files = {
        "d.train.inter": EVENTS + "u|b|2\nu|a|1\nv|a|1\nv|b|2\nv|c|3\nw|a|1\n",
        "d.valid.inter": EVENTS + "u|c|3\nv|d|4\n",
        "d.test.inter": EVENTS + "v|e|4\nu|d|4\n",
    }
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", files))
    assert histories(corpus) == {
        "u": ["a", "b", "c", "d"],
        "v": ["a", "b", "c", "d", "e"],
        "w": ["a"],
    }
    assert report(corpus)["split_of_the_files"] == (
        "leave-one-out: the test rows are each user's last event, the valid rows the one before it"
    )
    without_times = prepared(tmp_path, "atomic", tmp_path / "d", timestamp_column=None)
    assert histories(without_times)["u"] == ["b", "a", "c", "d"]
    filtered = prepared(tmp_path, "atomic", tmp_path / "d", item_core=2)
    assert "leave-one-out may hold out others than the files do" in warnings(filtered)[0]
    drawn = prepared(tmp_path, "atomic", tmp_path / "d", tie_seed=0)
    assert "leave-one-out may hold out others than the files do" in warnings(drawn)[0]


def test_users_that_leave_one_out_does_not_evaluate_are_counted(tmp_path: Path) -> None:
    files = {
        "d.train.inter": EVENTS + "u|a|1\nu|b|2\nv|a|1\n",
        "d.test.inter": EVENTS + "v|b|2\nu|c|3\n",
    }
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", files))
    (warning,) = warnings(corpus)
    assert "1 users with fewer than 3 events have rows in the held-out files" in warning


def test_the_part_train_alone_is_said_to_be_that(tmp_path: Path) -> None:
    for number, rows in enumerate((EVENTS + "u|a|1\n", LISTS + "u|a|b\nu|a b|c\n")):
        raw = write(tmp_path / str(number), {"d.train.inter": rows})
        corpus = prepared(tmp_path, "atomic", raw)
        assert warnings(corpus) == [
            "there is the part train alone; what was held out is not in the corpus. Is a file "
            "X.test.inter missing?"
        ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train": "u|a|1\nu|b|9\n", "test": "u|c|5\n"},
            r"test\.inter, line 2: .* not the last ev",
        ),
        (
            {"train": "u|a|1\n", "valid": "u|b|3\n", "test": "u|c|2\n"},
            r"test\.inter, line 2: this row of the part test is not the last event of user 'u'",
        ),
        (
            {"train": "u|a|1\nu|b|2\n", "test": "u|c|3\nu|d|4\n"},
            r"user 'u' has 2 rows in the part test.*LS: valid_and_test",
        ),
        (
            {"train": "u|a|1\nv|a|1\nv|b|2\nv|c|3\n", "test": "u|c|3\n"},
            r"train\.inter, line 3: user 'v' has 0 rows in the part test, as 1 users",
        ),
        ({"valid": "u|a|1\n", "test": "u|c|3\n"}, "no file of the part train beside it; only va"),
        ({"train": "u|a|1\n", "valid": "u|c|3\n"}, "no file of the part test beside it; only tra"),
        ({"test": "u|a|1\n"}, "no file of the part train beside it; only test"),
    ],
)
def test_parts_whose_split_is_another_are_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    raw = write(tmp_path / "d", {f"d.{name}.inter": EVENTS + rows for name, rows in files.items()})
    refused(tmp_path, "atomic", raw, message)


def test_parts_must_have_the_same_fields(tmp_path: Path) -> None:
    other = "user_id:token|item_id:token\nu|b\n"
    raw = write(tmp_path / "d", {"d.train.inter": EVENTS + "u|a|1\n", "d.test.inter": other})
    refused(tmp_path, "atomic", raw, r"d\.test\.inter, line 1: has the fields user_id, item_id; ")
    lists = {"d.train.inter": other, "d.test.inter": LISTS + "u|a|b\n"}
    raw = write(tmp_path / "e", lists)
    refused(tmp_path, "atomic", raw, "some have the field item_id_list, .* and some do not")


def test_histories_have_no_times_and_no_other_kind_of_list(tmp_path: Path) -> None:
    text = "user_id:token|item_id_list:token|item_id:token|at:float\nu|a|b|1\n"
    raw = write(tmp_path / "d", {"d.inter": text})
    refused(tmp_path, "atomic", raw, "item_id_list:token; expected token_seq")
    write(tmp_path / "d", {"d.inter": text.replace("list:token", "list:token_seq")})
    with pytest.raises(InputError, match="--timestamp-column at: a row with item_id_list is a"):
        prepared(tmp_path, "atomic", raw, timestamp_column="at")


LISTS_OF_ITEMS = "user_id:token|item_id_list:token_seq|product_id:token"


def test_a_list_of_items_is_a_history_whatever_the_item_is_called(tmp_path: Path) -> None:
    text = f"{LISTS_OF_ITEMS}|timestamp_list:float_seq|x:float|x_list:float_seq\n"
    raw = write(tmp_path / "d", {"d.inter": text + "u|a b|c|1 2|0|0 0\n"})
    corpus = prepared(tmp_path, "atomic", raw, item_column="product_id")
    assert histories(corpus) == {"u": ["a", "b", "c"]}
    assert report(corpus)["interaction_columns_not_used"] == ["timestamp_list", "x", "x_list"]
    assert warnings(corpus) == []


@pytest.mark.parametrize(
    ("header", "item", "name"),
    [
        ("user_id:token|session_list:token_seq|item_id:token", "item", "session_list"),
        (f"{LISTS_OF_ITEMS}|item_id:token", "product_id", "item_id_list"),
        (f"{LISTS_OF_ITEMS}|product_id_list:token_seq", "product_id", "item_id_list"),
    ],
)
def test_a_list_that_may_be_a_history_and_is_not_read_is_refused(
    tmp_path: Path, header: str, item: str, name: str
) -> None:
    row = "|".join(["a"] * (header.count("|") + 1))
    raw = write(tmp_path / "d", {"d.inter": f"{header}\n{row}\n"})
    with pytest.raises(
        InputError, match=rf"d\.inter, line 1: {name}:token_seq is a list that is n"
    ):
        prepared(tmp_path, "atomic", raw, item_column=item)


def test_lists_of_other_names_are_pointed_out(tmp_path: Path) -> None:
    text = "user_id:token|item_id:token|review:token_seq\nu|a|very good\n"
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", {"d.inter": text}))
    assert warnings(corpus) == [
        "the lists in the fields review are not read; if one is the user's history, name it "
        "item_id_list."
    ]


def test_a_word_for_nothing_in_a_list_is_no_item(tmp_path: Path) -> None:
    raw = write(tmp_path / "d", {"d.inter": f"{LISTS}u|1 nan 2|3\nv|1|2\n"})
    message = r"d\.inter, line 2, column 'item_id_list': the list has 'nan', which stands for no"
    refused(tmp_path, "atomic", raw, message)
    corpus = prepared(tmp_path, "atomic", raw, missing="drop")
    assert histories(corpus) == {"v": ["1", "2"]}
    assert report(corpus)["rows_dropped_for_their_list"] == 1
    assert "1 rows are left out, as values are missing in their list" in warnings(corpus)[0]
    corpus = prepared(tmp_path, "atomic", raw, missing_words=("",))
    assert histories(corpus)["u"] == ["1", "nan", "2", "3"]


def test_where_all_lists_have_a_word_for_nothing_no_row_is_left(tmp_path: Path) -> None:
    raw = write(tmp_path / "d", {"d.inter": f"{LISTS}u|1 nan 2|3\n"})
    with pytest.raises(InputError, match="in every row the list 'item_id_list' lacks values"):
        prepared(tmp_path, "atomic", raw, missing="drop")


def test_lists_that_another_separator_cuts_are_pointed_out(tmp_path: Path) -> None:
    rows = [("i", "Action", "Comedy"), ("j", "Action", "Drama"), ("k", "Drama", "Comedy")]
    cells = "".join(f"{item}|{first};{second}\n" for item, first, second in rows)
    files = {
        "d.inter": "user_id:token|item_id:token\nu|i\nu|j\nu|k\n",
        "d.item": f"item_id:token|c:token_seq\n{cells}",
    }
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", files))
    assert warnings(corpus) == [
        "column 'c': 3 of 3 distinct values contain ';', such as 'Action;Comedy', and are taken "
        "whole. If they are lists, give --list-separator ';'."
    ]


@pytest.mark.parametrize(
    ("item", "fields", "title"),
    [
        ("item_id", ("brand_name", "item_name"), "item_name"),
        ("item_id", ("brand_name", "category_name"), None),
        ("venue_id", ("item_id", "venue_category_name", "venue_name"), "venue_name"),
        ("item_id", ("name", "movie_title"), "movie_title"),
        ("item_id", ("brand_name", "Name"), "Name"),
    ],
)
def test_names_of_other_things_are_no_titles(
    tmp_path: Path, item: str, fields: tuple[str, ...], title: str | None
) -> None:
    header = "|".join(f"{name}:token" for name in (item, *fields))
    files = {
        "d.inter": f"user_id:token|{item}:token\nu|i\n",
        "d.item": f"{header}\n{'|'.join(['i', *fields])}\n",
    }
    corpus = prepared(tmp_path, "atomic", write(tmp_path / "d", files), item_column=item)
    assert (None if corpus.item_titles is None else titles(corpus)) == (title and [title])
