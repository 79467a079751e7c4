"""JSON lines, and the dictionaries that Python writes: what is read, and what is refused."""

import bz2
import gzip
import json
import zipfile
from pathlib import Path
from random import Random

import pytest

from research.data.corpus import Corpus
from research.data.preparation import json_lines
from research.data.preparation.json_lines import read_json_lines
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.preparation.python_literals import json_of_literal
from research.errors import InputError
from tests.support.histories import histories

# The form of Amazon's reviews of 2014 and 2018.
REVIEWS = (
    '{"reviewerID": "A2", "asin": "0594", "helpful": [3, 3], "reviewText": "a \\"b\\", c\\n{}", '
    '"overall": 5.0, "unixReviewTime": 1390176000, "reviewTime": "01 20, 2014"}\n'
    '{"reviewerID": "A1", "asin": "B00", "style": {"Size:": " L"}, "overall": 2, '
    '"unixReviewTime": 1390176001}\n'
    '{"reviewerID": "A2", "asin": "B00", "overall": 4.5, "unixReviewTime": 1390175999}\n'
)
AMAZON = {
    "user_column": "reviewerID",
    "item_column": "asin",
    "timestamp_column": "unixReviewTime",
}


def prepared(path: Path, **options: object) -> Corpus:
    config = PrepareConfig(source="jsonl", raw=str(path), **options)
    return prepare(config, data_root=path.parent / "data")


def lines_prepared(tmp_path: Path, text: str | bytes, **options: object) -> Corpus:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return prepared(path, **options)


def test_reviews_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    corpus = lines_prepared(tmp_path, REVIEWS, min_rating=3.0, rating_column="overall", **AMAZON)
    assert histories(corpus) == {"A2": ["B00", "0594"]}
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [1390175999, 1390176000]


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl.bz2", ".json.zip"])
def test_files_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"reviews{suffix}"
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(REVIEWS.encode()))
    elif suffix.endswith(".bz2"):
        path.write_bytes(bz2.compress(REVIEWS.encode()))
    elif suffix.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("reviews.json", REVIEWS)
    else:
        path.write_text(REVIEWS)
    corpus = prepared(path, **AMAZON)
    assert corpus.name == "reviews"
    assert histories(corpus) == {"A2": ["B00", "0594"], "A1": ["B00"]}


def test_the_files_of_a_folder_are_one_source(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    first, second, third = REVIEWS.splitlines(keepends=True)
    (tmp_path / "parts" / "1.json").write_text(first)
    (tmp_path / "parts" / "2.json.gz").write_bytes(gzip.compress((second + third).encode()))
    corpus = prepared(tmp_path / "parts", **AMAZON)
    assert histories(corpus) == {"A2": ["B00", "0594"], "A1": ["B00"]}


def test_both_passes_give_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(REVIEWS)
    fields = {"reviewerID": "id", "asin": "id", "unixReviewTime": "time", "overall": "number"}
    fast = json_lines._read_fast(path, fields, json_lines._parser_of(path)[1])  # type: ignore[arg-type]
    slow = json_lines._read_slowly(path, fields, json_lines._parse_json)  # type: ignore[arg-type]
    assert fast is not None
    assert fast.drop_columns("overall") == slow.drop_columns("overall")
    assert fast.column("overall").to_pylist() == [5.0, 2.0, 4.5]
    assert slow.column("overall").to_pylist() == ["5.0", "2", "4.5"]


@pytest.mark.parametrize(
    "text",
    [
        '{"u": "a", "i": "x"}{"u": "b", "i": "y"}\n',
        '{"u": "a", "i":\n"x"}{"u": "b", "i": "y"}\n',
        '{"u": "a", "i": "x", "list": [{}\n,{}]}\n',
    ],
)
def test_two_objects_on_a_line_and_one_on_two_lines_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.jsonl, line 1: no JSON \("):
        lines_prepared(tmp_path, text, user_column="u", item_column="i", timestamp_column=None)


def test_line_ends_blank_lines_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    plain = histories(lines_prepared(tmp_path, REVIEWS, **AMAZON))
    for number, text in enumerate(
        (
            REVIEWS.replace("\n", "\r\n"),
            REVIEWS.replace("\n", "\n\n \t\n"),
            "\n" + REVIEWS.rstrip("\n"),
            "\ufeff" + REVIEWS,
            REVIEWS.replace("}\n", "} \n"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert histories(lines_prepared(folder, text, **AMAZON)) == plain


OPTIONS = {"user_column": "u", "item_column": "i", "timestamp_column": "t"}


def test_numbers_stay_exact(tmp_path: Path) -> None:
    text = (
        '{"u": 9007199254740993, "i": 9007199254740992, "t": 1700000000000000001}\n'
        '{"u": 9007199254740993, "i": 9007199254740993, "t": 1700000000000000000}\n'
    )
    assert histories(lines_prepared(tmp_path, text, **OPTIONS)) == {
        "9007199254740993": ["9007199254740993", "9007199254740992"]
    }
    text = (
        '{"u": 99999999999999999999, "i": 2, "t": 1700000000.2000000001}\n'
        '{"u": 99999999999999999999, "i": 1, "t": 1700000000.2}\n'
        '{"u": 99999999999999999999, "i": 0, "t": 1700000000}\n'
    )
    (tmp_path / "floats").mkdir()
    assert histories(lines_prepared(tmp_path / "floats", text, **OPTIONS)) == {
        "99999999999999999999": ["0", "1", "2"]
    }


def test_ids_are_text_as_it_is_written(tmp_path: Path) -> None:
    items = ("007", "7", "\\u00e9\\ud83d\\ude00")
    text = "".join(f'{{"u": " a", "i": "{item}"}}\n' for item in items)
    corpus = lines_prepared(tmp_path, text, **{**OPTIONS, "timestamp_column": None})
    assert histories(corpus) == {" a": ["007", "7", "é😀"]}


def test_fields_in_objects_have_dotted_names(tmp_path: Path) -> None:
    text = '{"user": {"id": "a"}, "item.id": "x", "t": 1}\n{"user": {"id": "b"}, "item.id": "y"}\n'
    options = {"user_column": "user.id", "item_column": "item.id", "timestamp_column": None}
    assert histories(lines_prepared(tmp_path, text, **options)) == {"a": ["x"], "b": ["y"]}


def test_a_missing_field_is_a_missing_cell(tmp_path: Path) -> None:
    text = '{"u": "a", "i": "x", "t": 1}\n\n{"u": "a", "t": 2}\n{"u": null, "i": "x", "t": NaN}\n'
    message = r"x\.jsonl, line 3, column 'i': the cell is empty\. Cells without a value: 1 in col"
    with pytest.raises(InputError, match=message):
        lines_prepared(tmp_path, text, **OPTIONS)
    corpus = lines_prepared(tmp_path, text, missing="drop", **OPTIONS)
    assert histories(corpus) == {"a": ["x"]}
    assert corpus.manifest.report["rows_dropped_as_missing"] == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"u": "a", "i": "x", "t": 1', r"line 2: no JSON \(Expecting ',' delimiter, at char"),
        ('["a"]', r"line 2: '\[\"a\"\]' is no object"),
        ('"a"', r"line 2: '\"a\"' is no object"),
        ('{"u": "a", "u": "b", "i": "x", "t": 1}', r"line 2: the field 'u' occurs twice"),
        ('{"u": 1, "i": "x", "t": 1}', r"line 2, field 'u': 1 is a number, but the lines before h"),
        ('{"u": "a", "i": ["x"], "t": 1}', r"line 2, field 'i': \['x'\]; expected text or a whole"),
        ('{"u": "a", "i": true, "t": 1}', r"line 2, field 'i': True; expected text or a whole num"),
        ('{"u": "a", "i": 5.0, "t": 1}', r"line 2, field 'i': 5\.0; expected text or a whole numb"),
        ('{"u": "a", "i": {"x": 1}, "t": 1}', r"line 2, field 'i': \{'x': 1\}; expected text or "),
        ('{"u": "a", "i": "x", "t": "1"}', r"line 2, field 't': '1' is text, but the lines before"),
        ('{"u": "a", "i": "x", "t": Infinity}', r"line 2: Infinity is no number"),
        ('{"u": "\\ud800", "i": "x", "t": 1}', r"line 2, field 'u': '\\ud800' has half of a surr"),
        (b'{"u": "\xff", "i": "x", "t": 1}', r"line 2: not utf-8 text \(utf-8 was tried"),
        ("{'u': 'a', 'i': 'x', 't': 1}", r"line 2: no JSON \(Expecting property name"),
        ('{"x": ' + "[" * 100_000, r"line 2: it is nested too deeply"),
        ('{"u": ' + "9" * 5000 + ', "i": "x", "t": 1}', r"line 2: Exceeds the limit"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(
    tmp_path: Path, line: str | bytes, message: str
) -> None:
    bad = line.encode() if isinstance(line, str) else line
    text = b'{"u": "a", "i": "x", "t": 1}\n' + bad + b'\n{"u": "a", "i": "y", "t": 2}\n'
    with pytest.raises(InputError, match=rf"x\.jsonl, {message}"):
        lines_prepared(tmp_path, text, **OPTIONS)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.jsonl: the file is empty"),
        (" \n\n", r"x\.jsonl: every line is blank"),
        ("user,item\n1,2\n", r"line 1: no JSON \(.*Expected one JSON object a line, or one dict"),
        (
            '{"user": "a", "i": "x"}\n',
            r"no line has the field 'u'; those of the first lines are ",
        ),
        ('[\n{"u": "a"}\n]\n', r"line 1: no JSON"),
    ],
)
def test_a_file_without_the_fields_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lines_prepared(tmp_path, text, user_column="u", item_column="i", timestamp_column=None)


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_LONGEST_LINE", 100)
    text = '{"u": "a", "i": "x", "t": 1}\n{"u": "' + "a" * 100 + '", "i": "x", "t": 1}\n'
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: more than 100 bytes without a line"):
        lines_prepared(tmp_path, text, **OPTIONS)


# The form of Steam's reviews, which Python 2 wrote.
STEAM = (
    "{u'username': u'Ch\\xe4os', u'hours': 0.1, u'products': 41, u'product_id': u'725280', "
    "u'page_order': 0, u'date': u'2017-12-17', u'text': u'no \"apples\" 1L', "
    "u'early_access': False, u'page': 1}\n"
    "{u'username': u\"it's\", u'product_id': u'35140', u'date': u'2017-12-16', "
    "u'text': u'\\U0001f600\\n', u'user_id': None, u'page': 1L}\n"
)


def test_lines_that_python_wrote_are_read(tmp_path: Path) -> None:
    options = {"user_column": "username", "item_column": "product_id", "timestamp_column": "date"}
    corpus = lines_prepared(tmp_path, STEAM, **options)
    assert histories(corpus) == {"Chäos": ["725280"], "it's": ["35140"]}
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [1513468800, 1513382400]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'u': __import__('os').system('ls'), 'i': 'x'}", "'__import__' is no value"),
        ("{'u': open, 'i': 'x'}", "'open' is no value"),
        ("{'u': ('a'), 'i': 'x'}", r"no JSON \("),
        ("{'u': 'a' * 9, 'i': 'x'}", r"no JSON \("),
        ("{'u': 'a', 'i': 'x'", r"no JSON \("),
        ("{'u': 'a', 'i': 'x", r"no JSON \("),
        ("{'u': 'a', 'u': 'b', 'i': 'x'}", "the field 'u' occurs twice"),
        ("{'u': b'a', 'i': 'x'}", "'b' is no value"),
        ("{'u': '\\d', 'i': 'x'}", r"\\d is no escape of Python"),
        ("{'u': " + "[" * 100_000 + "]" * 100_000 + "}", "it is nested too deeply"),
        ('{"u": "a", "i": "x", "v": false}', "'false' is no value"),
    ],
)
def test_a_line_that_python_did_not_write_is_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    text = f"{{'u': 'a', 'i': 'x'}}\n{line}\n"
    with pytest.raises(InputError, match=rf"x\.jsonl, line 2: {message}"):
        lines_prepared(tmp_path, text, user_column="u", item_column="i", timestamp_column=None)


@pytest.mark.parametrize(
    "value",
    [
        {"a'b": 'c"d', "e": "\\'\"\n\t\x00\x7f\x85é漢😀"},
        {"menu": "menu", "u": "u", "e": 1e-05, "n": [None, True, False, -3, 10**20]},
        {"nested": {"list": [["a"], ["b", "it's"]]}, "empty": "", "none": []},
    ],
)
def test_what_python_writes_is_what_is_read(value: dict[str, object]) -> None:
    assert json.loads(json_of_literal(repr(value))) == value
    assert json.loads(json_of_literal(ascii(value))) == value


def test_lists_become_lists_of_text(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    path.write_text(
        "{'asin': '0594', 'categories': [['Beauty', 'Hair & Care'], ['Gifts']], 'price': 9.50}\n"
        "{'asin': 'B00', 'title': \"it's\", 'brand': ''}\n"
        "{'asin': 'B01', 'categories': [], 'price': 3}\n"
    )
    raw = read_json_lines(
        path,
        {"asin": "id", "categories": "any", "price": "any", "title": "any", "brand": "any"},
    )
    assert raw.table.to_pydict() == {
        "asin": ["0594", "B00", "B01"],
        "categories": [["Beauty", "Hair & Care", "Gifts"], None, []],
        "price": ["9.50", None, "3"],
        "title": [None, "it's", None],
        "brand": [None, "", None],
    }
    assert raw.where(2) == f"{path}, line 3"
    path.write_text('{"asin": "a", "c": "x"}\n{"asin": "b", "c": ["x"]}\n')
    with pytest.raises(InputError, match=r"line 2, field 'c': \['x'\] is a list, but the lines be"):
        read_json_lines(path, {"asin": "id", "c": "any"})
    path.write_text('{"asin": "a", "c": [{"x": 1}]}\n')
    with pytest.raises(InputError, match=r"line 1, field 'c': a list with an object"):
        read_json_lines(path, {"asin": "id", "c": "any"})


def naive_rows(text: str) -> list[tuple[str | None, int | None]] | None:
    """The users and times of each line that is not blank, by json.loads; None: one is wrong."""
    rows: list[tuple[str | None, int | None]] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if not line.strip(" \t\r"):
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=list)
        except ValueError:
            return None
        # An object becomes a list of pairs, a list a list of values.
        if not line.strip().startswith("{") or len({name for name, _ in pairs}) < len(pairs):
            return None
        entry = dict(pairs)
        user, time = entry.get("u"), entry.get("t")
        if type(user) not in (str, type(None)) or type(time) not in (int, type(None)):
            return None
        rows.append((user, time))
    return rows


def test_rows_are_the_lines_of_generated_files(tmp_path: Path) -> None:
    objects = (
        *('{"u": "a", "t": 1}', '{"t": 2, "u": "b", "x": [{"u": 1}, "}"]}', '{"u": "c"}', "{}"),
        *('{"t": 3, "u": "\\n{\\"u\\": 1}"}', '{"u": null, "t": null}'),
        '{"u": "é \\u00e9", "t": -4}',
    )
    odd = ('{"u": "a", "u": "b"}', '{"u": "a"', '"t": 1}', "[]", "{}{}", '{"u":', "null", "{", "}")
    ends = ("\n", "\n", "\n", "\r\n", "\n\n", " \n", "\n \t\n", " ", "")
    random = Random(0)
    path = tmp_path / "x.jsonl"
    accepted = 0
    for number in range(1000):
        # Most files are in order, so that the fast pass is taken; others have a fault or two.
        count, faults = random.choice((1, 2, 5)), random.choice((0, 0, 1, 2))
        parts = [random.choice(objects) + random.choice(ends[:3]) for _ in range(count)]
        for _ in range(faults):
            place = random.randrange(count)
            parts[place] = random.choice((*objects, *odd)) + random.choice(ends)
        text = random.choice(("", "", "\ufeff")) + '{"u": "a", "t": 1}\n' + "".join(parts)
        path.write_text(text, newline="")
        expected = naive_rows(text)
        try:
            table = read_json_lines(path, {"u": "id", "t": "time"}).table
        except InputError:
            assert expected is None, (number, text)
            continue
        accepted += 1
        rows = zip(table.column("u").to_pylist(), table.column("t").to_pylist(), strict=True)
        assert list(rows) == expected, (number, text)
    assert 500 < accepted < 950
