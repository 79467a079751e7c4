"""Attributes and titles from columns of the events, and from a table of items."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from research.data.corpus import Corpus
from research.data.preparation.frames import prepare_frame
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from research.overrides import override
from tests.support.histories import attributes

EVENTS = (
    "user,item,timestamp,category,brand,price,name\n"
    'a,x,1,Bars|Beer Gardens,Acme,9.5,"The ""Best"""\n'
    "a,y,2,Bars,,3,\n"
    "b,x,3,Bars,Acme,9.5,\n"
    "b,z,4,nan,Bolt,12,Zed\n"
    "b,y,5,,Bolt,3,Why\n"
)
ITEMS = (
    "item,title,category,weight\n"
    'x,"Ex, the ""first""",Bars|Beer Gardens,1\n'
    "y,Why,Bars,2.50\n"
    "w,Never seen,Other,30\n"
)


def prepared(tmp_path: Path, files: Mapping[str, str | bytes], **options: object) -> Corpus:
    """The corpus of the first file; an option that ends in `_file` is relative to the folder."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
    source = str(options.pop("source", "csv"))
    if "items_file" in options:
        options["items_file"] = str(tmp_path / str(options["items_file"]))
    raw = str(tmp_path / str(options.pop("raw", next(iter(files), ""))))
    config = PrepareConfig(source=source, raw=raw, **options)
    corpus = prepare(config, data_root=tmp_path / "data")
    corpus.verify()
    return corpus


def refused(
    tmp_path: Path, files: Mapping[str, str | bytes], message: str, **options: object
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, files, **options)
    assert not (tmp_path / "data").exists()


def titles(corpus: Corpus) -> dict[str, str]:
    assert corpus.item_titles is not None
    return dict(zip(corpus.item_names, corpus.item_titles, strict=True))


def report(corpus: Corpus) -> dict[str, object]:
    report = corpus.manifest.report
    assert isinstance(report, dict)
    return report


def warnings(corpus: Corpus) -> list[str]:
    notes = report(corpus).get("warnings", [])
    assert isinstance(notes, list)
    return [str(warning) for warning in notes]


def test_columns_of_the_events_become_attributes_and_titles(tmp_path: Path) -> None:
    corpus = prepared(
        tmp_path,
        {"e.csv": EVENTS},
        attribute_columns=("category", "brand"),
        title_column="name",
        list_separator="|",
    )
    assert attributes(corpus) == {
        "x": ["brand:Acme", "category:Bars", "category:Beer Gardens"],
        "y": ["brand:Bolt", "category:Bars"],
        "z": ["brand:Bolt"],
    }
    assert titles(corpus) == {"x": 'The "Best"', "y": "Why", "z": "Zed"}
    assert report(corpus)["attribute_columns"] == {
        "category": {
            "distinct_values": 2,
            "items_described": 2,
            "cells": "values separated by '|'",
        },
        "brand": {
            "distinct_values": 2,
            "items_described": 3,
            "cells": "values separated by '|'",
        },
    }
    assert report(corpus)["title_column"] == {
        "column": "name",
        "items_described": 3,
        "titles_that_differ_from_the_first": 0,
    }
    assert warnings(corpus) == []


def test_without_a_separator_a_cell_is_one_value_and_what_seems_a_list_is_pointed_out(
    tmp_path: Path,
) -> None:
    text = "user,item,timestamp,c\na,x,1,War|Drama\na,y,2,War|Comedy\na,z,3,Drama\n"
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=("c",))
    assert attributes(corpus) == {
        "x": ["c:War|Drama"],
        "y": ["c:War|Comedy"],
        "z": ["c:Drama"],
    }
    (warning,) = warnings(corpus)
    assert "2 of 3 distinct cells contain '|'" in warning
    assert "--list-separator '|'" in warning


def test_a_column_about_events_is_no_attribute_of_items(tmp_path: Path) -> None:
    pairs = [("x", "gift"), ("y", "gift"), ("x", "food"), ("y", "food")]
    rows = [f"u{user},{item},{user},{kind}\n" for user, (item, kind) in enumerate(pairs)]
    files = {"e.csv": "user,item,timestamp,kind\n" + "".join(rows)}
    several, useless = warnings(prepared(tmp_path, files, attribute_columns=("kind",)))
    assert "2 of 2 items have different values" in several
    assert "column 'kind': every item has every value, as if it described events" in useless


def test_different_values_of_an_item_are_all_kept_and_counted(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, {"e.csv": EVENTS}, attribute_columns=("category",))
    assert attributes(corpus)["x"] == ["category:Bars", "category:Bars|Beer Gardens"]
    (warning,) = warnings(corpus)
    assert "'category': 1 of 2 items have different values in different rows" in warning


def test_titles_that_differ_are_counted_and_the_first_is_kept(tmp_path: Path) -> None:
    text = "user,item,timestamp,t\na,x,2,Second\na,x,1,First\nb,x,3,\nb,y,1, \n"
    corpus = prepared(tmp_path, {"e.csv": text}, title_column="t")
    assert titles(corpus) == {"x": "Second", "y": ""}
    notes = report(corpus)["title_column"]
    assert isinstance(notes, dict)
    assert notes["titles_that_differ_from_the_first"] == 1


def test_rows_that_are_dropped_describe_no_item(tmp_path: Path) -> None:
    text = "user,item,timestamp,c\n,x,1,lost\na,x,2,kept\n"
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=("c",), missing="drop")
    assert attributes(corpus) == {"x": ["c:kept"]}


@pytest.mark.parametrize(
    ("values", "bins", "expected"),
    [
        (["1", "2", "3", "4"], 2, ["p:1 to 2", "p:1 to 2", "p:3 to 4", "p:3 to 4"]),
        (["7", "7", "7", "9.5"], 2, ["p:7", "p:7", "p:7", "p:9.5"]),
        (["1e3", "-2", "0.5", ""], 3, ["p:1000", "p:-2", "p:0.5", None]),
        (["3", "3", "3", "3"], 4, ["p:3", "p:3", "p:3", "p:3"]),
    ],
)
def test_numbers_are_put_into_quantile_bins(
    tmp_path: Path, values: list[str], bins: int, expected: list[str | None]
) -> None:
    rows = [f"a,i{number},{number},{value}" for number, value in enumerate(values)]
    text = "\n".join(["user,item,timestamp,p", *rows])
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=("p",), numeric_bins=bins)
    assert list(attributes(corpus).values()) == [[name] if name else [] for name in expected]


def test_bins_leave_words_as_they_are_and_name_a_column_that_is_nearly_numbers(
    tmp_path: Path,
) -> None:
    text = "user,item,timestamp,p,q,c\na,x,1,1,5,red\na,y,2,call us,6,red\na,z,3,2,6,blue\n"
    columns = ("p", "q", "c")
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=columns, numeric_bins=2)
    assert attributes(corpus)["y"] == ["c:red", "p:call us", "q:5 to 6"]
    (warning,) = warnings(corpus)
    assert "'p' is not put into bins: 1 of 3 values are no numbers, such as 'call us'" in warning
    refused_options = {"attribute_columns": ("c",), "numeric_bins": 2}
    with pytest.raises(InputError, match="none of the columns c holds numbers alone"):
        prepared(tmp_path, {"f.csv": text}, **refused_options)


def test_a_column_of_ids_or_titles_is_pointed_out(tmp_path: Path) -> None:
    rows = [f"a,i{number},{number},code {number},same {number % 2}" for number in range(12)]
    text = "\n".join(["user,item,timestamp,code,group", *rows])
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=("code", "group"))
    (warning,) = warnings(corpus)
    assert "'code' has 12 values for 12 items; is it an id or a title?" in warning
    words = "user,item,timestamp,t\na,x,1,The Sea\na,y,3,Old Man\n"
    corpus = prepared(tmp_path, {"w.csv": words}, attribute_columns=("t",), list_separator=" ")
    (warning,) = warnings(corpus)
    assert "'t' has 4 values for 2 items; is it an id or a title?" in warning


def test_a_wrong_separator_is_seen_by_what_it_leaves_behind(tmp_path: Path) -> None:
    text = 'user,item,timestamp,c\na,x,1,"Beer Gardens, Bars"\na,y,2,"Bars, Beer Halls"\n'
    corpus = prepared(tmp_path, {"e.csv": text}, attribute_columns=("c",), list_separator=" ")
    assert "2 of 5 values end in a comma or a semicolon, such as 'Bars,'" in warnings(corpus)[0]


def test_an_items_file_describes_items(tmp_path: Path) -> None:
    corpus = prepared(
        tmp_path,
        {"e.csv": EVENTS, "i.csv": ITEMS},
        items_file="i.csv",
        attribute_columns=("category",),
        title_column="title",
        list_separator="|",
    )
    assert attributes(corpus) == {
        "x": ["category:Bars", "category:Beer Gardens"],
        "y": ["category:Bars"],
        "z": [],
    }
    assert titles(corpus) == {"x": 'Ex, the "first"', "y": "Why", "z": ""}
    notes = report(corpus)
    assert notes["attribute_file_items"] == 3
    assert notes["attribute_file_unknown_items"] == 1
    assert notes["items_without_attributes"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.tsv", b"sku\tc\nx\tred\ny\tblue\n"),
        ("i.csv.gz", gzip.compress(b"sku;c\nx;red\ny;blue\n", mtime=0)),
        ("i.txt", b"c|sku\nred|x\nblue|y\n"),
    ],
)
def test_an_items_file_may_have_any_form_of_delimited_text(
    tmp_path: Path, name: str, content: bytes
) -> None:
    corpus = prepared(
        tmp_path,
        {"e.csv": EVENTS, name: content},
        items_file=name,
        items_column="sku",
        attribute_columns=("c",),
    )
    assert attributes(corpus) == {"x": ["c:red"], "y": ["c:blue"], "z": []}


def test_lists_in_parquet_are_lists(tmp_path: Path) -> None:
    table = {
        "item": [7, 12],
        "tags": [["b, c", "a", None], []],
        "nested": [[["Home", "Bath"]], None],
        "weight": [1.0, 2.5],
        "sold": [True, None],
        "day": pd.to_datetime(["2024-01-02", "2024-01-03"]).date,
        "title": ["Seven", None],
    }
    pd.DataFrame(table).to_parquet(tmp_path / "i.parquet")
    columns = ("tags", "nested", "weight", "sold", "day")
    corpus = prepared(
        tmp_path,
        {"p.txt": "1 7\n1 12\n"},
        source="pairs",
        items_file="i.parquet",
        attribute_columns=columns,
        title_column="title",
        list_separator=",",
    )
    assert attributes(corpus) == {
        "7": [
            *("day:2024-01-02", "nested:Bath", "nested:Home", "sold:true", "tags:a", "tags:b, c"),
            "weight:1",
        ],
        "12": ["day:2024-01-03", "weight:2.5"],
    }
    assert titles(corpus) == {"7": "Seven", "12": ""}


def test_lists_in_json_lines_are_lists(tmp_path: Path) -> None:
    items = (
        '{"asin": "x", "category": [["Home", "Bath, etc."]], "price": 9.50, "title": "Ex"}\n'
        '{"asin": "y", "brand": {"name": "Acme"}, "price": null}\n'
    )
    corpus = prepared(
        tmp_path,
        {"e.csv": EVENTS, "meta.jsonl.gz": gzip.compress(items.encode())},
        items_file="meta.jsonl.gz",
        items_column="asin",
        attribute_columns=("category", "brand.name", "price"),
        title_column="title",
        list_separator=", ",
    )
    assert attributes(corpus) == {
        "x": ["category:Bath, etc.", "category:Home", "price:9.50"],
        "y": ["brand.name:Acme"],
        "z": [],
    }
    assert titles(corpus) == {"x": "Ex", "y": "", "z": ""}


def test_fields_of_json_lines_of_events_become_attributes(tmp_path: Path) -> None:
    events = (
        '{"user": 1, "item": 5, "timestamp": 1, "genres": ["War", "Drama"], "name": "Five"}\n'
        '{"user": 1, "item": 6, "timestamp": 2, "genres": ["War"]}\n'
    )
    options = {"attribute_columns": ("genres",), "title_column": "name"}
    corpus = prepared(tmp_path, {"e.jsonl": events}, source="jsonl", **options)
    assert attributes(corpus) == {"5": ["genres:Drama", "genres:War"], "6": ["genres:War"]}
    assert titles(corpus) == {"5": "Five", "6": ""}


def test_lists_in_parquet_events_and_in_frames_are_attributes_too(tmp_path: Path) -> None:
    columns = {"user": ["u", "u"], "item": [5, 6], "tags": [["b", "a"], None], "t": ["Five", ""]}
    frame = pd.DataFrame(columns)
    frame.to_parquet(tmp_path / "e.parquet")
    options = {"attribute_columns": ("tags",), "title_column": "t", "timestamp_column": None}
    config = PrepareConfig(source="parquet", raw=str(tmp_path / "e.parquet"), **options)
    from_file = prepare(config, data_root=tmp_path / "data")
    assert attributes(from_file) == {"5": ["tags:a", "tags:b"], "6": []}
    assert titles(from_file) == {"5": "Five", "6": ""}
    config = PrepareConfig(source="parquet", **options)
    from_frame = prepare_frame(frame, config, name="frame", data_root=tmp_path / "data")
    assert from_frame.fingerprint == from_file.fingerprint


def test_an_items_file_describes_the_items_of_a_frame(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("item,c\n5,red\n6,blue\n")
    items = {"items_file": str(tmp_path / "i.csv"), "attribute_columns": ("c",)}
    config = PrepareConfig(source="parquet", timestamp_column=None, **items)
    frame = {"user": ["u", "u"], "item": [5, 6]}
    corpus = prepare_frame(frame, config, name="frame", data_root=tmp_path / "data")
    assert attributes(corpus) == {"5": ["c:red"], "6": ["c:blue"]}


def test_parts_of_an_items_table_may_have_unlike_types(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    pd.DataFrame({"item": ["x"], "c": ["red"]}).to_parquet(tmp_path / "parts" / "a.parquet")
    other = pd.DataFrame({"c": ["blue"], "item": pd.Categorical(["y"])})
    other.to_parquet(tmp_path / "parts" / "b.parquet")
    corpus = prepared(tmp_path, {"e.csv": EVENTS}, items_file="parts", attribute_columns=("c",))
    assert attributes(corpus) == {"x": ["c:red"], "y": ["c:blue"], "z": []}


def test_titles_come_beside_attributes_of_another_file(tmp_path: Path) -> None:
    files = {
        "X.txt": "1 1 2 3\n",
        "X_item2attributes.json": '{"1": [4]}',
        "t.csv": "item,t,c\n1,One,k\n",
    }
    corpus = prepared(tmp_path, files, source="s3rec", items_file="t.csv", title_column="t")
    assert (titles(corpus)["1"], attributes(corpus)["1"]) == ("One", ["4"])
    both = {"title_column": "t", "attribute_columns": ("c",)}
    corpus = prepared(tmp_path, files, source="s3rec", items_file="t.csv", **both)
    assert attributes(corpus)["1"] == ["c:k"]
    assert "X_item2attributes.json are not used" in warnings(corpus)[0]


def test_a_file_of_titles_alone_may_know_further_items(tmp_path: Path) -> None:
    files = {"e.csv": EVENTS, "i.csv": ITEMS}
    corpus = prepared(tmp_path, files, items_file="i.csv", title_column="title")
    assert titles(corpus)["y"] == "Why"
    assert report(corpus)["attribute_file_unknown_items"] == 1
    other = {"e.csv": EVENTS, "i.csv": "item,title\nq,Q\n"}
    with pytest.raises(InputError, match="none of its 1 items is among the 3 items"):
        prepared(tmp_path, other, items_file="i.csv", title_column="title")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            "item,c\nx,red\n\ny,blue\nx,green\n",
            r"i\.csv, line 5: item 'x' is described twice, before at .*i\.csv, line 2",
        ),
        ("item,c\nx,red\n,blue\n", r"i\.csv, line 3, column 'item': the cell is empty"),
        ("item,c\nx,red,1\n", r"i\.csv, line 2: 3 fields; expected 2"),
        ("sku,c\nx,red\n", r"there is no column 'item'; .*sku, c\..*--items-column"),
        ("item,d\nx,red\n", r"there is no column 'c'; .*item, d\..*--attribute-columns"),
        ("item,c\n", r"i\.csv: holds no"),
        ('item,c\nx,"red\ny,blue\n', r"i\.csv, line 2: a quote opens a field that does not end"),
    ],
)
def test_a_bad_items_file_is_refused(tmp_path: Path, items: str, message: str) -> None:
    files = {"e.csv": EVENTS, "i.csv": items}
    refused(tmp_path, files, message, items_file="i.csv", attribute_columns=("c",))


def test_values_that_are_no_text_are_refused(tmp_path: Path) -> None:
    table = {"item": ["x"], "c": [{"a": 1}], "t": [["a", "b"]]}
    pd.DataFrame(table).to_parquet(tmp_path / "i.parquet")
    for options, message in (
        ({"attribute_columns": ("c",)}, r"row 1: column 'c' holds struct<a: int64>; allowed are"),
        ({"title_column": "t"}, r"row 1: column 't' holds lists; a title is text"),
    ):
        refused(tmp_path, {"e.csv": EVENTS}, message, items_file="i.parquet", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items_file": "i.csv"}, "name what to read of it with --attribute-columns"),
        ({"items_file": "i.xls", "title_column": "t"}, r"i\.xls: the name of an items file ends"),
        ({"items_file": "no.csv", "title_column": "t"}, r"no\.csv: there is no such file"),
        ({"items_column": "sku"}, "--items-column is for --items-file"),
        ({"list_separator": "|"}, "--list-separator is for --attribute-columns"),
        ({"numeric_bins": 4}, "--numeric-bins is for --attribute-columns"),
        ({"attribute_columns": ("c",), "numeric_bins": 1}, r"--numeric-bins 1: 0 \(no bins\)"),
        ({"attribute_columns": ("c",), "list_separator": ""}, "--list-separator is empty"),
        ({"attribute_columns": ("c", "c")}, "name a column once"),
        ({"attribute_columns": ("item",)}, "'item' is named for two purposes"),
        ({"attribute_columns": ("categry",)}, r"did you mean '?category.*--attribute-columns"),
        ({"attribute_columns": ("c",), "attributes": "a.json"}, "both name attributes"),
        (
            {"source": "pairs", "attribute_columns": ("c",)},
            "pairs format has no columns; .*items-f",
        ),
        ({"source": "movielens", "title_column": "t"}, "--title-column is for .*does not use it"),
        ({"source": "pairs", "quoted_newlines": True}, "--quoted-newlines is for csv"),
        (
            {"items_file": "i.csv", "items_column": "title", "title_column": "title"},
            "'title' has the ids of items",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    files = {"e.csv": EVENTS, "i.csv": ITEMS, "i.xls": "x", "a.json": "{}"}
    refused(tmp_path, files, message, **options)


def test_only_options_that_are_used_enter_the_fingerprint(tmp_path: Path) -> None:
    files = {"e.csv": EVENTS, "i.csv": "item,c\nx,red\n", "j.csv": "item,c\nx,red\n"}
    options = {"attribute_columns": ("c",)}
    first = prepared(tmp_path, files, items_file="i.csv", **options)
    second = prepared(tmp_path, files, items_file="j.csv", **options)
    assert first.fingerprint == second.fingerprint
    assert first.folder != second.folder
    assert first.manifest.options["attribute_columns"] == ["c"]
    assert "items_file" not in first.manifest.options
    changed = prepared(
        tmp_path, {**files, "i.csv": "item,c\nx,blue\n"}, items_file="i.csv", **options
    )
    assert changed.fingerprint != first.fingerprint


def test_the_columns_are_named_on_the_command_line_with_commas() -> None:
    words = [
        "--attribute-columns",
        "category,brand",
        "--title-column",
        "t",
        "--list-separator",
        "|",
    ]
    config = override(PrepareConfig(source="csv"), words)
    assert config.attribute_columns == ("category", "brand")
    assert (config.title_column, config.list_separator) == ("t", "|")


def test_words_for_missing_values_are_no_titles(tmp_path: Path) -> None:
    events = "user,item,timestamp,name\na,x,1,NaN\na,y,2,NULL\na,z,3,none\nb,x,4,Ex\n"
    assert titles(prepared(tmp_path, {"e.csv": events}, title_column="name")) == {
        "x": "Ex",
        "y": "",
        "z": "",
    }


def test_equal_rows_of_an_items_file_count_as_one(tmp_path: Path) -> None:
    items = "item,c,other\nx,red,1\ny,blue,1\nx,red,2\nx,red,3\n"
    options = {"items_file": "i.csv", "attribute_columns": ("c",), "missing": "drop"}
    corpus = prepared(tmp_path, {"e.csv": EVENTS, "i.csv": items}, **options)
    assert attributes(corpus) == {"x": ["c:red"], "y": ["c:blue"], "z": []}
    assert report(corpus)["items_file"] == {"rows_that_repeat_another": 2}


def test_equal_rows_of_lists_and_numbers_count_as_one(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"item": ["x", "y", "x"], "c": [["a", "b"], [], ["a", "b"]], "n": [float("nan"), 1, None]}
    )
    frame.to_parquet(tmp_path / "i.parquet")
    corpus = prepared(
        tmp_path, {"e.csv": EVENTS}, items_file="i.parquet", attribute_columns=("c", "n")
    )
    assert attributes(corpus) == {"x": ["c:a", "c:b"], "y": ["n:1"], "z": []}


def test_the_name_of_the_items_column_does_not_enter_the_fingerprint(tmp_path: Path) -> None:
    files = {"e.csv": EVENTS, "i.csv": ITEMS}
    options: dict[str, object] = {"items_file": "i.csv", "title_column": "title"}
    left_out = prepared(tmp_path, files, **options)
    given = prepared(tmp_path, files, items_column="item", **options)
    assert given.fingerprint == left_out.fingerprint
    assert report(given)["key"] != report(left_out)["key"]


def _line(user: str, **fields: object) -> str:
    return json.dumps({"user": user, "item": user, "timestamp": 1, **fields}) + "\n"


@pytest.mark.parametrize(("separator", "ends"), [(None, ["c:p|q"]), ("|", ["c:p", "c:q"])])
def test_lists_in_one_part_and_text_in_another_become_lists(
    tmp_path: Path, separator: str | None, ends: list[str]
) -> None:
    (tmp_path / "parts").mkdir()
    files = {
        "parts/a.jsonl": _line("a", c=["p", "q"]),
        "parts/b.jsonl": _line("b", c="p|q"),
        "parts/c.jsonl": _line("c"),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    options = {"attribute_columns": ("c",), "list_separator": separator}
    corpus = prepared(tmp_path, {}, source="jsonl", raw="parts", **options)
    assert attributes(corpus) == {"a": ["c:p", "c:q"], "b": ends, "c": []}
    for name, cells in (("a", [["p", "q"]]), ("b", ["p|q"]), ("c", [None])):
        columns = {"user": [name], "item": [name], "timestamp": [1], "c": cells}
        parquet.write_table(pa.table(columns), tmp_path / "parts" / f"{name}.parquet")
    corpus = prepared(tmp_path, {}, source="parquet", raw="parts", **options)
    assert attributes(corpus) == {"a": ["c:p", "c:q"], "b": ends, "c": []}


def test_items_files_of_two_formats_have_lists_and_text(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.csv").write_text("item,c\nx,red\n")
    (tmp_path / "items" / "b.jsonl").write_text('{"item": "y", "c": ["blue", "red"]}\n')
    (tmp_path / "items" / "c.jsonl").write_text('{"item": "w"}\n')
    options = {"items_file": "items", "attribute_columns": ("c",)}
    corpus = prepared(tmp_path, {"e.csv": EVENTS}, **options)
    assert attributes(corpus) == {"x": ["c:red"], "y": ["c:blue", "c:red"], "z": []}
    columns = {"item": ["v"], "c": [{"k": 1}]}
    parquet.write_table(pa.table(columns), tmp_path / "items" / "d.parquet")
    message = r"d\.parquet, row 1: column 'c' holds struct<.*>, but .* in .*a\.csv, line 2"
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, {"e.csv": EVENTS}, **options)


def test_a_field_about_items_that_no_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for user in "ab":
        (tmp_path / "parts" / f"{user}.jsonl").write_text(_line(user, colour="red"))
    message = (
        r"a\.jsonl: no line has the field 'color'; those .* colour; did you mean colour\? "
        r"Name yours with --attribute-columns or --title-column\."
    )
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, {}, source="jsonl", raw="parts", attribute_columns=("color",))


@pytest.mark.parametrize("in_events", [True, False])
def test_bins_and_counts_are_of_the_items_that_are_kept(tmp_path: Path, in_events: bool) -> None:
    prices = {"w": "1", "x": "2", "y": "30", "z": "400"}
    names = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("a", "z"), ("b", "w")]
    events = "user,item,timestamp,price\n" + "".join(
        f"{user},{item},{number},{prices[item]}\n" for number, (user, item) in enumerate(names)
    )
    items = "item,price\n" + "".join(f"{item},{price}\n" for item, price in prices.items())
    where = {} if in_events else {"items_file": "i.csv"}
    options = {"attribute_columns": ("price",), "numeric_bins": 2, "item_core": 2}
    corpus = prepared(tmp_path, {"e.csv": events, "i.csv": items}, **where, **options)
    assert attributes(corpus) == {"x": ["price:2"], "y": ["price:30"]}
    note = report(corpus)["attribute_columns"]
    assert note == {
        "price": {
            "distinct_values": 2,
            "items_described": 2,
            "cells": "single values",
            "bins": ["2", "30"],
        }
    }
