"""Text files of every format, generated: all their lines are read, or a fault names its line."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.preparation import delimited
from research.data.preparation.csv_files import read_csv
from research.data.preparation.events import Events
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import source_of
from research.data.preparation.raw_tables import ColumnNames
from research.errors import InputError
from tests.data.reference_text import Fault, rows_of, table_of

# Derandomized, so that a test fails for everybody or for nobody; the long twin does more cases.
FAST = settings(max_examples=150, deadline=None, derandomize=True)
LONG = settings(max_examples=5000, deadline=None, derandomize=True)

ENDS = st.sampled_from(["\n", "\r\n", "\r"])
CELLS = ["a", "b c", " a ", "é", "7", "007", "nan", "\u2028", "\x0b", "\x1c", "'", "\\", "x" * 60]
QUOTED = ['"q"', '""', '"x,\t;|y"', '"a""b"', '""""', 'a"b', 'a""b', 'end"', '"é"', '" "']
LINES = ['"a\nb"', '"a\r\nb"', '"\r"', '"a""\n""b,\n\n"', '"\r\n\r\n"']
# A file with one of these is refused as a rule.
STRAY = ['"open', '"a" ', '"a"b', '"""', '" ""', '""a', "a\nb"]
ODD = ["\x00", "\ufeff", '\ufeff"a"', " ", ""]


@st.composite
def texts(draw: st.DrawFn, delimiter: str, width: int, header: bool) -> str:
    """Lines of `width` cells as a rule, with line ends of any kind and blank lines between."""
    pools = [[], ODD, QUOTED, QUOTED, QUOTED + LINES, QUOTED + LINES, QUOTED + STRAY + ODD]
    cells = CELLS + draw(st.sampled_from(pools))
    cell = st.sampled_from([each.replace(",", delimiter) for each in cells])
    row = st.lists(cell, min_size=width, max_size=width)
    wrong = st.lists(cell, min_size=1, max_size=width + 2)
    rows = draw(st.lists(row, max_size=8))
    if draw(st.integers(0, 5)) == 0:
        rows.insert(draw(st.integers(0, len(rows))), draw(wrong))
    if header:
        names = ["user", '"item"' if draw(st.integers(0, 3)) == 0 else "item"]
        others = cell if draw(st.integers(0, 5)) == 0 else st.sampled_from(["z", "z", "", "é"])
        names += draw(st.lists(others, min_size=width - 2, max_size=width - 2))
        rows.insert(0, draw(st.permutations(names)))
    end = draw(st.one_of(ENDS.map(lambda end: st.just(end)), st.just(ENDS)))
    lines = [delimiter.join(fields) for fields in rows]
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([""] * 9 + [" "])))
    text = "".join(line + draw(end) for line in lines)
    return text if draw(st.booleans()) else text.rstrip("\r\n")


@st.composite
def soups(draw: st.DrawFn, delimiter: str, header: bool) -> str:
    """Any sequence of what has a meaning in delimited text, after a header."""
    letters = st.sampled_from(
        ["a", "b", '"', '"', '""', delimiter, delimiter, "\n", "\r", " ", ":"]
    )
    body = "".join(draw(st.lists(letters, max_size=40)))
    return (f"user{delimiter}item\n" if header else f"a{delimiter}b\n") + body


def encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "replace")


ENCODINGS = st.sampled_from(["utf-8"] * 20 + ["utf-8-sig"] * 3 + ["latin-1"] * 2 + ["utf-16"])


def same_as_the_reference(
    data: bytes, delimiter: str, *, header: bool, quoted: bool, newlines: bool, block: int
) -> None:
    names = ("user", "item") if header else ("1", "2")
    columns = ColumnNames(user=names[0], item=names[1], timestamp=None, rating=None)
    config = PrepareConfig(
        source="csv",
        delimiter=delimiter,
        header=header,
        quotes=quoted,
        quoted_newlines=newlines,
    )
    fault: Fault | None = None
    expected: list[tuple[str, ...]] = []
    try:
        expected = table_of(data, names, delimiter, header=header, quoted=quoted, newlines=newlines)
    except Fault as found:
        fault = found
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BLOCK", block)
        path = Path(folder) / "c.csv"
        path.write_bytes(data)
        if fault is not None:
            with pytest.raises(InputError) as refusal:
                read_csv(path, columns, config)
            named = re.search(r", line ([0-9]+)", str(refusal.value))
            assert (named and int(named[1])) == fault.line, refusal.value
            return
        table = read_csv(path, columns, config).table
    cells = [table.column(name).to_pylist() for name in names]
    assert list(zip(*cells, strict=True)) == expected


SINGLE = [",", ";", "\t", "|"]


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, dict[str, object]]:
    """A file, and how it is read."""
    delimiter = draw(st.sampled_from([*SINGLE, " ", "::"]))
    header = draw(st.booleans())
    quoted = delimiter != "::" and draw(st.integers(0, 3)) > 0
    options: dict[str, object] = {
        "delimiter": delimiter,
        "header": header,
        "quoted": quoted,
        "newlines": quoted and draw(st.booleans()),
        # Lines of up to some 200 characters: borders of blocks fall everywhere in them.
        "block": draw(st.sampled_from([2, 7, 30, 250, 300, 1 << 20])),
    }
    text = draw(
        st.one_of(
            soups(delimiter, header),
            *(texts(delimiter, width, header=header) for width in (2, 3, 4)),
        )
    )
    return encoded(text, draw(ENCODINGS)), options


@FAST
@given(files())
def test_every_line_of_delimited_text_is_read_or_its_fault_is_named(
    file: tuple[bytes, dict[str, object]],
) -> None:
    same_as_the_reference(file[0], **file[1])


@pytest.mark.long
@LONG
@given(files())
def test_every_line_of_much_delimited_text_is_read_or_its_fault_is_named(
    file: tuple[bytes, dict[str, object]],
) -> None:
    same_as_the_reference(file[0], **file[1])


def read(folder: str, name: str, data: bytes, config: PrepareConfig) -> Events | InputError:
    """The events of a file, or what was raised."""
    path = Path(folder) / name
    path.write_bytes(data)
    try:
        return source_of(config, Path(folder)).read()
    except InputError as error:
        return error


def pairs_of(events: Events) -> list[tuple[str, str]]:
    return [
        (events.user_names[user], events.item_names[item])
        for user, item in zip(events.users.tolist(), events.items.tolist(), strict=True)
    ]


def assert_names_line(result: Events | InputError, line: int | None) -> None:
    assert isinstance(result, InputError), pairs_of(result)
    named = re.search(r", line ([0-9]+)", str(result))
    assert (named and int(named[1])) == line, result


NUMBERS = st.sampled_from(["0", "1", "7", "12", "345", "123456789012345678"])


@st.composite
def number_lines(draw: st.DrawFn, separator: str, width: int, wrong: list[str]) -> bytes:
    """Lines of whole numbers, one of them perhaps wrong, with any line ends, encoded."""
    rows = draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), max_size=8))
    if rows and wrong and draw(st.integers(0, 3)) == 0:
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, width - 1))] = draw(st.sampled_from(wrong))
    if rows and draw(st.integers(0, 5)) == 0:
        draw(st.sampled_from(rows)).append("8")
    lines = [separator.join(fields) for fields in rows]
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), "")
    end = draw(st.one_of(ENDS.map(lambda end: st.just(end)), st.just(ENDS)))
    text = "".join(line + draw(end) for line in lines)
    text = text if draw(st.booleans()) else text.rstrip("\r\n")
    return text.encode(draw(ENCODINGS), "replace")


@FAST
@given(
    data=number_lines("::", 4, ["", ":", "x", "07", '"1"', "1\t2", "\x1f"]),
    block=st.sampled_from([2, 9, 30, 1 << 20]),
)
def test_every_line_of_movielens_is_read_or_its_fault_is_named(data: bytes, block: int) -> None:
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    rows = rows_of(text, "::", quoted=False, newlines=False)
    config = PrepareConfig(source="movielens")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BLOCK", block)
        config = PrepareConfig(source="movielens", raw=folder)
        if not data:
            return
        result = read(folder, "ratings.dat", data, config)
    wrong_width = [line for line, fields in rows if len(fields) != 4]
    wrong_cell = [
        line
        for line, fields in rows
        if not all(re.fullmatch("0|[1-9][0-9]*", cell) for cell in fields)
    ]
    if not rows or wrong_width:
        assert_names_line(result, wrong_width[0] if wrong_width else None)
    elif wrong_cell:
        # Faults of cells are found column by column; only one cell is wrong.
        assert_names_line(result, wrong_cell[0])
    elif len({len(fields[3]) > 11 for _, fields in rows}) == 1:
        assert isinstance(result, Events), result
        assert pairs_of(result) == [(fields[0], fields[1]) for _, fields in rows]
    else:
        # Some times would be seconds, others nanoseconds.
        assert isinstance(result, InputError)


@FAST
@given(data=number_lines("\t", 3, ["", '"a"', "x y", '"', "é"]), head=st.sampled_from(["", "\n"]))
def test_every_line_of_atomic_files_is_read_or_its_fault_is_named(data: bytes, head: str) -> None:
    header = f"{head}item_id:token\tname:token\tuser_id:token\n"
    data = header.encode() + data.removeprefix(b"\xef\xbb\xbf")
    text = data.decode("utf-8", "surrogateescape")
    _, *rows = rows_of(text, "\t", quoted=False, newlines=False)
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(source="atomic", raw=f"{folder}/x.inter")
        result = read(folder, "x.inter", data, config)
    wrong = [line for line, fields in rows if len(fields) != 3]
    undecoded = [
        line
        for line, fields in rows
        if any("\udc80" <= letter <= "\udcff" for cell in fields[::2] for letter in cell)
    ]
    missing = [line for line, fields in rows if not (fields[0] and fields[-1])]
    if not rows or wrong or undecoded:
        assert_names_line(result, min(wrong + undecoded) if rows else None)
    elif missing:
        assert_names_line(result, missing[0])
    else:
        assert isinstance(result, Events), result
        assert pairs_of(result) == [(fields[2], fields[0]) for _, fields in rows]


def integer_rows(data: bytes) -> list[tuple[int, list[str]]]:
    """The line and fields of each line that is not blank; blanks and tabs separate fields."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)
    fields = [[field for field in re.split("[ \t]+", line) if field] for line in lines]
    return [(number, row) for number, row in enumerate(fields, start=1) if row]


@FAST
@given(data=number_lines(" ", 2, ["007", "00", "x", "-1", "1.0", "\x0b", "9" * 19, "+1", "\t"]))
def test_every_line_of_pairs_is_read_or_its_fault_is_named(data: bytes) -> None:
    rows = integer_rows(data)
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(source="pairs", raw=f"{folder}/p.txt")
        result = read(folder, "p.txt", data, config)
    cells = [(line, cell) for line, row in rows for cell in row]
    no_number = [line for line, cell in cells if not re.fullmatch("[0-9]+", cell)]
    too_long = [line for line, cell in cells if len(cell) > 18]
    wrong_width = [line for line, row in rows if len(row) != 2]
    if any("\0" in cell for _, cell in cells) or b"\xff" in data or b"\xe9" in data:
        assert isinstance(result, InputError)
    elif no_number or too_long or wrong_width or not rows:
        # Faults of the kinds are looked for one after another.
        assert_names_line(result, (no_number or too_long or wrong_width or [None])[0])
    else:
        assert isinstance(result, Events), result
        assert pairs_of(result) == [(row[0], row[1]) for _, row in rows]


@FAST
@given(data=number_lines("\t", 3, ["007", "x", "", " "]), stride=st.integers(0, 2))
def test_every_line_of_s3rec_is_read_or_its_fault_is_named(data: bytes, stride: int) -> None:
    rows = integer_rows(data)
    # One line a user: each begins with the number of its line, but for some.
    if stride:
        text = data.decode("utf-8", "replace").removeprefix("\ufeff")
        lines = re.split("(\r\n|\r|\n)", text)
        numbered = [
            f"{1 + place // (2 * stride)} {line}" if place % 2 == 0 and line.strip() else line
            for place, line in enumerate(lines)
        ]
        data = "".join(numbered).encode()
        rows = integer_rows(data)
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(source="s3rec", raw=f"{folder}/X.txt")
        result = read(folder, "X.txt", data, config)
    if any(not re.fullmatch("[0-9]{1,18}", cell) for _, row in rows for cell in row):
        assert isinstance(result, InputError)
        return
    short = [line for line, row in rows if len(row) < 2]
    users = [row[0] for _, row in rows]
    if short or not rows:
        assert_names_line(result, short[0] if short else None)
    elif len(set(users)) < len(users):
        assert isinstance(result, InputError)
        assert re.search(r"line [0-9]+: user .* already has line", str(result))
    else:
        assert isinstance(result, Events), result
        assert pairs_of(result) == [(row[0], item) for _, row in rows for item in row[1:]]


BORDER = 1 << 20


@pytest.mark.parametrize(
    ("piece", "delimiter", "newlines"),
    [
        (b'u,"a""b",\r\nu,"c",""\r\n\r\nu,,d\r\n', ",", False),
        (b'u,"a\r\n""b",\r\nu,"\r\n",""\r\nu,d,""\r\n', ",", True),
        (b"u::::x\r\n1::a:::\r\n\r\nv:::::w\r\n", "::", False),
    ],
)
def test_nothing_is_lost_at_the_border_of_blocks(
    tmp_path: Path, piece: bytes, delimiter: str, newlines: bool
) -> None:
    columns = ColumnNames(user="1", item="2", timestamp=None, rating=None)
    config = PrepareConfig(
        source="csv", delimiter=delimiter, header=False, quoted_newlines=newlines
    )
    rest = f"{delimiter}y{delimiter}z\n".encode()
    # The border falls before every byte of the piece.
    for shift in range(len(piece) + 1):
        before = b"p" * (BORDER - shift - len(rest)) + rest
        path = tmp_path / f"{shift}.csv"
        path.write_bytes(before + piece + b"q" + rest)
        expected = table_of(
            piece,
            ("1", "2"),
            delimiter,
            header=False,
            quoted=delimiter == ",",
            newlines=newlines,
        )
        table = read_csv(path, columns, config).table
        cells = [table.column(name).to_pylist() for name in ("1", "2")]
        rows = list(zip(*cells, strict=True))
        assert rows[1:] == [*expected, ("q", "y")], shift
        path.unlink()
